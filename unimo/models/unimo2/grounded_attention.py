"""The Grounded Transformer: image and text rows read the grounded tokens, and these read everything (Fig. 2).

Image and text exchange nothing but through the grounded tokens: image rows read image and grounded rows, text
rows read grounded and text rows, grounded rows read all. The sequence is [image; grounded; text], so that the
keys of each kind of row lie in one piece. A layer projects queries, keys and values of the whole sequence in
one product and then attends once for each `View`: no logit is computed that Fig. 2 leaves white. With V, K, T
rows that is V (V + K) + K (V + K + T) + T (K + T) logits instead of (V + K + T)^2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import paddle
from paddle import Tensor, nn

from unimo.models.unimo2.config import Config
from unimo.nn import attention
from unimo.nn.attention import BLOCKED, additive_mask, causal_mask
from unimo.nn.block import Block, Mlp, run_block
from unimo.nn.kernels import LayerNorm, dropout
from unimo.nn.shapes import length


@dataclass(frozen=True)
class View:
    """Rows that ask, and the rows that they read."""

    name: str
    queries: slice
    keys: slice
    mask: Tensor | None = None
    """[B, 1, 1 or queries, keys], added to the logits."""


@dataclass(frozen=True)
class Layout:
    """Number of rows of each kind in the sequence, and which of them are padding."""

    image: int
    grounded: int
    text: int
    grounded_mask: Tensor | None = None
    """[B, K] 1 = exists; None means all do."""
    text_mask: Tensor | None = None
    """[B, T] 1 = token; None means there is no text."""

    @property
    def rows(self) -> dict[str, slice]:
        """Place of each kind in the sequence."""
        middle = self.image + self.grounded
        return {
            "image": slice(0, self.image),
            "grounded": slice(self.image, middle),
            "text": slice(middle, middle + self.text),
        }

    def firsts(self) -> list[slice]:
        """Return the places of the class tokens of image and text, of those there are."""
        rows = self.rows
        kinds = [kind for kind in ("image", "text") if getattr(self, kind)]
        return [slice(rows[kind].start, rows[kind].start + 1) for kind in kinds]

    def key_mask(self, keys: slice, batch: int | Tensor) -> Tensor | None:
        """Return the additive mask [B, 1, 1, keys] of rows of whole kinds, None where none can be padding."""
        masks = {"image": None, "grounded": self.grounded_mask, "text": self.text_mask}
        kinds = [k for k, own in self.rows.items() if keys.start <= own.start < own.stop <= keys.stop]
        if all(masks[kind] is None for kind in kinds):
            return None
        real = [
            paddle.ones([batch, getattr(self, kind)])
            if masks[kind] is None
            else masks[kind].astype("float32")
            for kind in kinds
        ]
        return additive_mask(paddle.concat(real, axis=1))


def understanding_views(layout: Layout, visibility: str, batch: int | Tensor) -> list[View]:
    """Return the views of Fig. 2 for B pairs, or one view of everything where `visibility` is `full`.

    An image or a text alone reads all of itself and the grounded tokens.
    """
    rows, total = layout.rows, layout.image + layout.grounded + layout.text
    if visibility == "full" or not (layout.image and layout.text):
        everything = slice(0, total)
        return [View("joint", everything, everything, layout.key_mask(everything, batch))]
    reach = {
        "image": slice(0, rows["grounded"].stop),
        "grounded": slice(0, total),
        "text": slice(rows["grounded"].start, total),
    }
    return [
        View(kind, rows[kind], keys, layout.key_mask(keys, batch))
        for kind, keys in reach.items()
        if rows[kind].stop > rows[kind].start
    ]


def let_padding_read(views: Sequence[View], layout: Layout) -> list[View]:
    """Let rows of padding read all rows alike, as in the release: blocked everywhere, they are as if free.

    Rows of tokens read what they read in `views`, those of `understanding_views`.
    """
    if layout.text_mask is None:
        return list(views)
    whole, changed = slice(0, layout.rows["text"].stop), []
    batch = length(layout.text_mask, 0)
    rows = layout.key_mask(whole, batch).transpose([0, 1, 3, 2])  # [B, 1, S, 1]
    for view in views:
        if view.queries.stop == whole.stop:
            mask = view.mask
            if view.keys.start:
                mask = paddle.concat([paddle.full([batch, 1, 1, view.keys.start], BLOCKED), mask], axis=-1)
            view = replace(view, keys=whole, mask=paddle.minimum(mask, rows[:, :, view.queries]))
        changed.append(view)
    return changed


def caption_views(layout: Layout, sees_image: bool, batch: int | Tensor, tags: int = 0) -> list[View]:
    """Return the views of teacher-forced decoding.

    Image and grounded rows read each other; a text row reads grounded rows, the text up to itself and, if
    `sees_image`, the image. So nothing depends on later tokens. The first `tags` rows of the text are object
    tags: they read each other besides, and no caption.
    """
    rows = layout.rows
    prefix = slice(0, rows["text"].start)
    keys = slice(0 if sees_image else rows["grounded"].start, rows["text"].stop)
    before = paddle.zeros([1, 1, layout.text, rows["text"].start - keys.start])
    mask = paddle.concat([before, causal_mask(layout.text, tags)], axis=-1) + layout.key_mask(keys, batch)
    return [
        View("prefix", prefix, prefix, layout.key_mask(prefix, batch)),
        View("text", rows["text"], keys, mask),
    ]


def tag_mask(layout: Layout, sees_image: bool, padding_reads: bool) -> Tensor:
    """Return the additive mask [B, 1, S, S] of the rows before a caption, of which the text are object tags.

    Args:
        layout: of [image; grounded; tags].
        sees_image: whether tags read the image.
        padding_reads: rows of padding read all rows alike, as with `let_padding_read`.
    """
    kinds = np.repeat([0, 1, 2], [layout.image, layout.grounded, layout.text])
    reads = np.array([[1, 1, 0], [1, 1, 0], [int(sees_image), 1, 1]])  # kind of query, kind of key
    hidden = paddle.to_tensor((1.0 - reads[kinds][:, kinds]).astype("float32")) * BLOCKED
    keys = layout.key_mask(slice(0, len(kinds)), length(layout.text_mask, 0))
    mask = paddle.minimum(hidden.unsqueeze([0, 1]), keys)
    return paddle.minimum(mask, keys.transpose([0, 1, 3, 2])) if padding_reads else mask


def narrow(views: Sequence[View], rows: Sequence[slice]) -> list[View]:
    """Return the parts of `views` that update `rows`, in the order of `rows`."""
    parts = []
    for wanted in rows:
        for view in views:
            start, stop = max(view.queries.start, wanted.start), min(view.queries.stop, wanted.stop)
            if start >= stop:
                continue
            mask = view.mask
            if mask is not None and mask.shape[2] > 1:
                mask = mask[:, :, start - view.queries.start : stop - view.queries.start]
            parts.append(replace(view, queries=slice(start, stop), mask=mask))
    return parts


class GroundedBlock(Block):
    """Post-norm layer with the parameters of RoBERTa's, in which each row reads the keys of its view."""

    def forward(
        self, states: Tensor, views: Sequence[View], need_weights: bool = False
    ) -> tuple[Tensor | None, ...]:
        """Run the layer.

        Args:
            states: [B, S, W].
            views: those of the rows to update; rows without a view are read and not returned.
            need_weights: also return attentions.

        Returns:
            New states [B, rows, W] in the order of the views, then for each view its probabilities
            [B, H, queries, keys], or None without `need_weights`.
        """
        heads_first = need_weights or not attention.use_fused_kernel()
        query, key, value = self.attention.project(states, heads_first)

        def rows(packed: Tensor, part: slice) -> Tensor:
            return packed[:, :, part] if heads_first else packed[:, part]

        mixed, weights = [], []
        for view in views:
            asked, read, answers = rows(query, view.queries), rows(key, view.keys), rows(value, view.keys)
            answer, probabilities = self.attention.mix(asked, read, answers, view.mask, heads_first)
            mixed.append(answer)
            weights.append(probabilities if need_weights else None)
        residual = states
        if sum(view.queries.stop - view.queries.start for view in views) < states.shape[1]:
            residual = paddle.concat([states[:, view.queries] for view in views], axis=1)
        update = self.attention.out(paddle.concat(mixed, axis=1))
        return self.close(residual, update), *weights


