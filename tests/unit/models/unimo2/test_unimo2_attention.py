"""The Grounded Transformer: who reads whom, equal to masked full attention, and its smaller reductions."""

from dataclasses import replace
from functools import partial

import numpy as np
import paddle
import pytest
from small_models import inputs
from small_unimo2 import small_unimo2

from unimo.models.unimo2.grounded_attention import (
    GroundedBlock,
    Layout,
    caption_views,
    let_padding_read,
    narrow,
    tag_mask,
    understanding_views,
)
from unimo.nn import attention as attention_module
from unimo.nn.attention import BLOCKED
from unimo.nn.block import Block, Mlp
from unimo.nn.outputs import Encoded

V, K, T = 5, 3, 4
TEXT_MASK = np.array([[1, 1, 1, 0], [1, 1, 1, 1]])
IMAGE, GROUNDED, TEXT = (np.arange(*bounds) for bounds in ((0, V), (V, V + K), (V + K, V + K + T)))


def _layout(**changes):
    return replace(Layout(V, K, T, None, paddle.to_tensor(TEXT_MASK)), **changes)


def _reads(views, rows, length):
    """[B, rows, length] of 0 and 1: what the views let each row read."""
    seen = np.zeros((2, rows, length))
    for view in views:
        mask = 0.0 if view.mask is None else view.mask.numpy()[:, 0]
        shape = (2, view.queries.stop - view.queries.start, view.keys.stop - view.keys.start)
        seen[:, view.queries, view.keys] = np.broadcast_to(np.exp(mask), shape)
    return seen


def _expected(pairs, lower=()):
    """Fig. 2 by hand: row kinds -> column kinds, text padding out, `lower` (rows, columns) triangular."""
    seen = np.zeros((2, V + K + T, V + K + T))
    for rows, columns in pairs:
        seen[np.ix_(range(2), rows, columns)] = 1
    for rows, columns in lower:
        seen[np.ix_(range(2), rows, columns)] = np.tril(np.ones((len(rows), len(columns))))
    seen[:, :, V + K :] *= TEXT_MASK[:, None]
    return seen


FIG_2 = [
    *((IMAGE, kind) for kind in (IMAGE, GROUNDED)),
    *((GROUNDED, kind) for kind in (IMAGE, GROUNDED, TEXT)),
    *((TEXT, kind) for kind in (GROUNDED, TEXT)),
]
PREFIX = [(rows, columns) for rows in (IMAGE, GROUNDED) for columns in (IMAGE, GROUNDED)]
EVERYTHING = [(rows, columns) for rows in (IMAGE, GROUNDED, TEXT) for columns in (IMAGE, GROUNDED, TEXT)]


def test_views_are_those_of_figure_2():
    views, size = understanding_views(_layout(), "grounded", 2), V + K + T
    np.testing.assert_array_equal(_reads(views, size, size), _expected(FIG_2))
    assert [view.name for view in views] == ["image", "grounded", "text"]
    assert views[0].mask is None  # nothing that image rows read can be padding


def test_views_of_full_attention():
    views, size = understanding_views(_layout(), "full", 2), V + K + T
    np.testing.assert_array_equal(_reads(views, size, size), _expected(EVERYTHING))


@pytest.mark.parametrize(("visibility", "pairs"), [("grounded", FIG_2), ("full", EVERYTHING)])
def test_padding_that_counts_reads_all_rows_alike(visibility, pairs):
    views, size = understanding_views(_layout(), visibility, 2), V + K + T
    changed = let_padding_read(views, _layout())
    expected = _expected(pairs)
    expected[0, -1] = 0.0  # blocked everywhere
    np.testing.assert_array_equal(_reads(changed, size, size), expected)
    (last,) = narrow(changed, [slice(size - 1, size)])
    assert last.keys == slice(0, size) and (last.mask.numpy()[0] == BLOCKED).all()
    alone = _layout(text=0, text_mask=None)
    assert let_padding_read(understanding_views(alone, visibility, 2), alone)[0].mask is None


def test_absent_grounded_tokens_are_not_read():
    exists = np.array([[1, 0, 1], [1, 1, 1]])
    layout = _layout(grounded_mask=paddle.to_tensor(exists))
    size = V + K + T
    expected = _expected(FIG_2)
    expected[:, :, V : V + K] *= exists[:, None]
    np.testing.assert_array_equal(_reads(understanding_views(layout, "grounded", 2), size, size), expected)


