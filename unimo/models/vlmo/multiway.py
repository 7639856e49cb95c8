"""Multiway Transformer (section 3.2): attention for all modalities, a feed-forward expert for each of them.

A layer has experts for images (V-FFN) and texts (L-FFN), the top layers also one for pairs (VL-FFN). Which of
them processes a row follows from what the input consists of, not from a learned gate:

    image alone   V-FFN in every layer
    text alone    L-FFN in every layer
    pair          L-FFN for the rows of the text and V-FFN for those of the image; VL-FFN for all, where there
                  is one

An input is described by its parts in order, `{"text": T, "image": V}`; rows of a single modality that are to
go through the experts for pairs are `{"pair": S}`.
"""

from __future__ import annotations

from collections.abc import Mapping

import paddle
from paddle import Tensor, nn

from unimo.models.vlmo.config import TransformerConfig
from unimo.nn.attention import SelfAttention
from unimo.nn.block import Mlp, ResidualBlock
from unimo.nn.init import constant_attr
from unimo.nn.kernels import LayerNorm, scale_columns
from unimo.nn.residual import drop_path

EPSILON = 1e-6
Parts = Mapping[str, int]
"""Modality -> number of its rows, in the order of the rows."""


class Expert(nn.Layer):
    """LN and feed-forward network of Eq. (2)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm = LayerNorm(config.hidden_size, EPSILON)
        self.mlp = Mlp(config.hidden_size, config.intermediate_size, "gelu", config.init_std)

    def forward(self, states: Tensor) -> Tensor:
        """Map states [B, S, D] to [B, S, D], each row by itself."""
        return self.mlp(self.norm(states))


class MultiwayBlock(ResidualBlock):
    """Eqs (1) and (2): shared self-attention, then the experts of the input's modalities.

    Args:
        config: sizes, experts and layer scale.
        has_pair_expert: whether this is one of the top layers, with a VL-FFN.
        drop_path: probability that a sample skips either branch.
    """

    def __init__(self, config: TransformerConfig, has_pair_expert: bool, drop_path: float) -> None:
        super().__init__(dropout=0.0)
        width, self.drop_path = config.hidden_size, drop_path
        self.attention = SelfAttention(width, config.num_heads, std=config.init_std, key_bias=False)
        self.attention_norm = LayerNorm(width, EPSILON)
        names = ["text", "image"] + ["pair"] * has_pair_expert
        names = ["shared"] if config.experts == "shared" else names
        self.experts = nn.LayerDict({name: Expert(config) for name in names})
        start = config.layer_scale
        scales = [None if start is None else self._scale(width, start) for _ in range(2)]
        self.attention_scale, self.expert_scale = scales

    def _scale(self, width: int, start: float) -> Tensor:
        return self.create_parameter([width], attr=constant_attr(start))

    def forward(
        self,
        states: Tensor,
        mask: Tensor | None,
        parts: Parts,
        need_weights: bool = False,
        num_queries: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Run the block.

        Args:
            states: H_{l-1} [B, S, D].
            mask: added to the attention logits, [B or 1, 1 or H, S or 1, S].
            parts: what the rows are.
            need_weights: also return the attention.
            num_queries: update only this number of first rows, with the same numbers. All rows must go
                through one expert.

        Returns:
            H_l [B, S or num_queries, D]; on request attention [B, H, S or num_queries, S].
        """
        routes = self.route(parts)
        if num_queries is not None:
            routes = dict.fromkeys(routes, num_queries)
            mask = mask if mask is None or mask.shape[2] == 1 else mask[:, :, :num_queries]
        update, weights = self.attention(self.attention_norm(states), mask, num_queries, need_weights)
        states = self._add(states[:, :num_queries], update, self.attention_scale)  # Eq. (1)
        return self._add(states, self.multiway(states, routes), self.expert_scale), weights  # Eq. (2)

    def multiway(self, states: Tensor, routes: Parts) -> Tensor:
        """Compute Multiway-FFN(LN(H'_l)) [B, S, D], where each expert has the number of rows in `routes`."""
        if len(routes) == 1:
            (name,) = routes
            return self.experts[name](states)
        rows = states.split(list(routes.values()), axis=1)
        return paddle.concat(
            [self.experts[name](part) for name, part in zip(routes, rows, strict=True)], axis=1
        )

    def route(self, parts: Parts) -> Parts:
        """Return the experts of this layer that process an input of these parts, with their rows."""
        rows = sum(parts.values())
        if "shared" in self.experts:
            return {"shared": rows}
        if len(parts) > 1 and "pair" in self.experts:
            return {"pair": rows}
        return parts

    def _add(self, states: Tensor, update: Tensor, scale: Tensor | None) -> Tensor:
        update = update if scale is None else scale_columns(update, scale)
        return states + drop_path(update, self.drop_path, self.training)
