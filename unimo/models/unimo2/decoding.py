"""Step-by-step decoding with cached keys and values: the numbers of `Unimo2.decode`, one token at a time.

Image and grounded rows read no text, so they go through the Grounded Transformer once, and each layer's keys
and values of them are kept apart from those of the text, which grow. Legend: N texts, P kept rows of image
and grounded tokens, t tokens so far, H heads, D their width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

from unimo.errors import ConfigError
from unimo.models.unimo2.grounded_attention import GroundedTransformer
from unimo.nn.attention import SelfAttention
from unimo.nn.block import Block
from unimo.nn.text_encoder import RobertaTower

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class DecodingState:
    """What N texts in the making need to go on."""

    length: int
    """Tokens so far."""
    text: tuple[Pair | None, ...]
    """For each layer of the text encoder keys and values [N, H, t, D]; None before the first token."""
    fusion: tuple[Pair | None, ...]
    """The same for the text rows of each layer of the Grounded Transformer."""
    prefix: tuple[Pair, ...]
    """For each layer of the Grounded Transformer keys and values [N, H, P, D] that all tokens read."""
    images: np.ndarray
    """[N] which image each text belongs to."""

    def select(self, rows: Tensor) -> DecodingState:
        """The texts `rows` (int tensor [N'], repeats allowed), e.g. those that a beam goes on with.

        The large prefix is copied only when texts of other images come in their place.
        """

        def pick(pairs: tuple[Pair | None, ...]) -> tuple[Pair | None, ...]:
            return tuple(
                None if pair is None else tuple(paddle.gather(part, rows, axis=0) for part in pair)
                for pair in pairs
            )

        images = self.images[rows.numpy()]
        stays = np.array_equal(images, self.images)
        return replace(
            self,
            text=pick(self.text),
            fusion=pick(self.fusion),
            prefix=self.prefix if stays else pick(self.prefix),
            images=images,
        )


def start_state(
    fusion: GroundedTransformer, states: Tensor, kept: int, num_text_layers: int
) -> DecodingState:
    """Run image and grounded rows through all layers and keep what text rows will read.

    Args:
        states: [N, V + K, W] image and grounded rows, as `join` gives them.
        kept: text reads the rows from this one on.
        num_text_layers: layers of the text encoder.
    """
    prefix = []
    for layer in fusion.layers:
        query, key, value = layer.attention.project(states, heads_first=True)
        prefix.append((key[:, :, kept:], value[:, :, kept:]))
        if layer is not fusion.layers[-1]:
            mixed, _ = layer.attention.mix(query, key, value, None, heads_first=True)
            states = layer.close(states, layer.attention.out(mixed))
    return DecodingState(
        length=0,
        text=(None,) * num_text_layers,
        fusion=(None,) * len(fusion.layers),
        prefix=tuple(prefix),
        images=np.arange(states.shape[0]),
    )


def decode_step(
    text: RobertaTower, fusion: GroundedTransformer, state: DecodingState, ids: Tensor
) -> tuple[Tensor, DecodingState]:
    """One token [N] through the text encoder and the Grounded Transformer.

    Raises:
        ConfigError: the position table ends here.
    """
    embeddings = text.embeddings
    position, table = embeddings.padding_id + 1 + state.length, embeddings.position.weight.shape[0]
    if position >= table:
        raise ConfigError(
            f"a generated text can have {table - embeddings.padding_id - 1} tokens, the position table has "
            f"{table} rows (text.max_position); set a smaller maximum length"
        )
    states = embeddings.at(ids.unsqueeze(1), paddle.full([1, 1], position, dtype="int64"))
    text_pairs, fusion_pairs = [], []
    for layer, past in zip(text.layers, state.text, strict=True):
        states, pair = _extend(layer, states, past, None)
        text_pairs.append(pair)
    for layer, past, prefix in zip(fusion.layers, state.fusion, state.prefix, strict=True):
        states, pair = _extend(layer, states, past, prefix)
        fusion_pairs.append(pair)
    following = replace(state, length=state.length + 1, text=tuple(text_pairs), fusion=tuple(fusion_pairs))
    return states[:, 0], following


def _extend(layer: Block, states: Tensor, past: Pair | None, prefix: Pair | None) -> tuple[Tensor, Pair]:
    """One layer for one token [N, 1, W]: its new state, and keys and values with the token's own."""
    query, key, value = layer.attention.project(states, heads_first=True)
    if past is not None:
        key, value = paddle.concat([past[0], key], axis=2), paddle.concat([past[1], value], axis=2)
    if prefix is None or not prefix[0].shape[2]:
        mixed, _ = layer.attention.mix(query, key, value, None, heads_first=True)
    else:
        mixed = _mix_apart(layer.attention, query, (key, value), prefix)
    return layer.close(states, layer.attention.out(mixed)), (key, value)


def _mix_apart(attention: SelfAttention, query: Tensor, text: Pair, prefix: Pair) -> Tensor:
    """Attention over prefix and text together, without copying them into one tensor at every token."""
    query, length = query * attention.scale, prefix[0].shape[2]
    logits = [paddle.matmul(query, key, transpose_y=True) for key in (prefix[0], text[0])]
    weights = F.softmax(paddle.concat(logits, axis=-1))
    mixed = paddle.matmul(weights[:, :, :, :length], prefix[1])
    mixed = mixed + paddle.matmul(weights[:, :, :, length:], text[1])
    return mixed.transpose([0, 2, 1, 3]).reshape([0, 0, -1])
