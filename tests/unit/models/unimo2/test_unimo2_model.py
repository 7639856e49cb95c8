"""UNIMO-2 as a whole: gradients, options, shorter outputs, padding, single modalities, golden numbers."""

from dataclasses import replace

import numpy as np
import paddle
import pytest
import yaml
from small_models import VOCABULARY, inputs
from small_unimo2 import small_unimo2, unimo2_config

from unimo.errors import CheckpointError, ConfigError
from unimo.nn.block import set_recompute
from unimo.nn.config import TextConfig, VitConfig
from unimo.nn.heads import Pooler
from unimo.nn.position import resize_positions
from unimo.nn.towers import RobertaTower, VitTower
from unimo.registry import build_model
from unimo.weights.files import write_safetensors
from unimo.weights.layers import tensors_of

OPTIONS = [
    {},
    {"fusion": {"visibility": "full"}},
    {"fusion": {"itm_feature": "product"}},
    {"fusion": {"itm_feature": "sum", "pooler": "tanh"}},
    {"fusion": {"pooler": "none"}},
    {"grounding": {"method": "one_to_one"}},
    {"grounding": {"method": "one_to_one"}, "fusion": {"visibility": "full"}},
    {"grounding": {"enabled": False}},
    {"grounding": {"num_tokens": 0}, "fusion": {"visibility": "full"}},
    {"grounding": {"num_tokens": 20}},
    {"grounding": {"norm_tokens": False}},
    {"grounding": {"project": True}},
    {"grounding": {"class_tokens": True, "positions": True}},
    {"grounding": {"mask_padding": False}},
    {"vision": {"patch_padding": 3}},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_trains_every_parameter(options):
    """A pair's pooled vector alone reaches all parameters: what data parallelism waits for."""
    model = small_unimo2(**options)
    model.train()
    fused = model(*inputs())
    assert fused.pooled.shape == [3, model.pooled_size]
    fused.pooled.square().sum().backward()
    named = dict(model.named_parameters())
    assert [name for name, parameter in named.items() if parameter.grad is None] == []
    assert all(bool(parameter.grad.isfinite().all()) for parameter in named.values())


def test_choosing_learns_from_the_grounding_loss_alone():
    model = small_unimo2(grounding={"project": True})
    pixels, ids, mask = inputs()
    text, image = model.encode_text(ids, mask), model.encode_image(pixels)
    grounding = model.ground(text, image)
    model.fuse(text, image, grounding=grounding).pooled.square().sum().backward()
    assert model.grounding.temperature.grad.item() == 0
    assert float(model.text_projection.weight.grad.abs().sum()) == 0
    assert float(model.grounding.dictionary.grad.abs().sum()) > 0
    model.clear_gradients()
    model.grounding.loss(model.ground(text.map(paddle.Tensor.detach), None)).backward()
    assert model.grounding.temperature.grad.item() != 0
    assert float(model.text_projection.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@paddle.no_grad()
def test_shorter_outputs_are_the_same_numbers(options):
    model = small_unimo2(**options)
    pixels, ids, mask = inputs()
    text, image = model.encode_text(ids, mask), model.encode_image(pixels)
    whole = model.fuse(text, image)
    words, pooled = model.fuse(text, image, outputs="text"), model.fuse(text, image, outputs="pooled")
    np.testing.assert_allclose(words.fused_text.numpy(), whole.fused_text.numpy(), atol=1e-5)
    np.testing.assert_allclose(pooled.pooled.numpy(), whole.pooled.numpy(), atol=1e-5)
    assert words.pooled is None and pooled.fused_text is None


@pytest.mark.parametrize(
    "options", [o for o in OPTIONS if o.get("grounding") != {"mask_padding": False}], ids=str
)
@pytest.mark.parametrize("more", [1, 11])
@paddle.no_grad()
def test_padding_changes_nothing(options, more):
    model = small_unimo2(**options)
    pixels, ids, mask = inputs()
    padded = paddle.concat([ids, paddle.ones([3, more], dtype="int64")], axis=1)
    longer = paddle.concat([mask, paddle.zeros([3, more], dtype="int64")], axis=1)
    short, long = model(pixels, ids, mask), model(pixels, padded, longer)
    np.testing.assert_allclose(short.pooled.numpy(), long.pooled.numpy(), atol=1e-5)
    np.testing.assert_allclose(short.fused_image.numpy(), long.fused_image.numpy(), atol=1e-5)
    kept = mask.numpy().astype(bool)
    np.testing.assert_allclose(
        short.fused_text.numpy()[kept], long.fused_text.numpy()[:, :-more][kept], atol=1e-5
    )
    alone = model.fuse(model.encode_text(ids, mask), None).pooled
    wide = model.fuse(model.encode_text(padded, longer), None).pooled
    np.testing.assert_allclose(alone.numpy(), wide.numpy(), atol=1e-5)


@paddle.no_grad()
def test_padding_counts_as_in_the_release_when_asked_to():
    model = small_unimo2(grounding={"mask_padding": False})
    pixels, ids, mask = inputs()
    padded = paddle.concat([ids, paddle.ones([3, 12], dtype="int64")], axis=1)
    longer = paddle.concat([mask, paddle.zeros([3, 12], dtype="int64")], axis=1)
    image = model.encode_image(pixels)
    short = model.ground(model.encode_text(ids, mask), image)
    long = model.ground(model.encode_text(padded, longer), image)
    assert short.mask is None and not np.allclose(short.scores.numpy(), long.scores.numpy(), atol=0.1)


@paddle.no_grad()
def test_a_text_and_an_image_alone():
    model = small_unimo2()
    pixels, ids, mask = inputs()
    text, image = model.encode_text(ids, mask), model.encode_image(pixels)
    words, picture = model.fuse(text, None), model.fuse(None, image)
    assert words.fused_image is None and picture.fused_text is None
    np.testing.assert_array_equal(words.grounded_ids.numpy(), model.ground(text, None).ids.numpy())
    np.testing.assert_array_equal(picture.grounded_ids.numpy(), model.ground(None, image).ids.numpy())
    for fused, states, pooler in (
        (words, words.fused_text, model.text_pooler),
        (picture, picture.fused_image, model.image_pooler),
    ):
        np.testing.assert_allclose(fused.pooled.numpy(), pooler(states).numpy(), atol=1e-5)
        assert fused.grounded.shape == [3, 4, 16]
    short = model.fuse(None, image, outputs="pooled").pooled
    np.testing.assert_allclose(short.numpy(), picture.pooled.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("feature", "join"),
    [
        ("concat", lambda text, image: np.concatenate([text, image], -1)),
        ("product", lambda text, image: text * image),
        ("sum", lambda text, image: text + image),
    ],
)
@pytest.mark.parametrize("pooler", ["relu", "none"])
@paddle.no_grad()
def test_pooled_pair(feature, join, pooler):
    model = small_unimo2(fusion={"itm_feature": feature, "pooler": pooler})
    fused = model(*inputs())
    parts = [fused.fused_text.numpy()[:, 0], fused.fused_image.numpy()[:, 0]]
    if pooler == "relu":
        poolers = (model.text_pooler.dense, model.image_pooler.dense)
        parts = [
            np.maximum(part @ layer.weight.numpy() + layer.bias.numpy(), 0)
            for part, layer in zip(parts, poolers, strict=True)
        ]
    np.testing.assert_allclose(fused.pooled.numpy(), join(*parts), atol=1e-5)


@paddle.no_grad()
def test_grounded_tokens_alone_are_normalised_before_the_fusion():
    model = small_unimo2()
    pixels, ids, mask = inputs()
    text, image = model.encode_text(ids, mask), model.encode_image(pixels)
    tokens = model.ground(text, image).tokens
    joined = model.fusion.join(image.image, tokens, text.text).numpy()
    np.testing.assert_array_equal(joined[:, :17], image.image.numpy())
    np.testing.assert_array_equal(joined[:, 21:], text.text.numpy())
    np.testing.assert_allclose(joined[:, 17:21], model.fusion.grounded_norm(tokens).numpy(), atol=1e-6)


@pytest.mark.parametrize("kind", ["pair", "image", "text"])
@paddle.no_grad()
def test_positions_of_grounded_tokens(kind):
    """As with the release's `with_grounding_pos`: rows 2 .. K + 1 of the text's table, before the norm."""
    plain, model = small_unimo2(), small_unimo2(grounding={"positions": True})
    pixels, ids, mask = inputs()
    text = None if kind == "image" else model.encode_text(ids, mask)
    image = None if kind == "text" else model.encode_image(pixels)
    grounding = plain.ground(text, image)
    moved = grounding.tokens + plain.text.embeddings.position.weight[2:6]
    expected = plain.fuse(text, image, grounding=replace(grounding, tokens=moved)).pooled.numpy()
    found = model.fuse(text, image).pooled.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not np.allclose(found, plain.fuse(text, image).pooled.numpy(), atol=1e-3)


def test_positions_are_trained_where_grounded_tokens_have_them():
    name = "text.embeddings.position.weight"
    for options, used in (
        ({"positions": True}, True),
        ({}, False),
        ({"positions": True, "enabled": False}, False),
    ):
        assert small_unimo2(grounding=options).is_used(name, text=False, image=True) is used
        assert small_unimo2(grounding=options).is_used(name, text=True, image=False)


@pytest.mark.parametrize("changes", [{"method": "one_to_one"}, {"dictionary_size": 40, "num_tokens": 23}])
def test_positions_that_do_not_exist_are_refused(changes):
    with pytest.raises(ConfigError, match="expected topk and at most 22 tokens"):
        unimo2_config(grounding={"positions": True, **changes})


def test_dropout_of_pooled_pairs():
    """Pairs only, and only in training."""
    model = small_unimo2(fusion={"itm_dropout": 0.5, "pooler": "none"})
    pixels, ids, mask = inputs()
    text, image = model.encode_text(ids, mask), model.encode_image(pixels)
    whole = model.fuse(text, image).pooled.numpy()
    model.train()
    dropped, alone = model.fuse(text, image).pooled.numpy(), model.fuse(text, None).pooled.numpy()
    assert 0.3 < (dropped == 0).mean() < 0.7 and (alone != 0).all()
    np.testing.assert_allclose(dropped[dropped != 0], 2 * whole[dropped != 0], rtol=1e-4)


@paddle.no_grad()
def test_pairs_do_not_see_each_other():
    model = small_unimo2()
    pixels, ids, mask = inputs()
    text, image = model.encode_text(ids, mask), model.encode_image(pixels)
    mixed = model.fuse(text, image.select(paddle.to_tensor([2, 0, 0]))).pooled
    alone = model.fuse(model.encode_text(ids[1:2], mask[1:2]), model.encode_image(pixels[:1])).pooled
    np.testing.assert_allclose(mixed[1].numpy(), alone[0].numpy(), atol=1e-5)


def test_recompute_gives_the_same_gradients():
    gradients = []
    for on in (False, True):
        dropout = {"dropout": 0.1, "attention_dropout": 0.1}
        model = small_unimo2(fusion=dropout, text=dropout, vision={"dropout": 0.1})
        set_recompute(model, on)
        model.train()
        paddle.seed(5)
        model(*inputs()).pooled.square().mean().backward()
        gradients.append({name: p.grad.numpy() for name, p in model.named_parameters()})
    for name, first in gradients[0].items():
        np.testing.assert_allclose(first, gradients[1][name], rtol=2e-3, atol=2e-5, err_msg=name)


@paddle.no_grad()
def test_layers_and_attentions_on_request():
    model = small_unimo2()
    pixels, ids, mask = inputs()
    text = model.encode_text(ids, mask, layers=True, attentions=True)
    image = model.encode_image(pixels, layers=True, attentions=True)
    assert len(text.text_layers) == len(image.image_layers) == 3
    plain = model(pixels, ids, mask)
    for outputs in ("all", "pooled"):
        fused = model.fuse(text, image, attentions=True, outputs=outputs)
        np.testing.assert_allclose(fused.pooled.numpy(), plain.pooled.numpy(), atol=1e-5)
        assert len(fused.attentions) == 9
        for name, weights in {**text.attentions, **image.attentions, **fused.attentions}.items():
            np.testing.assert_allclose(weights.sum(-1).numpy(), 1.0, atol=1e-5, err_msg=name)
        assert fused.attentions["fusion.image.3"].shape == [3, 2, 17, 21]
        assert fused.attentions["fusion.grounded.1"].shape == [3, 2, 4, 30]
        assert fused.attentions["fusion.text.2"].shape == [3, 2, 9, 13]
        assert float(fused.attentions["fusion.text.1"][0, :, :, 10:].max()) < 1e-20
    words = model.fuse(text, image, attentions=True, outputs="text")
    np.testing.assert_allclose(words.fused_text.numpy(), plain.fused_text.numpy(), atol=1e-5)


@paddle.no_grad()
def test_causal_text_encoder():
    model = small_unimo2()
    _, ids, mask = inputs()
    changed = ids.clone()
    changed[:, 5:] = 9
    first = model.encode_text(ids, mask, causal=True).text.numpy()
    second = model.encode_text(changed, mask, causal=True).text.numpy()
    np.testing.assert_allclose(first[:, :5], second[:, :5], atol=1e-6)
    assert not np.allclose(first[1], model.encode_text(ids, mask).text.numpy()[1], atol=1e-3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.354932, -1.016144, -2.018643, -0.371863]),
        ({"fusion": {"visibility": "full"}}, [-1.122499, -2.263377, -1.646101, 0.07284]),
        ({"grounding": {"method": "one_to_one"}}, [-2.200797, -0.947721, 0.301389, 0.49749]),
    ],
    ids=str,
)
@paddle.no_grad()
def test_golden_numbers(options, expected):
    model = small_unimo2(**options)
    states = model(*inputs()).fused_text
    np.testing.assert_allclose(states[1, 2, :4].numpy(), expected, atol=2e-5)