class GroundedTransformer(nn.Layer):
    """Layers over [image; grounded; text].

    Names: `grounded_norm` (norm of the grounded tokens, as in the release), `layers.{i}` as RoBERTa's.
    """

    tower_kind: ClassVar[str] = "roberta"
    """Kind of tower folder that `unimo.weights.layers.load_tower` reads into it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        fusion = config.fusion
        self.dropout = fusion.dropout
        has_norm = config.grounding.is_active and config.grounding.norm_tokens
        self.grounded_norm = LayerNorm(fusion.hidden_size, 1e-5) if has_norm else None
        mlp = partial(Mlp, fusion.hidden_size, fusion.intermediate_size, "gelu", fusion.init_std)
        self.layers = nn.LayerList(
            GroundedBlock(
                fusion.hidden_size,
                fusion.num_heads,
                mlp,
                norm_first=False,
                dropout=fusion.dropout,
                attention_dropout=fusion.attention_dropout,
                std=fusion.init_std,
            )
            for _ in range(fusion.num_layers)
        )

    def join(self, image: Tensor | None, tokens: Tensor | None, text: Tensor | None) -> Tensor:
        """Join image [B, V, W], grounded tokens [B, K, W] and text [B, T, W], of those there are.

        Encoder outputs enter as they are; grounded tokens go through their norm and dropout.
        """
        if tokens is not None and self.grounded_norm is not None:
            tokens = dropout(self.grounded_norm(tokens), self.dropout, self.training)
        parts = [part for part in (image, tokens, text) if part is not None]
        dtype = next(part.dtype for part in (image, text, tokens) if part is not None)
        return paddle.concat([part.astype(dtype) for part in parts], axis=1)

    def forward(
        self,
        states: Tensor,
        views: Sequence[View],
        wanted: Sequence[slice] | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Run all layers.

        Args:
            states: [B, S, W], result of `join`.
            views: those of all rows.
            wanted: rows that are read afterwards; the last layer computes only these. None means all.
            need_weights: also return attentions.

        Returns:
            [B, S, W], or the wanted rows one after the other; on request attentions by
            `fusion.{view}.{layer}`.
        """
        attentions: dict[str, Tensor] = {}
        last = views if wanted is None else narrow(views, wanted)
        for number, layer in enumerate(self.layers, start=1):
            shown = last if number == len(self.layers) else views
            states, *weights = run_block(layer, states, shown, need_weights)
            if need_weights:
                names = (f"fusion.{view.name}.{number}" for view in shown)
                attentions.update(zip(names, weights, strict=True))
        return states, attentions
