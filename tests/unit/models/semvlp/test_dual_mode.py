"""SemVLP's network: sizes, what reads what in both modes, and both modes against a plain encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest
from small_semvlp import small_config, small_semvlp
from small_unimo import regions, texts

from unimo import registry
from unimo.errors import ConfigError
from unimo.models.semvlp.model import SemVlp
from unimo.nn.attention import additive_mask
from unimo.nn.block import Block
from unimo.nn.outputs import Encoded


@pytest.mark.parametrize(
    ("cross", "parameters"),
    [
        ({"start": 12}, 111_058_944),  # what a single stream reads
        ({}, 125_242_368),
        ({"modules": "all"}, 139_425_792),  # "140M"
    ],
)
def test_parameters_of_the_base_model(cross: dict[str, Any], parameters: int) -> None:
    """Counted from shapes, without [IMG]: the base model need not be built."""
    config = registry.model_config("semvlp_base")
    assert counted(config, len(crossed(config, cross))) == parameters


@pytest.mark.parametrize("cross", [{"start": 4}, {"start": 0}, {}, {"modules": "all"}])
def test_counting_from_shapes_is_counting(cross: dict[str, Any]) -> None:
    model = small_semvlp(cross=cross)
    found = sum(parameter.size for parameter in model.parameters())
    assert found == counted(model.config, len(crossed(model.config, cross))) + model.hidden_size
    owners = {int(name.split(".")[1]) for name, _ in model.named_parameters() if ".cross_" in name}
    assert owners == set(crossed(model.config, cross))


def crossed(config: Any, cross: dict[str, Any]) -> range:
    """Layers that own a cross-attention, from 0."""
    first = 0 if cross.get("modules") == "all" else cross.get("start", config.cross.start)
    return range(first, config.text.num_layers)


def counted(config: Any, modules: int) -> int:
    size, width = config.text, config.hidden_size
    embeddings = (size.vocab_size + size.max_position + 2 + 2) * width
    square, inner = width**2 + width, width * size.intermediate_size
    layer = 4 * square + 2 * inner + size.intermediate_size + width + 4 * width
    objects = (config.regions.feature_size + 4) * width + width
    return embeddings + size.num_layers * layer + modules * (4 * square + 2 * width) + objects + square


def run(model: SemVlp, mode: str, image_seed: int = 1, text_seed: int = 2, outputs: Any = "all") -> Encoded:
    with model.in_mode(mode):
        text, image = model.encode_text(**texts(seed=text_seed)), model.encode_image(regions(seed=image_seed))
        return model.fuse(text, image, outputs=outputs)


def differ(one: paddle.Tensor, other: paddle.Tensor) -> bool:
    return bool(np.abs(one.numpy() - other.numpy()).max() > 0.01)


def test_what_depends_on_what() -> None:
    model = small_semvlp()
    for mode, text_reads_image in (("single", True), ("two", False)):
        own, image, text = run(model, mode), run(model, mode, image_seed=7), run(model, mode, text_seed=8)
        assert differ(own.fused_text, image.fused_text) is text_reads_image
        assert differ(own.fused_image, text.fused_image) and differ(own.pooled, text.pooled)
        assert differ(own.pooled, image.pooled)
    blind = small_semvlp(cross={"start": 4})
    assert not differ(run(blind, "two").pooled, run(blind, "two", text_seed=8).pooled)


def test_without_cross_attention_both_modes_are_a_plain_encoder() -> None:
    """Exactly: the text, the objects, or both in one sequence, through layers of their own."""
    model = small_semvlp(cross={"start": 4})
    size = model.config.text
    plain = paddle.nn.LayerList(
        Block(16, 2, lambda: None, norm_first=False, epsilon=1e-12) for _ in range(size.num_layers)
    )
    for layer, own in zip(plain, model.layers, strict=True):
        layer.mlp = own.mlp
        layer.set_state_dict(own.state_dict())

    def encode(states: paddle.Tensor, mask: paddle.Tensor) -> np.ndarray:
        for layer in plain:
            states, _ = layer(states, additive_mask(mask))
        return states.numpy()

    text, image = model.encode_text(**texts()), model.encode_image(regions())
    real = text.text_mask.astype("float32")
    two, single = run(model, "two"), run(model, "single")
    np.testing.assert_array_equal(two.fused_text, encode(text.text, real))
    np.testing.assert_array_equal(two.fused_image, encode(image.image, image.image_mask))
    both = encode(
        paddle.concat([text.text, image.image], axis=1), paddle.concat([real, image.image_mask], axis=1)
    )
    np.testing.assert_array_equal(single.fused_text, both[:, :9])
    np.testing.assert_array_equal(single.fused_image, both[:, 9:])


def test_lower_layers_of_the_image_know_no_text_and_upper_ones_read_its_last_states() -> None:
    """Section 3.2.2 by hand, one layer at a time."""
    model = small_semvlp()
    model.mode = "two"
    text, image = model.encode_text(**texts()), model.encode_image(regions(), layers=True)
    keys, words = additive_mask(image.image_mask), additive_mask(text.text_mask)
    states = image.image_layers[0]
    for number, layer in enumerate(model.layers, 1):
        states = layer.attention_norm(states + layer.attention(states, keys)[0])
        if number > 2:
            states = layer.cross_norm(states + layer.cross_attention(states, text.text, words)[0])
        states = layer.mlp_norm(states + layer.mlp(states))
        if number == 2:
            np.testing.assert_allclose(image.image, states, atol=1e-6)
    found = model.fuse(text, image)
    np.testing.assert_allclose(found.fused_image, states, atol=1e-5)
    np.testing.assert_allclose(found.pooled, paddle.tanh(model.pooler.dense(states[:, 0])), atol=1e-5)


@pytest.mark.parametrize("mode", ["single", "two"])
def test_what_is_not_read_is_left_out_without_changing_numbers(mode: str) -> None:
    model = small_semvlp()
    whole = run(model, mode)
    np.testing.assert_allclose(run(model, mode, outputs="pooled").pooled, whole.pooled, atol=1e-5)
    np.testing.assert_allclose(run(model, mode, outputs="text").fused_text, whole.fused_text, atol=1e-5)


@pytest.mark.parametrize("mode", ["single", "two"])
def test_padding_of_texts_and_images_changes_nothing(mode: str) -> None:
    model = small_semvlp()
    short, long = {}, {}
    for name, value in {**texts(), **regions()}.items():
        more = paddle.zeros([value.shape[0], 3, *value.shape[2:]], value.dtype)
        short[name], long[name] = value, paddle.concat([value, more], axis=1)
    with model.in_mode(mode):
        one, other = (
            model.fuse(
                model.encode_text(given["input_ids"], given["attention_mask"]), model.encode_image(given)
            )
            for given in (short, long)
        )
    np.testing.assert_allclose(one.pooled, other.pooled, atol=1e-5)
    np.testing.assert_allclose(one.fused_text, other.fused_text[:, :9], atol=1e-5)
    np.testing.assert_allclose(one.fused_image, other.fused_image[:, :7], atol=1e-5)


def test_attentions_are_named_by_what_reads_what() -> None:
    model = small_semvlp()
    names = {}
    for mode in ("single", "two"):
        with model.in_mode(mode):
            text = model.encode_text(**texts(), attentions=True)
            image = model.encode_image(regions(), attentions=True)
            fused = model.fuse(text, image, attentions=True)
        maps = {**text.attentions, **image.attentions, **fused.attentions}
        names[mode] = {name: value.shape for name, value in maps.items()}
        for value in maps.values():
            np.testing.assert_allclose(value.sum(3), np.ones(value.shape[:3]), atol=1e-5)
    assert names["single"] == {f"fusion.{layer}": [3, 2, 16, 16] for layer in (1, 2, 3, 4)}
    assert names["two"] == {
        **{f"text.{layer}": [3, 2, 9, 9] for layer in (1, 2, 3, 4)},
        **{f"image.{layer}": [3, 2, 7, 7] for layer in (1, 2, 3, 4)},
        **{f"cross.{layer}": [3, 2, 7, 9] for layer in (3, 4)},
    }


@pytest.mark.parametrize("mode", ["single", "two"])
def test_parameters_that_a_mode_uses_are_those_with_a_gradient(mode: str) -> None:
    """`is_used` says which may be frozen, of pairs whose pooled vectors are read."""
    for start in (0, 2, 4):
        model = small_semvlp(cross={"start": start})
        model.mode = mode
        fused = model.fuse(model.encode_text(**texts()), model.encode_image(regions()), outputs="pooled")
        paddle.sin(fused.pooled).sum().backward()
        for name, parameter in model.named_parameters():
            learns = parameter.grad is not None and bool(parameter.grad.abs().max() > 0)
            used = model.is_used(name, text=True, image=True)
            assert learns is used or name.startswith("embeddings.token_type"), (start, name)


def test_masked_objects_leave_no_trace() -> None:
    """Neither [IMG] nor any other row tells what is masked; boxes stay."""
    model = small_semvlp()
    shown, other = regions(), regions(seed=5)
    masked = np.zeros((3, 6), np.int64)
    masked[:, 2] = 1
    both = []
    for mode in ("single", "two"):
        with model.in_mode(mode):
            for given in (shown, {**shown, "features": shown["features"].clone()}):
                if given is not shown:
                    given["features"][:, 2] = other["features"][:, 2]
                image = model.encode_image({**given, "masked": paddle.to_tensor(masked)})
                both.append(model.fuse(model.encode_text(**texts()), image))
    for one, same in (both[:2], both[2:]):
        np.testing.assert_array_equal(one.fused_image, same.fused_image)
        np.testing.assert_array_equal(one.fused_text, same.fused_text)
    moved = {**shown, "locations": shown["locations"].clone(), "masked": paddle.to_tensor(masked)}
    moved["locations"][:, 2] = 0.5
    assert differ(
        model.encode_image(moved).image, model.encode_image({**shown, "masked": moved["masked"]}).image
    )


@pytest.mark.parametrize("start", [5, -1])
def test_cross_attention_starts_within_the_layers(start: int) -> None:
    with pytest.raises(ConfigError, match=r"cross\.start"):
        small_config(cross={"start": start})
