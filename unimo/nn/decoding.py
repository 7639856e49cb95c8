"""Step-by-step decoding with cached keys and values, for any stack of post-norm blocks.

Rows that all tokens of a text read (an image, a source text) go through the layers once. Their keys and
values in each layer, the prefix, are kept apart from those of the text, which grow. Shapes: N texts, P rows
of the prefix, t tokens so far, H heads, D width of a head.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

from unimo.errors import ConfigError
from unimo.nn.attention import SelfAttention
from unimo.nn.block import Block
from unimo.nn.embeddings import TextEmbeddings
from unimo.nn.shapes import length

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class DecodingState:
    """Cache of N texts that are being generated; one entry for each layer, in the order in which they run."""

    own: tuple[Pair | None, ...]
    """Keys and values [N, H, t, D] of the text; None before the first token."""
    prefix: tuple[Pair | None, ...]
    """Keys and values [N, H, P, D] that all tokens read; None for layers that have none."""
    sources: np.ndarray
    """[N] number of the source that each text belongs to."""
    prefix_masks: tuple[Tensor | None, ...] = ()
    """For each layer [N, 1, 1, P], added to the logits of the prefix; None where all of it is real. Empty
    where there is none at all."""
    length: int | Tensor = 0
    """t, tokens so far; a tensor in an exported program."""

    def select(self, rows: Tensor) -> DecodingState:
        """Return the state of the texts `rows` (int tensor [N'], repeats allowed), e.g. those a beam keeps.

        The large prefix is copied only when texts of other sources come in their place.
        """

        def pick(pairs: tuple[Pair | None, ...]) -> tuple[Pair | None, ...]:
            return tuple(
                None if pair is None else tuple(paddle.gather(part, rows, axis=0) for part in pair)
                for pair in pairs
            )

        sources = self.sources[rows.numpy()]
        picked = replace(self, own=pick(self.own), sources=sources)
        if np.array_equal(sources, self.sources):
            return picked
        masks = tuple(
            None if mask is None else paddle.gather(mask, rows, axis=0) for mask in self.prefix_masks
        )
        return replace(picked, prefix=pick(self.prefix), prefix_masks=masks)


def read_prefix(
    layers: Iterable[Block], states: Tensor, mask: Tensor | None = None, kept: int = 0
) -> tuple[Pair, ...]:
    """Run rows that read each other through all layers, and keep their keys and values.

    Args:
        layers: post-norm blocks.
        states: [N, P', W].
        mask: [N, 1, 1 or P', P'], added to the logits.
        kept: first of the rows that a text reads; P = P' - kept.

    Returns:
        Keys and values [N, H, P, D] in each layer.
    """
    prefix = []
    layers = list(layers)
    for layer in layers:
        query, key, value = layer.attention.project(states, heads_first=True)
        prefix.append((key[:, :, kept:], value[:, :, kept:]))
        if layer is not layers[-1]:
            mixed, _ = layer.attention.mix(query, key, value, mask, heads_first=True)
            states = layer.close(states, layer.attention.out(mixed))
    return tuple(prefix)


def next_position(embeddings: TextEmbeddings, state: DecodingState) -> Tensor:
    """Return the row [1, 1] of the position table for the next token.

    Raises:
        ConfigError: the position table ends here.
    """
    position, table = embeddings.padding_id + 1 + state.length, embeddings.position.weight.shape[0]
    if isinstance(position, int) and position >= table:
        raise ConfigError(
            f"a generated text can have {table - embeddings.padding_id - 1} tokens, the position table has "
            f"{table} rows (text.max_position); set a smaller maximum length"
        )
    return paddle.full([1, 1], position, dtype="int64")


def advance(layers: Iterable[Block], state: DecodingState, states: Tensor) -> tuple[Tensor, DecodingState]:
    """Run one embedded token [N, 1, W] through all layers.

    Returns:
        Its last state [N, W], and the cache with this token.
    """
    own = []
    masks = state.prefix_masks or (None,) * len(state.own)
    for layer, past, prefix, mask in zip(layers, state.own, state.prefix, masks, strict=True):
        query, key, value = layer.attention.project(states, heads_first=True)
        if past is not None:
            key, value = paddle.concat([past[0], key], axis=2), paddle.concat([past[1], value], axis=2)
        own.append((key, value))
        if prefix is None or not prefix[0].shape[2]:
            mixed, _ = layer.attention.mix(query, key, value, None, heads_first=True)
        else:
            mixed = _mix_apart(layer.attention, query, (key, value), prefix, mask)
        states = layer.close(states, layer.attention.out(mixed))
    return states[:, 0], replace(state, own=tuple(own), length=state.length + 1)


def _mix_apart(
    attention: SelfAttention, query: Tensor, text: Pair, prefix: Pair, mask: Tensor | None
) -> Tensor:
    """Attend to prefix and text together, without copying them into one tensor at every token."""
    query, rows = query * attention.scale, length(prefix[0], 2)
    before, own = (paddle.matmul(query, key, transpose_y=True) for key in (prefix[0], text[0]))
    weights = F.softmax(paddle.concat([before if mask is None else before + mask, own], axis=-1))
    mixed = paddle.matmul(weights[:, :, :, :rows], prefix[1])
    mixed = mixed + paddle.matmul(weights[:, :, :, rows:], text[1])
    return mixed.transpose([0, 2, 1, 3]).reshape([0, 0, -1])