@pytest.mark.parametrize("sees_image", [False, True])
def test_views_of_decoding(sees_image):
    size = V + K + T
    pairs = [*PREFIX, (TEXT, GROUNDED), *([(TEXT, IMAGE)] if sees_image else [])]
    expected = _expected(pairs, [(TEXT, TEXT)])
    views = caption_views(_layout(), sees_image, 2)
    np.testing.assert_array_equal(_reads(views, size, size), expected)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_single_modality_reads_all_of_itself(kind):
    if kind == "image":
        views, size = understanding_views(Layout(V, K, 0), "grounded", 2), V + K
        assert views[0].mask is None
        expected = np.ones((2, size, size))
    else:
        layout = Layout(0, K, T, None, paddle.to_tensor(TEXT_MASK))
        views, size = understanding_views(layout, "grounded", 2), K + T
        expected = np.ones((2, size, size))
        expected[:, :, K:] *= TEXT_MASK[:, None]
    assert [view.name for view in views] == ["joint"]
    np.testing.assert_array_equal(_reads(views, size, size), expected)


def test_narrow_keeps_the_rows_that_are_asked_for():
    views = understanding_views(_layout(), "grounded", 2)
    parts = narrow(views, _layout().firsts())
    assert [(view.name, view.queries.start, view.queries.stop) for view in parts] == [
        ("image", 0, 1),
        ("text", V + K, V + K + 1),
    ]
    late = narrow(caption_views(_layout(), False, 2), [slice(V + K + 2, V + K + 4)])[0]
    whole = caption_views(_layout(), False, 2)[1]
    np.testing.assert_array_equal(late.mask.numpy(), whole.mask.numpy()[:, :, 2:])


def _block(kind=GroundedBlock):
    paddle.seed(3)
    block = kind(8, 2, partial(Mlp, 8, 16, "gelu", 0.4), norm_first=False, std=0.4)
    block.eval()
    return block


def _states(length=V + K + T, seed=0):
    return paddle.to_tensor(np.random.default_rng(seed).standard_normal((2, length, 8)).astype("float32"))


VIEWS = {
    "fig2": (lambda: understanding_views(_layout(), "grounded", 2), _expected(FIG_2)),
    "full": (lambda: understanding_views(_layout(), "full", 2), _expected(EVERYTHING)),
    "caption": (
        lambda: caption_views(_layout(), True, 2),
        _expected([*PREFIX, (TEXT, GROUNDED), (TEXT, IMAGE)], [(TEXT, TEXT)]),
    ),
}


@pytest.mark.parametrize("kind", VIEWS)
def test_a_layer_equals_full_attention_with_the_mask(kind):
    """The same parameters in an ordinary block that computes all logits and blocks the white ones."""
    make, seen = VIEWS[kind]
    grounded, plain, x = _block(), _block(Block), _states()
    expected, weights = plain(x, paddle.to_tensor(((1 - seen) * BLOCKED)[:, None].astype("float32")), True)
    views = make()
    out, *found = grounded(x, views, True)
    np.testing.assert_allclose(out.numpy(), expected.numpy(), atol=1e-5)
    for view, probabilities in zip(views, found, strict=True):
        part = weights.numpy()[:, :, view.queries, view.keys]
        np.testing.assert_allclose(probabilities.numpy(), part, atol=1e-6)
    assert [weight for weight in grounded(x, views)[1:]] == [None] * len(views)


@pytest.mark.parametrize("kind", VIEWS)
def test_fused_kernel_path_gives_the_same_numbers(monkeypatch, kind):
    block, x, views = _block(), _states(), VIEWS[kind][0]()
    expected = block(x, views)[0].numpy()
    monkeypatch.setattr(attention_module, "use_fused_kernel", lambda: True)
    np.testing.assert_allclose(block(x, views)[0].numpy(), expected, atol=1e-5)


def test_rows_that_nobody_reads_are_not_computed():
    block, x = _block(), _states()
    views = understanding_views(_layout(), "grounded", 2)
    whole = block(x, views)[0].numpy()
    some = block(x, narrow(views, _layout().firsts()))[0].numpy()
    np.testing.assert_allclose(some, whole[:, [0, V + K]], atol=1e-6)


def test_logits_are_fewer_than_all_pairs(monkeypatch):
    """Count the pairs that are multiplied: V (V + K) + K (V + K + T) + T (T + K) pairs, no more."""
    block, counted = _block(), []
    original = block.attention.mix

    def count(query, key, *rest, **named):
        counted.append(query.shape[2] * key.shape[2])
        return original(query, key, *rest, **named)

    monkeypatch.setattr(block.attention, "mix", count, raising=False)
    block(_states(), understanding_views(_layout(), "grounded", 2))
    assert sum(counted) == V * (V + K) + K * (V + K + T) + T * (T + K) < (V + K + T) ** 2


