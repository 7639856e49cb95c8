"""The text tower of RoBERTa (Liu et al., 2019): post-norm Transformer (Eqs 3 and 4)."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from paddle import Tensor, nn

from unimo.nn.block import Block, Mlp, run_block
from unimo.nn.config import TextConfig
from unimo.nn.embeddings import TextEmbeddings
from unimo.nn.init import linear
from unimo.nn.masks import additive_mask, causal_mask


class RobertaTower(nn.Layer):
    """RoBERTa without its language-model head.

    Names: `embeddings.{word, position, token_type}.weight`, `embeddings.norm`, `layers.{i}.{attention.qkv,
    attention.out, attention_norm, mlp.fc1, mlp.fc2, mlp_norm}`, `pooler`.

    Args:
        pooler: keep RoBERTa's own pooler, which METER and BridgeTower carry but never use. It is
            frozen (`stop_gradient`), because data parallelism waits for gradients that never come.
        token_type: keep the one token-type row; `load_tower` adds it to the positions otherwise.
    """

    tower_kind: ClassVar[str] = "roberta"
    """Kind of tower folder that `unimo.weights.towers.load_tower` reads into it."""

    def __init__(
        self,
        width: int,
        num_layers: int,
        num_heads: int,
        inner: int,
        *,
        vocab_size: int,
        max_position: int,
        padding_id: int = 1,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        std: float = 0.02,
        pooler: bool = True,
        token_type: bool = True,
    ) -> None:
        super().__init__()
        self.embeddings = TextEmbeddings(
            vocab_size,
            max_position,
            width,
            padding_id=padding_id,
            dropout=dropout,
            std=std,
            token_type=token_type,
        )
        self.layers = nn.LayerList(
            Block(
                width,
                num_heads,
                partial(Mlp, width, inner, "gelu", std),
                norm_first=False,
                dropout=dropout,
                attention_dropout=attention_dropout,
                std=std,
            )
            for _ in range(num_layers)
        )
        self.pooler = linear(width, width, std) if pooler else None
        for parameter in self.pooler.parameters() if pooler else ():
            parameter.stop_gradient = True

    @classmethod
    def from_config(cls, config: TextConfig, **options: bool) -> RobertaTower:
        """Build a tower of the given sizes, with random weights; `options` are those of `__init__`."""
        return cls(
            config.hidden_size,
            config.num_layers,
            config.num_heads,
            config.intermediate_size,
            vocab_size=config.vocab_size,
            max_position=config.max_position,
            padding_id=config.padding_id,
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
            std=config.init_std,
            **options,
        )

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
        return self.encode(self.embeddings(input_ids, attention_mask), mask, need_weights)

    def encode(
        self,
        embedded: Tensor,
        mask: Tensor | None,
        need_weights: bool = False,
        name: str = "text",
        num_queries: int | None = None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Run all layers over embedded rows.

        Args:
            embedded: [B, S, W].
            mask: [B, 1, 1 or S, S], added to the logits.
            need_weights: also return the attentions.
            name: beginning of the names of attentions, `{name}.{layer}`.
            num_queries: number of first rows that the last layer computes; None means all.

        Returns:
            States of all layers, `embedded` first, and attentions.
        """
        states, attentions = [embedded], {}
        for number, layer in enumerate(self.layers, start=1):
            wanted = num_queries if number == len(self.layers) else None
            new, weights = run_block(layer, states[-1], mask, need_weights, wanted)
            states.append(new)
            if need_weights:
                attentions[f"{name}.{number}"] = weights
        return states, attentions
