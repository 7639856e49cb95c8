"""Transformer blocks: pre-norm and post-norm for towers, co-attention for fusion encoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.distributed.fleet.utils import recompute

from unimo.nn.attention import CrossAttention, SelfAttention
from unimo.nn.init import linear
from unimo.nn.kernels import LayerNorm, dropout


def quick_gelu(states: Tensor) -> Tensor:
    """Compute CLIP's activation x * sigmoid(1.702 x)."""
    return F.silu(states * 1.702) * (1 / 1.702)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "quick_gelu": quick_gelu}


class Mlp(nn.Layer):
    """Feed-forward part: Linear to `inner` columns, an activation of `ACTIVATIONS`, Linear back to `width`.

    Args:
        std: initial scale of the weights.
        out_std: initial scale of the second layer; None means `std`.
    """

    def __init__(
        self,
        width: int,
        inner: int,
        activation: str = "gelu",
        std: float = 0.02,
        out_std: float | None = None,
    ) -> None:
        super().__init__()
        self.fc1 = linear(width, inner, std)
        self.fc2 = linear(inner, width, std if out_std is None else out_std)
        self.activation = ACTIVATIONS[activation]

    def forward(self, states: Tensor) -> Tensor:
        """Map states [..., W] to [..., W], each by itself."""
        return self.fc2(self.activation(self.fc1(states)))