def _encoded(model, seed=1):
    pixels, ids, mask = inputs(seed=seed)
    return model.encode_text(ids, mask), model.encode_image(pixels)


def _change_one_patch(image: Encoded, by: float) -> Encoded:
    states = image.image.clone()
    states[:, 3] += by
    return replace(image, image=states)


@paddle.no_grad()
def test_text_feels_an_image_token_only_through_grounded_tokens():
    """One layer. The same grounded tokens: not a bit of the text changes; others: it does."""
    model = small_unimo2(fusion={"num_layers": 1})
    text, image = _encoded(model)
    other = _change_one_patch(image, 3.0)
    grounding = model.ground(text, image)
    first = model.fuse(text, image, grounding=grounding)
    second = model.fuse(text, other, grounding=grounding)
    np.testing.assert_array_equal(first.fused_text.numpy(), second.fused_text.numpy())
    assert not np.allclose(first.fused_image.numpy(), second.fused_image.numpy(), atol=1e-3)
    rechosen = model.ground(text, other)
    assert not np.array_equal(rechosen.ids.numpy(), grounding.ids.numpy())
    third = model.fuse(text, other, grounding=rechosen)
    assert not np.allclose(first.fused_text.numpy(), third.fused_text.numpy(), atol=1e-3)


@paddle.no_grad()
def test_image_feels_a_text_token_only_through_grounded_tokens():
    model = small_unimo2(fusion={"num_layers": 1})
    text, image = _encoded(model)
    states = text.text.clone()
    states[:, 2] += 3.0
    grounding = model.ground(text, image)
    first = model.fuse(text, image, grounding=grounding)
    second = model.fuse(replace(text, text=states), image, grounding=grounding)
    np.testing.assert_array_equal(first.fused_image.numpy(), second.fused_image.numpy())
    assert not np.allclose(first.fused_text.numpy(), second.fused_text.numpy(), atol=1e-3)


@paddle.no_grad()
def test_two_layers_do_exchange_information():
    model = small_unimo2(fusion={"num_layers": 2})
    text, image = _encoded(model)
    grounding = model.ground(text, image)
    first = model.fuse(text, image, grounding=grounding).fused_text
    second = model.fuse(text, _change_one_patch(image, 3.0), grounding=grounding).fused_text
    assert not np.allclose(first.numpy(), second.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    "grounding", [{"num_tokens": 0}, {"enabled": False}, {"enabled_at_inference": False}], ids=str
)
@paddle.no_grad()
def test_without_grounded_tokens_image_and_text_are_blind_to_each_other(grounding):
    model = small_unimo2(grounding=grounding)
    text, image = _encoded(model)
    pair = model.fuse(text, image)
    assert pair.grounded is None and pair.grounded_ids is None
    np.testing.assert_allclose(pair.fused_text.numpy(), model.fuse(text, None).fused_text.numpy(), atol=1e-5)
    np.testing.assert_allclose(
        pair.fused_image.numpy(), model.fuse(None, image).fused_image.numpy(), atol=1e-5
    )


@paddle.no_grad()
def test_full_visibility_without_dictionary_is_a_plain_transformer():
    """The paper's baseline: [image; text] through ordinary RoBERTa layers."""
    model = small_unimo2(fusion={"visibility": "full"}, grounding={"enabled": False})
    text, image = _encoded(model)
    states = paddle.concat([image.image, text.text], axis=1)
    ones = paddle.ones(image.image.shape[:2])
    keep = paddle.concat([ones, text.text_mask.astype("float32")], axis=1)
    mask = ((1 - keep) * BLOCKED).unsqueeze([1, 2])
    for layer in model.fusion.layers:
        states = Block.forward(layer, states, mask)[0]
    pair = model.fuse(text, image)
    np.testing.assert_allclose(pair.fused_image.numpy(), states[:, :17].numpy(), atol=1e-5)
    np.testing.assert_allclose(pair.fused_text.numpy(), states[:, 17:].numpy(), atol=1e-5)


@pytest.mark.parametrize("padding_reads", [False, True])
@pytest.mark.parametrize("sees_image", [False, True])
def test_tags_before_a_caption_read_as_told(sees_image, padding_reads):
    seen = tag_mask(_layout(), sees_image, padding_reads).numpy()[:, 0] == 0
    prefix, size = V + K, V + K + T
    expected = np.zeros((2, size, size), bool)
    expected[:, :prefix, :prefix] = True
    expected[:, prefix:, V:] = True
    expected[:, prefix:, :V] = sees_image
    expected[0, :, size - 1] = False  # the padding of the first text
    if padding_reads:  # what is blocked everywhere reads everything alike
        expected[0, size - 1] = False
    np.testing.assert_array_equal(seen, expected)
