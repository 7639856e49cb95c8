"""VLMo's network: sizes, equal numbers by all ways, the two contrasts, positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest
from small_models import inputs
from small_vlmo import small_config, small_vlmo

from unimo import registry
from unimo.errors import ConfigError
from unimo.models.vlmo.config import VisionConfig


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("vlmo_base", 176_021_088), ("vlmo_base_plus", 166_863_840), ("vlmo_large", 562_594_048)],
)
def test_parameters_of_the_release(name: str, parameters: int) -> None:
    """Counted from shapes: the large model need not be built."""
    config = registry.model_config(name)
    size, text, image = config.transformer, config.text, config.vision
    width, depth = size.hidden_size, size.num_layers
    expert = 2 * width + width * size.intermediate_size * 2 + size.intermediate_size + width
    attention = 4 * width**2 + 2 * width + width + 2 * width + (2 * width if size.layer_scale else 0)
    rows = 1 + image.num_patches if size.positions == "absolute" else 0
    relative = 0 if rows else 1126 * depth * size.num_heads
    embeddings = (text.vocab_size + text.max_position + 2 + 2 + 2 + 1 + rows) * width
    patches = width * 3 * image.patch_size**2 + width
    blocks = depth * attention + (2 * depth + size.pair_layers) * expert
    assert embeddings + patches + relative + blocks + 2 * width + width**2 + width == parameters


@pytest.mark.parametrize("positions", ["relative", "absolute"])
def test_counting_from_shapes_is_counting(positions: Any) -> None:
    model = small_vlmo(transformer={"positions": positions, "layer_scale": None})
    width, relative = 16, (7 * 7 + 3 + 394) * 4 * 2
    expert = 2 * width + width * 32 * 2 + 32 + width
    blocks = 4 * (4 * width**2 + 5 * width) + 9 * expert
    embeddings = (60 + 14 + 2 + 2 + 2 + 1) * width + (17 * width if positions == "absolute" else relative)
    whole = embeddings + width * 3 * 64 + width + blocks + 2 * width + width**2 + width
    assert sum(parameter.size for parameter in model.parameters()) == whole


@pytest.mark.parametrize("pair_layers", [0, 1, 4])
def test_what_is_not_read_is_left_out_without_changing_numbers(pair_layers: int) -> None:
    model = small_vlmo(transformer={"pair_layers": pair_layers})
    pixels, ids, mask = inputs()
    text, image = model.encode_text(ids, mask), model.encode_image(pixels)
    for given in ((text, image), (text, None), (None, image)):
        whole = model.fuse(*given)
        np.testing.assert_allclose(model.fuse(*given, outputs="pooled").pooled, whole.pooled, atol=1e-5)
        if given[0] is not None:
            found = model.fuse(*given, outputs="text").fused_text
            np.testing.assert_allclose(found, whole.fused_text, atol=1e-5)


def test_padding_changes_nothing() -> None:
    """The release pads texts to 40 tokens; here they have the length of the batch."""
    model = small_vlmo()
    pixels, ids, mask = inputs()
    more = [paddle.concat([part, paddle.zeros([3, 4], "int64")], axis=1) for part in (ids, mask)]
    image = model.encode_image(pixels)
    short = model.fuse(model.encode_text(ids, mask), image)
    long = model.fuse(model.encode_text(*more), image)
    np.testing.assert_allclose(short.pooled, long.pooled, atol=1e-5)
    np.testing.assert_allclose(short.fused_image, long.fused_image, atol=1e-5)


def test_contrasts_of_the_dual_encoder_and_of_the_experts_for_pairs() -> None:
    model = small_vlmo()
    pixels, ids, mask = inputs()
    text, image = model.encode_text(ids, mask), model.encode_image(pixels)
    vectors = model.text_vector(text), model.image_vector(image)
    for given, vector in zip(((text, None), (None, image)), vectors, strict=True):
        own, as_pair = model.contrast_states(*given)
        np.testing.assert_allclose(own, vector, atol=1e-6)
        whole = model.fuse(*given)
        states = whole.fused_text if given[0] is not None else whole.fused_image
        np.testing.assert_allclose(own, states[:, 0], atol=1e-5)
        assert np.abs(own.numpy() - as_pair.numpy()).max() > 0.01
    for part in ("norm", "mlp.fc1", "mlp.fc2"):  # equal experts: equal contrasts
        experts = model.blocks[3].experts
        for kind in ("weight", "bias"):
            value = dict(experts["text"].named_parameters())[f"{part}.{kind}"]
            dict(experts["pair"].named_parameters())[f"{part}.{kind}"].set_value(value)
    own, as_pair = model.contrast_states(text, None)
    np.testing.assert_allclose(own, as_pair, atol=1e-6)


def test_text_of_absolute_positions_depends_on_their_order_by_the_table_alone() -> None:
    model = small_vlmo(transformer={"positions": "absolute"})
    model.text_embeddings.position.weight.set_value(paddle.zeros_like(model.text_embeddings.position.weight))
    _, ids, _ = inputs()
    mask = paddle.ones_like(ids)
    swapped = paddle.concat([ids[:, :1], ids[:, 2:3], ids[:, 1:2], ids[:, 3:]], axis=1)
    one, other = (model.text_vector(model.encode_text(words, mask)) for words in (ids, swapped))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_second_pictures_have_a_type_of_their_own() -> None:
    model = small_vlmo(vision={"types": 2})
    pixels, _, _ = inputs()
    first, second = model.encode_image(pixels).image, model.encode_image(pixels, second=True).image
    rows = model.type_embedding.weight
    np.testing.assert_allclose((second - first)[0, 0], rows[2] - rows[1], atol=1e-6)


def test_texts_longer_than_the_table_are_refused() -> None:
    model = small_vlmo()
    ids = paddle.ones([1, 15], "int64")
    with pytest.raises(ConfigError, match="15 tokens.*14 positions"):
        model.encode_text(ids, ids)


@pytest.mark.parametrize("size", [50, 15, 8])
def test_pictures_that_are_no_whole_number_of_patches_are_refused(size: int) -> None:
    with pytest.raises(ConfigError, match="not a multiple"):
        VisionConfig(image_size=size, patch_size=16)


def test_more_layers_for_pairs_than_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match="pair_layers 5"):
        small_config(transformer={"pair_layers": 5})