@paddle.no_grad()
def test_another_resolution_after_resizing_positions():
    small, large = small_unimo2(), small_unimo2(vision={"image_size": 48})
    state = small.state_dict()
    table = resize_positions(state["vision.position_embedding"].numpy(), 6)
    state["vision.position_embedding"] = paddle.to_tensor(table)
    large.set_state_dict(state)
    narrow, wide = paddle.ones([1, 3, 32, 32]), paddle.ones([1, 3, 48, 48])
    assert large.encode_image(wide).image.shape == [1, 37, 16]
    first, second = small.encode_image(narrow).image[0, 0], large.encode_image(wide).image[0, 0]
    other = small.encode_image(-narrow).image[0, 0]
    assert float((first - second).abs().mean()) < float((first - other).abs().mean())


def test_learning_rate_groups():
    model = small_unimo2(grounding={"project": True})
    groups = {name: model.lr_group(name) for name, _ in model.named_parameters()}
    for name, group in groups.items():
        assert group == ("towers" if name.startswith(("text.", "vision.")) else "cross_modal")
    assert {"grounding.dictionary", "grounding.temperature", "text_pooler.dense.weight"} <= set(groups)
    assert {"text_projection.bias", "fusion.layers.2.attention.qkv.weight"} <= set(groups)


def test_fresh_parameters_follow_the_config():
    paddle.seed(0)
    model = build_model(
        unimo2_config(
            vision={"hidden_size": 64, "position_init_std": 0.7, "init_std": 0.1},
            text={"hidden_size": 64},
            fusion={"hidden_size": 64, "init_std": 0.05},
        )
    )
    scales = {
        "vision.position_embedding": 0.7,
        "vision.patch_embedding.weight": (3 * 64) ** -0.5,
        "vision.layers.1.attention.qkv.weight": 0.1,
        "fusion.layers.0.mlp.fc1.weight": 0.05,
        "text.embeddings.word.weight": 0.1,
    }
    named = dict(model.named_parameters())
    for name, expected in scales.items():
        assert abs(float(named[name].std()) / expected - 1) < 0.1, name
    assert isinstance(model.text_pooler, Pooler) and model.text.pooler is None
    assert model.fusion.layers[0].mlp_norm._epsilon == 1e-5
    assert model.vision.layers[0].mlp_norm._epsilon == model.vision.ln_post._epsilon == 1e-12


