"""The whole network: gradients, options, shorter outputs, padding, recompute, golden numbers."""

import dataclasses

import numpy as np
import paddle
import pytest
from small_models import inputs, small_model

from unimo.models.unimo3 import SIZES
from unimo.nn.block import set_recompute
from unimo.nn.position import resize_positions

TINY = sorted(name for name in SIZES if "tiny" in name)

OPTIONS = [
    *({"link_range": value} for value in ("causal", "relative", "all", "bridge", "none")),
    {"gate_dim": "none"},
    {"first_layer_gate": False},
    {"num_internal": 1},
    {"text_start": 2, "image_start": 3, "num_internal": 2},
]


def _without_gradient(layer: paddle.nn.Layer) -> list[str]:
    return [n for n, p in layer.named_parameters() if not p.stop_gradient and p.grad is None]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_reading_trains(options):
    """Forward and backward are finite, and every parameter that the pass can reach has a gradient.

    An early start and the relative range leave the top tower layers unread.
    """
    model = small_model(fusion=options)
    model.train()
    fused = model(*inputs())
    (fused.pooled.square().mean() + fused.fused_text.sum() + fused.fused_image.sum()).backward()
    read = {"text": 4, "vision": 4}
    if "text_start" in options:
        read = {"text": 2, "vision": 3}
    if options.get("link_range") == "relative":
        read = {"text": 2, "vision": 2}
    unread = tuple(f"{tower}.layers.{k}." for tower, top in read.items() for k in range(top, 4))
    without = _without_gradient(model)
    assert all(name.startswith(unread) for name in without)
    assert bool(without) == bool(unread)
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    assert fused.pooled.shape == [3, model.pooled_size]


@pytest.mark.parametrize("name", TINY)
def test_every_parameter_gets_a_gradient_from_the_pooled_vector(name):
    model = small_model(name)
    text, image = model.encode_text(*inputs()[1:]), model.encode_image(inputs()[0])
    model.fuse(text, image, outputs="pooled").pooled.square().sum().backward()
    assert _without_gradient(model) == []


def test_the_unused_pooler_is_frozen():
    model = small_model(text={"pooler": True})
    frozen = {name for name, p in model.named_parameters() if p.stop_gradient}
    assert frozen == {"text.pooler.weight", "text.pooler.bias"}


@pytest.mark.parametrize("name", TINY)
@paddle.no_grad()
def test_shorter_outputs_are_the_same_numbers(name):
    model = small_model(name)
    pixels, ids, mask = inputs()
    text, image = model.encode_text(ids, mask), model.encode_image(pixels)
    whole = model.fuse(text, image)
    words, pooled = model.fuse(text, image, outputs="text"), model.fuse(text, image, outputs="pooled")
    np.testing.assert_allclose(words.fused_text.numpy(), whole.fused_text.numpy(), atol=1e-5)
    np.testing.assert_allclose(pooled.pooled.numpy(), whole.pooled.numpy(), atol=1e-5)
    assert words.pooled is None and pooled.fused_text is None


@pytest.mark.parametrize("name", TINY)
@paddle.no_grad()
def test_padding_changes_nothing(name):
    model = small_model(name)
    pixels, ids, mask = inputs()
    padded = paddle.concat([ids, paddle.ones([3, 4], dtype="int64")], axis=1)
    longer = paddle.concat([mask, paddle.zeros([3, 4], dtype="int64")], axis=1)
    short, long = model(pixels, ids, mask), model(pixels, padded, longer)
    np.testing.assert_allclose(short.pooled.numpy(), long.pooled.numpy(), atol=1e-5)
    np.testing.assert_allclose(short.fused_image.numpy(), long.fused_image.numpy(), atol=1e-5)
    kept = mask.numpy().astype(bool)
    np.testing.assert_allclose(
        short.fused_text.numpy()[kept], long.fused_text[:, :-4].numpy()[kept], atol=1e-5
    )


@paddle.no_grad()
def test_pairs_do_not_see_each_other():
    model = small_model()
    pixels, ids, mask = inputs()
    text, image = model.encode_text(ids, mask), model.encode_image(pixels)
    rows = paddle.to_tensor([2, 0, 0])
    mixed = model.fuse(text, image.select(rows)).pooled
    alone = model.fuse(model.encode_text(ids[1:2], mask[1:2]), model.encode_image(pixels[:1])).pooled
    np.testing.assert_allclose(mixed[1].numpy(), alone[0].numpy(), atol=1e-5)


