"""Captions: what a token may depend on, and cached decoding against the whole sequence."""

import numpy as np
import paddle
import pytest
from small_models import inputs
from small_unimo2 import small_unimo2

from unimo.errors import ConfigError

OPTIONS = [
    {},
    {"fusion": {"caption_sees_image": True}},
    {"fusion": {"visibility": "full"}},
    {"fusion": {"visibility": "full"}, "grounding": {"enabled": False}},
    {"grounding": {"num_tokens": 0}},
    {"grounding": {"enabled_at_inference": False}, "fusion": {"caption_sees_image": True}},
    {"grounding": {"method": "one_to_one"}},
    {"grounding": {"norm_tokens": False, "project": True}},
    {"grounding": {"class_tokens": True, "positions": True}},
]


def _inputs(length=6, seed=1):
    pixels, ids, mask = inputs(text=length, seed=seed)
    whole = paddle.ones_like(mask)
    return pixels, paddle.where(mask == 1, ids, paddle.full_like(ids, 7)), whole


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@paddle.no_grad()
def test_cached_steps_equal_the_whole_sequence(options):
    model = small_unimo2(**options)
    pixels, ids, mask = _inputs()
    image = model.encode_image(pixels)
    expected = model.decode(image, ids, mask).numpy()
    state = model.start_decoding(image)
    for position in range(ids.shape[1]):
        states, state = model.step(state, ids[:, position])
        np.testing.assert_allclose(states.numpy(), expected[:, position], atol=1e-5)
    assert state.length == ids.shape[1]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@paddle.no_grad()
def test_a_token_never_sees_a_later_one(options):
    model = small_unimo2(**options)
    pixels, ids, mask = _inputs()
    changed = ids.clone()
    changed[:, 4:] = 9
    image = model.encode_image(pixels)
    first, second = model.decode(image, ids, mask).numpy(), model.decode(image, changed, mask).numpy()
    np.testing.assert_allclose(first[:, :4], second[:, :4], atol=1e-6)
    assert not np.allclose(first[:, 4:], second[:, 4:], atol=1e-3)


def _tagged(model, pixels):
    """The source of three captions behind 3, 1 and 0 tags, and the source of each alone without padding."""
    ids = paddle.to_tensor([[9, 8, 7], [6, 1, 1], [1, 1, 1]])
    mask = paddle.to_tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]])
    positions = paddle.to_tensor([[2, 3, 5], [4, 1, 1], [1, 1, 1]])
    image = model.encode_image(pixels)
    alone = []
    for row, count in enumerate((3, 1, 0)):
        rows = paddle.to_tensor([row])
        parts = (tensor[row : row + 1, :count] for tensor in (ids, mask, positions))
        alone.append(model.add_tags(image.select(rows), *parts) if count else image.select(rows))
    return model.add_tags(image, ids, mask, positions), alone


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@paddle.no_grad()
def test_captions_behind_tags_step_by_step(options):
    """Steps equal the whole sequence, and no caption depends on how far others pad the tags."""
    model = small_unimo2(**options)
    pixels, ids, mask = _inputs()
    source, alone = _tagged(model, pixels)
    expected = model.decode(source, ids, mask).numpy()
    for row, one in enumerate(alone):
        states = model.decode(one, ids[row : row + 1], mask[row : row + 1])
        np.testing.assert_allclose(states.numpy()[0], expected[row], atol=1e-5)
    state = model.start_decoding(source)
    for position in range(4):
        states, state = model.step(state, ids[:, position])
        np.testing.assert_allclose(states.numpy(), expected[:, position], atol=1e-5)
    rows = paddle.to_tensor([1, 1, 0])
    states, _ = model.step(state.select(rows), paddle.gather(ids[:, 4], rows))
    np.testing.assert_allclose(states.numpy(), expected[[1, 1, 0], 4], atol=1e-5)
    untagged = model.decode(model.encode_image(pixels), ids, mask).numpy()
    assert not np.allclose(untagged[:2], expected[:2], atol=1e-3)
    np.testing.assert_allclose(untagged[2], expected[2], atol=1e-5)


@paddle.no_grad()
def test_tags_read_no_caption_and_no_later_token_is_read_behind_them():
    model = small_unimo2(fusion={"caption_sees_image": True})
    pixels, ids, mask = _inputs()
    source, _ = _tagged(model, pixels)
    changed = ids.clone()
    changed[:, 3:] = 9
    first, second = (model.decode(source, text, mask).numpy() for text in (ids, changed))
    np.testing.assert_allclose(first[:, :3], second[:, :3], atol=1e-5)


