"""One Transformer in two modes, the idea of SemVLP (section 3.2).

Layer l is self-attention phi_S, a feed-forward network phi_F and, above L_s, a pluggable cross-attention
phi_C. Texts, images and pairs, in both modes, share one set of phi_S and phi_F.

Legend: B batch, T tokens, O rows of objects, S any rows, W width, L layers.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from paddle import Tensor, nn

from unimo.models.semvlp.config import CrossConfig, TextConfig
from unimo.nn.block import Block, CrossBlock, Mlp, run_block

EPSILON = 1e-12
"""Epsilon of all norms, as in BERT."""
Run = tuple[list[Tensor], dict[str, Tensor]]
"""States of all layers, those at the entrance first, and on request attentions by name."""


class DualModeEncoder(nn.LayerList):
    """L post-norm layers, called as BERT's; those that own phi_C have `cross_attention` and `cross_norm` too.

    Single-stream mode (section 3.2.1) is `plain` over [text; objects]. Two-stream mode (section 3.2.2) is
    `plain` over the text, which gives H^L, `lower` over the objects, and `upper` from there. Which rows come
    first makes no difference: positions are in the embeddings.
    """

    def __init__(self, size: TextConfig, cross: CrossConfig) -> None:
        width, std = size.hidden_size, size.init_std
        rates = {"dropout": size.dropout, "attention_dropout": size.attention_dropout}
        options = {**rates, "epsilon": EPSILON, "std": std}
        mlp = partial(Mlp, width, size.intermediate_size, "gelu", std)
        first = 0 if cross.modules == "all" else cross.start
        super().__init__(
            Block(width, size.num_heads, mlp, norm_first=False, **options)
            if number < first
            else CrossBlock(width, size.num_heads, size.intermediate_size, **options)
            for number in range(size.num_layers)
        )
        self.start = cross.start
        for module in self.crosses(range(first, cross.start)):  # counted, and read by nothing
            for parameter in module.parameters():
                parameter.stop_gradient = True

    def crosses(self, numbers: Iterable[int] | None = None) -> list[nn.Layer]:
        """Return the parts of phi_C of some layers, counted from 0; of all layers without `numbers`."""
        layers = [self[number] for number in (range(len(self)) if numbers is None else numbers)]
        found = [layer for layer in layers if isinstance(layer, CrossBlock)]
        return [part for layer in found for part in (layer.cross_attention, layer.cross_norm)]

    def plain(
        self,
        states: Tensor,
        mask: Tensor | None,
        name: str,
        attentions: bool = False,
        rows: int | None = None,
    ) -> Run:
        """Run all layers without cross-attention: s^l = phi_F(phi_S(s^(l-1), S^(l-1))).

        Args:
            states: embeddings [B, S, W].
            mask: additive, [B, 1, 1, S].
            name: beginning of the names of attentions, `{name}.{layer}`.
            attentions: also return them.
            rows: number of first rows that the last layer computes; None means all.
        """
        return self._run(range(len(self)), states, mask, name, attentions, rows)

    def lower(self, objects: Tensor, mask: Tensor | None, attentions: bool = False) -> Run:
        """Run the layers l <= L_s on objects [B, O, W]: o^l = phi_F(phi_S(o^(l-1), O^(l-1)))."""
        return self._run(range(self.start), objects, mask, "image", attentions)

    def upper(
        self,
        objects: Tensor,
        mask: Tensor | None,
        text: Tensor,
        text_mask: Tensor | None,
        attentions: bool = False,
        rows: int | None = None,
    ) -> Run:
        """Run the layers l > L_s on objects: o^l = phi_F(phi_C(phi_S(o^(l-1), O^(l-1)), H^L)).

        Args:
            objects: states [B, O, W] of layer L_s.
            mask: additive, [B, 1, 1, O].
            text: H^L [B, T, W], the last states of the text.
            text_mask: additive, [B, 1, 1, T].
            attentions: also return them, `image.{layer}` and from image to text `cross.{layer}`.
            rows: number of first rows that the last layer computes; None means all.
        """
        above = range(self.start, len(self))
        return self._run(above, objects, mask, "image", attentions, rows, (text, text_mask))

    def _run(
        self,
        layers: range,
        states: Tensor,
        mask: Tensor | None,
        name: str,
        attentions: bool,
        rows: int | None = None,
        text: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> Run:
        found, maps = [states], {}
        for number in layers:
            layer, wanted = self[number], rows if number == len(self) - 1 else None
            if isinstance(layer, CrossBlock):
                inputs = (found[-1], text[0], mask, text[1], wanted, attentions)
            else:
                inputs = (found[-1], mask, attentions, wanted)
            new, own, *cross = run_block(layer, *inputs)
            found.append(new)
            if attentions:
                maps[f"{name}.{number + 1}"] = own
                maps |= {f"cross.{number + 1}": weights for weights in cross if weights is not None}
        return found, maps