class ResidualBlock(nn.Layer):
    """Base of both kinds of block: dropout of what is added to the states, and whether to recompute."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.recompute = False

    def _drop(self, states: Tensor) -> Tensor:
        return dropout(states, self.dropout, self.training)


class Block(ResidualBlock):
    """Self-attention and feed-forward block of a tower.

    Args:
        width: W of the states.
        mlp: makes the feed-forward part, which maps states [B, S, W] to [B, S, W]: `partial(Mlp, W, inner)`,
            or a layer with an expert for each kind of row. It is called once, after attention has been made,
            so that parameters start in the order in which they are used.
        norm_first: True is pre-norm (ViT, CLIP), False post-norm (BERT, RoBERTa).
        dropout: on the output of each of the two parts.
        attention_dropout: on attention probabilities.
        epsilon: of both norms.
        std: initial scale of attention.
        out_std: initial scale of attention's output projection; None means `std`.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp: Callable[[], nn.Layer],
        *,
        norm_first: bool,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        epsilon: float = 1e-5,
        std: float = 0.02,
        out_std: float | None = None,
    ) -> None:
        super().__init__(dropout)
        self.norm_first = norm_first
        self.attention = SelfAttention(width, num_heads, attention_dropout, std, out_std)
        self.attention_norm = LayerNorm(width, epsilon)
        self.mlp = mlp()
        self.mlp_norm = LayerNorm(width, epsilon)

    def forward(
        self,
        states: Tensor,
        mask: Tensor | None = None,
        need_weights: bool = False,
        num_queries: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Run the block.

        Args:
            states: [B, S, W].
            mask: additive, [B, 1, 1 or S, S].
            need_weights: also return the attention.
            num_queries: update only this number of first rows, with the same numbers.

        Returns:
            New states [B, S or num_queries, W]; on request attention [B, H, S or num_queries, S].
        """
        read = self.attention_norm(states) if self.norm_first else states
        update, weights = self.attention(read, mask, num_queries, need_weights)
        states = states if num_queries is None else states[:, :num_queries]
        if not self.norm_first:
            return self.close(states, update), weights
        states = states + self._drop(update)
        return states + self._drop(self.mlp(self.mlp_norm(states))), weights

    def close(self, states: Tensor, update: Tensor) -> Tensor:
        """Finish a post-norm block after attention: Add & Norm of its output, then the feed-forward part.

        Args:
            states: [B, Q, W] rows of the block's input that are updated.
            update: [B, Q, W] output of attention for them.
        """
        states = self.attention_norm(states + self._drop(update))
        return self.mlp_norm(states + self._drop(self.mlp(states)))


class CrossBlock(ResidualBlock):
    """Post-norm co-attention block: self-attention, cross-attention, feed-forward (METER).

    Where it is given no other sequence, cross-attention with its norm is left out, and the numbers are those
    of `Block`.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        inner: int,
        *,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        epsilon: float = 1e-12,
        std: float = 0.02,
    ) -> None:
        super().__init__(dropout)
        self.attention = SelfAttention(width, num_heads, attention_dropout, std)
        self.attention_norm = LayerNorm(width, epsilon)
        self.cross_attention = CrossAttention(width, num_heads, attention_dropout, std)
        self.cross_norm = LayerNorm(width, epsilon)
        self.mlp = Mlp(width, inner, "gelu", std)
        self.mlp_norm = LayerNorm(width, epsilon)

    def forward(
        self,
        states: Tensor,
        other: Tensor | None,
        mask: Tensor | None = None,
        other_mask: Tensor | None = None,
        num_queries: int | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Run one layer of one stream.

        Args:
            states: [B, S, W] this stream.
            other: [B, R, W] the other stream at the layer's input; None leaves cross-attention out.
            mask: additive mask of this stream, [B, 1, 1, S].
            other_mask: additive mask of the other, [B, 1, 1, R].
            num_queries: update only this number of first rows, with the same numbers.
            need_weights: also return both attentions.

        Returns:
            New states [B, S or num_queries, W]; on request self-attention [B, H, S or num_queries, S] and
            cross-attention [B, H, S or num_queries, R].
        """
        update, own = self.attention(states, mask, num_queries, need_weights)
        residual = states if num_queries is None else states[:, :num_queries]
        states = self.attention_norm(residual + self._drop(update))
        cross = None
        if other is not None:
            update, cross = self.cross_attention(states, other, other_mask, need_weights)
            states = self.cross_norm(states + self._drop(update))
        return self.mlp_norm(states + self._drop(self.mlp(states))), own, cross


def run_block(block: ResidualBlock, *arguments: Any) -> tuple[Tensor | None, ...]:
    """Call a block; if `block.recompute` is set, its activations are computed again in the backward pass.

    Args:
        block: any block of this module.
        arguments: those of its `forward`, by position (Paddle's `recompute` passes no names).
    """
    if not (block.recompute and block.training and paddle.is_grad_enabled()):
        return block(*arguments)
    is_tensor: list[bool] = []

    def tensors(*inputs: Any) -> tuple[Tensor, ...]:
        outputs = block(*inputs)
        is_tensor[:] = [output is not None for output in outputs]
        return tuple(output for output in outputs if output is not None)

    # Paddle's backward pass counts outputs and gradients, and there is no gradient of a None.
    results = iter(recompute(tensors, *arguments))
    return tuple(next(results) if present else None for present in is_tensor)


def run_blocks(
    blocks: Sequence[Block],
    embedded: Tensor,
    mask: Tensor | None,
    need_weights: bool = False,
    name: str = "",
    num_queries: int | None = None,
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Run the blocks of a tower one after the other.

    Args:
        embedded: [B, S, W].
        mask: [B, 1, 1 or S, S], added to the logits.
        name: beginning of their names, `{name}.{layer}`, layers from 1.
        num_queries: number of first rows that the last block computes; None means all.

    Returns:
        L + 1 states, `embedded` first, and on request attentions [B, H, S, S].
    """
    states, attentions = [embedded], {}
    for number, block in enumerate(blocks, start=1):
        wanted = num_queries if number == len(blocks) else None
        new, weights = run_block(block, states[-1], mask, need_weights, wanted)
        states.append(new)
        if need_weights:
            attentions[f"{name}.{number}"] = weights
    return states, attentions


def set_recompute(layer: nn.Layer, on: bool) -> None:
    """Switch recomputation of every transformer block inside `layer`."""
    for child in layer.sublayers(include_self=True):
        if isinstance(child, ResidualBlock):
            child.recompute = on
