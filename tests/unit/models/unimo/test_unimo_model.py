"""UNIMO's network: who reads whom, padding, [IMG], decoding, the matching score, sizes."""

from __future__ import annotations

import dataclasses

import numpy as np
import paddle
import pytest
from small_unimo import REGIONS, TEXT, regions, small_config, small_model, texts

import unimo
from unimo.errors import ConfigError
from unimo.models.unimo.visibility import visibility

NOTHING = 1e-20
"""On CPUs Paddle's softmax gives no less than exp(-64) of the largest weight, however low a mask is."""


def joined(model, seed=1):
    image = model.encode_image(regions(seed=seed))
    text = model.encode_text(**texts())
    return image, text, dataclasses.replace(image, text=text.text, text_mask=text.text_mask)


def test_visibility_is_that_of_an_encoder_and_a_decoder():
    real = paddle.to_tensor([[1, 1, 1, 1, 1, 0]])
    target = paddle.to_tensor([[0, 0, 1, 1, 1, 0]])
    seen = (visibility(real, target)[0, 0] > -1).numpy().astype(int)
    expected = [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 1, 0, 0, 0, 0],
    ]
    np.testing.assert_array_equal(seen, expected)
    assert visibility(real, None).shape == [1, 1, 1, 6]


def test_no_target_position_sees_a_later_one_and_no_source_sees_a_target():
    model, given = small_model(), texts()
    is_target = paddle.to_tensor((np.arange(TEXT)[None].repeat(3, 0) >= 4).astype("int64"))

    def reached(rows):
        """Which tokens of text 1 change the sum of squares of some rows."""
        delta = paddle.zeros([3, TEXT, model.hidden_size])
        delta.stop_gradient = False
        text = model.encode_text(**given, is_target=is_target, delta=delta)
        rows(model.fuse(text, model.encode_image(regions()))).square().sum().backward()
        return np.abs(delta.grad[1].numpy()).sum(axis=1) > NOTHING

    for position in range(TEXT):
        last = position if position >= 4 else 3
        found = reached(lambda fused, position=position: fused.fused_text[1, position])
        np.testing.assert_array_equal(found, np.arange(TEXT) <= last)
    np.testing.assert_array_equal(reached(lambda fused: fused.fused_image[1]), np.arange(TEXT) < 4)


def test_masked_regions_cannot_be_known_from_anything_that_is_shown():
    model, shown = small_model(), regions()
    shown["masked"] = paddle.to_tensor([[0, 1, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0]])
    shown["features"].stop_gradient = False
    fused = model.fuse(model.encode_text(**texts()), model.encode_image(shown))
    total = fused.fused_image.square().sum() + fused.fused_text.square().sum() + fused.pooled.square().sum()
    total.backward()
    reached = np.abs(shown["features"].grad.numpy()).sum(axis=2) > NOTHING
    visible = (shown["mask"].numpy() == 1) & (shown["masked"].numpy() == 0)
    np.testing.assert_array_equal(reached, visible)


def test_img_is_the_mean_of_the_regions_over_the_whole_picture():
    model, shown = small_model(), regions()
    states, mask = model.regions(shown)
    for row, count in ((0, REGIONS - 2), (1, REGIONS)):
        mean = shown["features"][row, :count].mean(0)
        place = paddle.to_tensor([0.0, 0.0, 1.0, 1.0, 1.0])
        own = model.regions.feature(mean) + model.regions.location(place)
        np.testing.assert_allclose(
            states[row, 0].numpy(), model.regions.norm(own.unsqueeze(0))[0].numpy(), atol=1e-5
        )
    np.testing.assert_array_equal(mask.numpy()[:, 1:], shown["mask"].numpy())


def test_padding_of_regions_and_texts_changes_nothing():
    model = small_model()
    image, text, _ = joined(model)
    fused = model.fuse(text, image)
    short = {name: tensor[:1, : REGIONS - 2] for name, tensor in regions().items()}
    words = {name: tensor[:1, : TEXT - 3] for name, tensor in texts().items()}
    alone = model.fuse(model.encode_text(**words), model.encode_image(short))
    np.testing.assert_allclose(fused.pooled[:1].numpy(), alone.pooled.numpy(), atol=1e-5)
    np.testing.assert_allclose(fused.fused_text[:1, : TEXT - 3].numpy(), alone.fused_text.numpy(), atol=1e-5)