@pytest.fixture
def converted(tmp_path):
    """A RoBERTa and a ViT of the small model's sizes, and their folders of converted weights."""
    paddle.seed(4)
    sizes = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 32, "init_std": 0.3}
    towers = {
        "roberta": RobertaTower(TextConfig(**sizes, vocab_size=VOCABULARY, max_position=24)),
        "vit": VitTower(VitConfig(**sizes, patch_size=8, image_size=32)),
    }
    folders = {}
    for kind, tower in towers.items():
        folders[kind] = tmp_path / kind
        folders[kind].mkdir()
        config = {"tower": kind, "num_layers": 2, "num_heads": 2}
        (folders[kind] / "config.yaml").write_text(yaml.safe_dump(config))
        write_safetensors(folders[kind] / "model.safetensors", tensors_of(tower))
        tower.eval()
    return towers, {kind: str(folder) for kind, folder in folders.items()}


@paddle.no_grad()
def test_encoders_and_fusion_start_from_pretrained_towers(converted):
    """RoBERTa's token type, which UNIMO-2 does not have, is part of the positions."""
    towers, folders = converted
    config = unimo2_config(
        text={"init": folders["roberta"]},
        vision={"init": folders["vit"]},
        fusion={"init": folders["roberta"], "num_layers": 2},
    )
    model = build_model(config)
    model.eval()
    pixels, ids, mask = inputs()
    text, image = model.encode_text(ids, mask).text, model.encode_image(pixels).image
    np.testing.assert_allclose(text.numpy(), towers["roberta"](ids, mask)[0][-1].numpy(), atol=1e-5)
    states = towers["vit"](pixels)[0][-1]
    np.testing.assert_allclose(image.numpy(), towers["vit"].ln_post(states).numpy(), atol=1e-5)
    layer, theirs = model.fusion.layers[1], towers["roberta"].layers[1]
    np.testing.assert_array_equal(layer.attention.qkv.weight.numpy(), theirs.attention.qkv.weight.numpy())
    np.testing.assert_array_equal(model.fusion.grounded_norm.weight.numpy(), np.ones(16))


def test_pretrained_towers_of_another_kind_are_refused(converted):
    _, folders = converted
    with pytest.raises(CheckpointError, match="holds a roberta tower .* wants a vit tower"):
        build_model(unimo2_config(vision={"init": folders["roberta"]}))
    with pytest.raises(CheckpointError, match="of 2 layers .* of 3 layers"):
        build_model(unimo2_config(fusion={"init": folders["roberta"]}))