@paddle.no_grad()
def test_steps_read_padded_tags_where_padding_counts():
    """The release's decoder does, where tags are of unequal number; its training does not."""
    model = small_unimo2(grounding={"mask_padding": False}, fusion={"caption_sees_image": True})
    pixels, ids, mask = _inputs()
    source, alone = _tagged(model, pixels)
    expected = model.decode(source, ids, mask).numpy()
    found, _ = model.step(model.start_decoding(source), ids[:, 0])
    differs = [not np.allclose(found.numpy()[row], expected[row, 0], atol=1e-3) for row in range(3)]
    assert differs == [False, True, True]
    for row, one in enumerate(alone):
        found, _ = model.step(model.start_decoding(one), ids[row : row + 1, 0])
        np.testing.assert_allclose(found.numpy()[0], expected[row, 0], atol=1e-5)


@paddle.no_grad()
def test_padding_changes_no_caption_state():
    model = small_unimo2()
    pixels, ids, mask = inputs()
    image = model.encode_image(pixels)
    padded = paddle.concat([ids, paddle.ones([3, 4], dtype="int64")], axis=1)
    longer = paddle.concat([mask, paddle.zeros([3, 4], dtype="int64")], axis=1)
    short, long = model.decode(image, ids, mask).numpy(), model.decode(image, padded, longer).numpy()
    kept = mask.numpy().astype(bool)
    np.testing.assert_allclose(short[kept], long[:, :-4][kept], atol=1e-5)


@paddle.no_grad()
def test_grounded_tokens_of_a_caption_have_no_positions():
    """As in the branch of the release that trains captions, whatever its `with_grounding_pos` says."""
    plain, model = small_unimo2(), small_unimo2(grounding={"positions": True})
    pixels, ids, mask = _inputs()
    states = [each.decode(each.encode_image(pixels), ids, mask).numpy() for each in (plain, model)]
    np.testing.assert_array_equal(*states)


@paddle.no_grad()
def test_grounded_tokens_of_a_caption_come_from_the_image_alone():
    """With the same tokens from another image, states differ only through what the tokens are."""
    model = small_unimo2()
    pixels, ids, mask = _inputs()
    image = model.encode_image(pixels)
    alone = model.ground(None, image)
    seen = []
    original = model.ground
    model.ground = lambda text, picture: seen.append(text) or original(text, picture)
    model.decode(image, ids, mask)
    model.start_decoding(image)
    assert seen == [None, None]
    assert alone.features.shape[1] == 16


@paddle.no_grad()
def test_selected_rows_go_on_as_if_they_had_been_there_from_the_start():
    model = small_unimo2()
    pixels, ids, _ = _inputs()
    state = model.start_decoding(model.encode_image(pixels))
    _, state = model.step(state, ids[:, 0])
    _, state = model.step(state, ids[:, 1])
    rows = paddle.to_tensor([2, 0, 0, 1])
    chosen = state.select(rows)
    found, _ = model.step(chosen, paddle.to_tensor([5, 6, 7, 8]))

    fresh = model.start_decoding(model.encode_image(paddle.gather(pixels, rows)))
    for position in range(2):
        _, fresh = model.step(fresh, paddle.gather(ids[:, position], rows))
    expected, _ = model.step(fresh, paddle.to_tensor([5, 6, 7, 8]))
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5)
    assert chosen.sources.tolist() == [2, 0, 0, 1] and chosen.length == 2


@paddle.no_grad()
def test_beams_that_change_places_keep_the_prefix():
    model = small_unimo2()
    pixels, ids, _ = _inputs()
    state = model.start_decoding(model.encode_image(pixels)).select(paddle.to_tensor([0, 0, 1, 1]))
    _, state = model.step(state, paddle.to_tensor([5, 6, 7, 8]))
    swapped = state.select(paddle.to_tensor([1, 1, 2, 3]))
    assert swapped.prefix is state.prefix
    np.testing.assert_array_equal(swapped.own[0][0][0].numpy(), state.own[0][0][1].numpy())
    assert state.select(paddle.to_tensor([2, 3])).prefix is not state.prefix


@paddle.no_grad()
def test_decoding_stops_at_the_end_of_the_position_table():
    model = small_unimo2(text={"max_position": 5})
    state = model.start_decoding(model.encode_image(_inputs()[0]))
    for _ in range(3):
        _, state = model.step(state, paddle.to_tensor([4, 4, 4]))
    with pytest.raises(ConfigError, match="can have 3 tokens.*max_position.*smaller maximum length"):
        model.step(state, paddle.to_tensor([4, 4, 4]))


def test_gradients_of_teacher_forcing():
    """Everything but the poolers learns from captions."""
    model = small_unimo2()
    model.train()
    pixels, ids, mask = _inputs()
    model.decode(model.encode_image(pixels), ids, mask).square().sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert {name.partition(".")[0] for name in without} == {"text_pooler", "image_pooler"}