def test_a_pseudo_image_or_text_changes_nothing():
    """`[IMG] [0] ... [0]` and `[CLS] [PAD] ... [SEP]` of appendix A, masked out, are as good as nothing."""
    model = small_model()
    image, text, _ = joined(model)
    nothing = dataclasses.replace(image, image_mask=paddle.zeros_like(image.image_mask))
    with_pseudo = model.fuse(text, nothing)
    np.testing.assert_allclose(
        with_pseudo.fused_text[1].numpy(), model.fuse(text, None).fused_text[1].numpy(), atol=1e-5
    )
    silent = dataclasses.replace(text, text_mask=paddle.zeros_like(text.text_mask))
    with_pseudo = model.fuse(silent, image)
    np.testing.assert_allclose(
        with_pseudo.fused_image[1].numpy(), model.fuse(None, image).fused_image[1].numpy(), atol=1e-5
    )


@pytest.mark.parametrize("kind", ["image", "text", "both"])
def test_steps_give_what_teacher_forcing_gives(kind):
    model, written = small_model(role_types=2, turn_types=3), texts(seed=5)
    source = dict(zip(("image", "text", "both"), joined(model), strict=True))[kind]
    ids = written["input_ids"]
    states = model.decode(source, ids, paddle.ones_like(ids))
    state = model.start_decoding(source)
    for position in range(4):
        found, state = model.step(state, ids[:, position])
        np.testing.assert_allclose(found.numpy(), states[:, position].numpy(), atol=1e-5)
    picked = state.select(paddle.to_tensor([2, 0]))
    found, _ = model.step(picked, paddle.gather(ids[:, 4], paddle.to_tensor([2, 0])))
    np.testing.assert_allclose(found.numpy(), states[:, 4].numpy()[[2, 0]], atol=1e-5)


def test_the_score_of_all_pairs_is_that_of_each():
    model = small_model()
    image, text, _ = joined(model)
    images, words = model.image_vector(image), model.text_vector(text)
    each = [[model.match(images[i : i + 1] * words[j : j + 1]).item() for j in range(3)] for i in range(3)]
    np.testing.assert_allclose(model.match_all(images, words).numpy(), each, atol=1e-5)


def test_pairs_are_pooled_as_the_config_says():
    for feature, join in (("product", np.multiply), ("sum", np.add)):
        model = small_model(pair_feature=feature)
        image, text, _ = joined(model)
        fused = model.fuse(text, image)
        parts = model.text_pooler(fused.fused_text), model.image_pooler(fused.fused_image)
        np.testing.assert_allclose(fused.pooled.numpy(), join(*(part.numpy() for part in parts)), atol=1e-6)


def test_pooled_alone_is_the_pooled_of_all():
    model = small_model()
    image, text, _ = joined(model)
    for pair in ((text, image), (text, None), (None, image)):
        whole, short = model.fuse(*pair), model.fuse(*pair, outputs="pooled")
        assert short.fused_text is None and short.fused_image is None
        np.testing.assert_allclose(short.pooled.numpy(), whole.pooled.numpy(), atol=1e-5)


def test_roles_and_turns_are_added_to_tokens():
    model, given = small_model(role_types=2, turn_types=3), texts()
    plain = model.encode_text(**given).text
    same = model.encode_text(**given, roles=paddle.zeros_like(given["input_ids"])).text
    other = model.encode_text(**given, roles=paddle.ones_like(given["input_ids"])).text
    np.testing.assert_array_equal(plain.numpy(), same.numpy())
    assert np.abs(plain.numpy() - other.numpy()).max() > 0.1


@pytest.mark.parametrize(
    ("name", "expected"),
    [("unimo_base", 126_816_001), ("unimo_large", 358_515_713), ("unimo_tiny", 3_441_665)],
)
def test_parameter_counts(name, expected):
    text, size = unimo.registry.model_config(name).text, unimo.registry.model_config(name).regions
    width, inner = text.hidden_size, text.intermediate_size
    layer = 4 * (width * width + width) + 2 * width * inner + inner + width + 4 * width
    tables = (text.vocab_size + text.max_position) * width + 2 * width
    image = (size.feature_size + 5 + 2) * width + 2 * width
    total = text.num_layers * layer + tables + image + 2 * (width * width + width) + width + 1
    assert total == expected
    if name == "unimo_base":
        # 125.6 M in the 202 tensors of the release's encoder and embeddings.
        assert total - 2 * (width * width + width) - width - 1 == 125_634_048
    if name == "unimo_tiny":
        assert sum(parameter.size for parameter in unimo.create_model(name).parameters()) == expected


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="does not divide into 5 heads"):
        small_config(text={"num_heads": 5})
    with pytest.raises(ConfigError, match="feature_size 0"):
        small_config(regions={"feature_size": 0})
    with pytest.raises(ConfigError, match="temperature"):
        small_config(objective={"temperature": 0.0})
