"""Step-by-step decoding has the numbers of one pass over prefix and text together."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from small_models import set_parameters

from unimo.errors import ConfigError
from unimo.nn.attention import additive_mask, causal_mask
from unimo.nn.block import run_blocks
from unimo.nn.config import TextConfig
from unimo.nn.decoding import DecodingState, advance, next_position, read_prefix
from unimo.nn.towers import RobertaTower

DEPTH, PREFIX, LENGTH, WIDTH = 3, 4, 3, 16


@pytest.fixture(scope="module")
def tower() -> RobertaTower:
    config = TextConfig(
        hidden_size=WIDTH, num_layers=DEPTH, num_heads=2, intermediate_size=32, vocab_size=30, max_position=7
    )
    tower = RobertaTower(config)
    set_parameters(tower)
    tower.eval()
    return tower


def rows(seed: int, *shape: int) -> paddle.Tensor:
    return paddle.to_tensor(np.random.default_rng(seed).normal(size=(*shape, WIDTH)).astype("float32"))


def start(tower: RobertaTower, prefix: paddle.Tensor, mask: paddle.Tensor | None) -> DecodingState:
    pairs = read_prefix(tower.layers, prefix, mask)
    masks = () if mask is None else (mask,) * DEPTH
    return DecodingState((None,) * DEPTH, pairs, np.arange(len(prefix)), masks)


def long_tower(rows: int) -> RobertaTower:
    return RobertaTower(
        TextConfig(
            hidden_size=4, num_layers=1, num_heads=1, intermediate_size=4, vocab_size=9, max_position=rows
        )
    )


@pytest.mark.parametrize("rows", [7, 300])
@pytest.mark.parametrize("beyond", [0, 1, 400])
def test_no_position_lies_behind_the_table(rows: int, beyond: int) -> None:
    embeddings = long_tower(rows).embeddings
    last = rows - embeddings.padding_id - 2
    found = next_position(embeddings, DecodingState((), (), np.arange(1), length=last))
    assert found.tolist() == [[rows - 1]]
    with pytest.raises(ConfigError, match=f"the position table has {rows} rows"):
        next_position(embeddings, DecodingState((), (), np.arange(1), length=last + 1 + beyond))


@paddle.no_grad()
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("length", [PREFIX, 0])
def test_steps_equal_one_causal_pass(tower: RobertaTower, length: int, padded: bool) -> None:
    prefix, text = rows(0, 3, length), rows(1, 3, LENGTH)
    real = np.ones((3, length + LENGTH), np.int64)
    if padded:
        real[0, max(0, length - 2) : length] = 0
    whole = additive_mask(paddle.to_tensor(real)) + causal_mask(length + LENGTH, length)
    expected = run_blocks(tower.layers, paddle.concat([prefix, text], axis=1), whole)[0][-1]
    if length:
        state = start(tower, prefix, additive_mask(paddle.to_tensor(real[:, :length])) if padded else None)
    else:
        state = DecodingState((None,) * DEPTH, (None,) * DEPTH, np.arange(3))
    for at in range(LENGTH):
        assert state.length == at
        found, state = advance(tower.layers, state, text[:, at : at + 1])
        np.testing.assert_allclose(found.numpy(), expected[:, length + at].numpy(), atol=1e-5)


@paddle.no_grad()
def test_rows_in_front_of_what_is_kept_are_read_by_the_prefix_alone(tower: RobertaTower) -> None:
    prefix = rows(0, 2, PREFIX)
    whole, kept = read_prefix(tower.layers, prefix), read_prefix(tower.layers, prefix, kept=1)
    for pairs, rest in zip(whole, kept, strict=True):
        for one, other in zip(pairs, rest, strict=True):
            np.testing.assert_array_equal(one[:, :, 1:].numpy(), other.numpy())


@paddle.no_grad()
@pytest.mark.parametrize("chosen", [[0, 1, 2], [2, 0, 0, 1], [1]])
def test_selected_texts_go_on_with_their_own_prefix(tower: RobertaTower, chosen: list[int]) -> None:
    prefix, text = rows(0, 3, PREFIX), rows(1, 3, 2)
    mask = additive_mask(paddle.to_tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]]))
    _, state = advance(tower.layers, start(tower, prefix, mask), text[:, :1])
    expected = advance(tower.layers, state, text[:, 1:])[0].numpy()[chosen]
    picked = state.select(paddle.to_tensor(chosen))
    assert picked.sources.tolist() == chosen
    assert (picked.prefix is state.prefix) == (chosen == [0, 1, 2])
    found = advance(tower.layers, picked, paddle.to_tensor(text.numpy()[chosen, 1:]))[0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_positions_go_on_to_the_end_of_the_table(tower: RobertaTower) -> None:
    """Two of the seven rows are those of padding and before."""
    state = DecodingState((), (), np.arange(1))
    first = tower.embeddings.padding_id + 1
    for length in range(7 - first):
        state = DecodingState((), (), np.arange(1), length=length)
        assert next_position(tower.embeddings, state).tolist() == [[first + length]]
    state = DecodingState((), (), np.arange(1), length=7 - first)
    with pytest.raises(ConfigError, match=rf"can have {7 - first} tokens, the position table has 7 rows"):
        next_position(tower.embeddings, state)
