"""The text tower of RoBERTa (Liu et al., 2019): post-norm Transformer (Eqs 3 and 4)."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from paddle import Tensor, nn

from unimo.nn.block import Block, Mlp, run_blocks
from unimo.nn.config import TextConfig
from unimo.nn.embeddings import TextEmbeddings
from unimo.nn.init import linear
from unimo.nn.masks import additive_mask, causal_mask


class RobertaTower(nn.Layer):
    """RoBERTa without its language-model head, with random weights.

    Names: `embeddings.{word, position, token_type}.weight`, `embeddings.norm`, `layers.{i}.{attention.qkv,
    attention.out, attention_norm, mlp.fc1, mlp.fc2, mlp_norm}`, `pooler`.

    Args:
        config: sizes, dropout and initial scale.
        pooler: keep RoBERTa's own pooler, which METER and BridgeTower carry but never use. It is
            frozen (`stop_gradient`), because data parallelism waits for gradients that never come.
        token_type: keep the one token-type row; `load_tower` adds it to the positions otherwise.
    """

    tower_kind: ClassVar[str] = "roberta"
    """Kind of tower folder that `unimo.weights.layers.load_tower` reads into it."""

    def __init__(self, config: TextConfig, *, pooler: bool = True, token_type: bool = True) -> None:
        super().__init__()
        width, std = config.hidden_size, config.init_std
        self.embeddings = TextEmbeddings(config, token_type)
        self.layers = nn.LayerList(
            Block(
                width,
                config.num_heads,
                partial(Mlp, width, config.intermediate_size, "gelu", std),
                norm_first=False,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                std=std,
            )
            for _ in range(config.num_layers)
        )
        self.pooler = linear(width, width, std) if pooler else None
        for parameter in self.pooler.parameters() if pooler else ():
            parameter.stop_gradient = True

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        need_weights: bool = False,
        causal: bool = False,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Run the tower.

        Args:
            input_ids, attention_mask: [B, T]; the mask has 1 = token, 0 = padding.
            need_weights: also return the attentions.
            causal: no token reads a later one.

        Returns:
            All states T_0 .. T_L (Eq. 4), L + 1 tensors [B, T, W]; on request attentions [B, H, T, T] by
            `text.{layer}`.
        """
        mask = additive_mask(attention_mask)
        if causal:
            mask = mask + causal_mask(input_ids.shape[1])
        return run_blocks(self.layers, self.embeddings(input_ids, attention_mask), mask, need_weights, "text")