def test_recompute_gives_the_same_gradients():
    gradients = []
    for on in (False, True):
        model = small_model(fusion={"dropout": 0.1, "attention_dropout": 0.1})
        set_recompute(model, on)
        model.train()
        paddle.seed(5)
        model(*inputs()).pooled.square().sum().backward()
        gradients.append({name: p.grad.numpy() for name, p in model.named_parameters()})
    for name, first in gradients[0].items():
        np.testing.assert_allclose(first, gradients[1][name], rtol=2e-3, atol=2e-5, err_msg=name)


@paddle.no_grad()
def test_layers_and_attentions_on_request():
    model = small_model()
    pixels, ids, mask = inputs()
    text = model.encode_text(ids, mask, layers=True, attentions=True)
    image = model.encode_image(pixels, layers=True, attentions=True)
    fused = model.fuse(text, image, attentions=True)
    plain = model(pixels, ids, mask)
    np.testing.assert_allclose(fused.pooled.numpy(), plain.pooled.numpy(), atol=1e-6)
    assert len(text.text_layers) == len(image.image_layers) == 5
    assert len(fused.attentions) == 12
    for name, weights in {**text.attentions, **image.attentions, **fused.attentions}.items():
        np.testing.assert_allclose(weights.sum(-1).numpy(), 1.0, atol=1e-5, err_msg=name)
    assert fused.attentions["fusion.image_cross.3"].shape == [3, 2, 17, 9]
    assert float(fused.attentions["fusion.image_cross.1"][0, :, :, 6:].max()) < 1e-20


@paddle.no_grad()
def test_masked_positions_carry_no_information():
    model = small_model()
    pixels, ids, mask = inputs()
    changed = paddle.where(mask == 1, ids, paddle.full_like(ids, 7))
    np.testing.assert_array_equal(
        model(pixels, ids, mask).pooled.numpy(), model(pixels, changed, mask).pooled.numpy()
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("unimo3_tiny", [-0.78069, 0.31942, -0.8099, -0.56038]),
        ("unimo3_tiny_d", [0.20406, 0.90761, 0.55728, -0.99773]),
        ("meter_tiny", [0.61385, -0.64589, 0.13532, -0.92953]),
        ("bridgetower_tiny", [0.48939, 0.31876, 0.35, -0.68877]),
    ],
)
@paddle.no_grad()
def test_golden_numbers(name, expected):
    pooled = small_model(name)(*inputs()).pooled
    np.testing.assert_allclose(pooled[0, 14:18].numpy(), expected, atol=2e-5)


@paddle.no_grad()
def test_another_resolution_after_resizing_positions():
    """A model of 32 pixels opened for 48: same weights, resized positions, close but not equal output."""
    small, large = small_model(), small_model(vision={"image_size": 48})
    state = small.state_dict()
    table = resize_positions(state["vision.position_embedding"].numpy(), 6)
    state["vision.position_embedding"] = paddle.to_tensor(table)
    large.set_state_dict(state)
    pixels = paddle.ones([1, 3, 32, 32])
    wide = paddle.ones([1, 3, 48, 48])
    assert large.encode_image(wide).image.shape == [1, 37, 16]
    first, second = small.encode_image(pixels).image[0, 0], large.encode_image(wide).image[0, 0]
    assert float((first - second).abs().mean()) < float(
        (first - small.encode_image(-pixels).image[0, 0]).abs().mean()
    )


def test_learning_rate_groups():
    model = small_model()
    groups = {name: model.lr_group(name) for name, _ in model.named_parameters()}
    for name, group in groups.items():
        towers = name.startswith(("text.", "vision.", "type_embedding"))
        assert group == ("towers" if towers else "cross_modal")
    assert {"text_transform.weight", "fusion.image_links.gates.2.weight", "image_pooler.dense.bias"} <= set(
        groups
    )


def test_config_is_kept():
    model = small_model(fusion={"link_range": "all"})
    assert model.config.fusion == dataclasses.replace(model.config.fusion, link_range="all")
    assert model.hidden_size == 16
