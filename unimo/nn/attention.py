"""The one attention of the library: self and cross, fused projections, probabilities on request; its masks.

Everywhere in the library a mask has 1 = token and 0 = padding.

On a CPU, matmul + softmax on [B, H, S, D] was measured to be as fast as Paddle's
`scaled_dot_product_attention`, which there is the same arithmetic behind more calls. On GPUs that
function picks flash or memory-efficient kernels and is used whenever probabilities are not wanted.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from unimo.nn.init import constant_attr, linear
from unimo.nn.kernels import add_bias, add_mask, dropout

BLOCKED = -1e4
"""Added to the logits of keys that must not be read: exp() of it is 0 in fp32, and fp16 can hold it."""


def additive_mask(mask: Tensor | None) -> Tensor | None:
    """Turn a key mask [B, S] into one [B, 1, 1, S] that is added to attention logits [B, H, Q, S].

    None (everything may be read) stays None, which saves the addition.
    """
    if mask is None:
        return None
    return ((1.0 - mask.astype("float32")) * BLOCKED).unsqueeze([1, 2])


def outer_mask(mask: Tensor) -> Tensor:
    """Return the additive mask [B, 1, S, S] of UNIMO's releases, the outer product of a mask [B, S].

    Tokens read tokens. A row of padding is blocked everywhere, and as its softmax does not see what all of
    its logits share, it reads all rows, padding included, as if there were no mask.
    """
    real = mask.astype("float32")
    return ((1.0 - real.unsqueeze(2) * real.unsqueeze(1)) * BLOCKED).unsqueeze(1)


def causal_mask(length: int, source: int = 0) -> Tensor:
    """Return an additive mask [1, 1, T, T] in which no token reads a later one.

    The first `source` tokens are not generated: they read each other, and all others read them.
    """
    later = paddle.triu(paddle.ones([length, length]), 1)
    if source:
        later = later * (paddle.arange(length) >= source).astype("float32")
    return (later * BLOCKED).unsqueeze([0, 1])


def use_fused_kernel() -> bool:
    """Return whether `scaled_dot_product_attention` is more than matmul + softmax on this device."""
    return not paddle.get_device().startswith("cpu")


class _MultiHead(nn.Layer):
    """Heads, dropout and output projection that self- and cross-attention share."""

    def __init__(self, width: int, num_heads: int, dropout: float, out_std: float) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width {width} does not divide into {num_heads} heads")
        self.num_heads = num_heads
        self.scale = (width // num_heads) ** -0.5
        self.dropout = dropout
        self.out = linear(width, width, out_std)

    def _split(self, packed: Tensor, parts: int, heads_first: bool) -> list[Tensor]:
        """Split [B, S, parts * W] into `parts` tensors [B, H, S, D] or, heads last, [B, S, H, D]."""
        packed = packed.reshape([0, 0, parts, self.num_heads, -1])
        order = [2, 0, 3, 1, 4] if heads_first else [2, 0, 1, 3, 4]
        return packed.transpose(order).unbind(0)

    def mix(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, heads_first: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Compute the weighted values of all heads, before the output projection `out`.

        Args:
            query: [B, H, Q, D], or [B, Q, H, D] with heads last.
            key, value: the same with S rows instead of Q.
            mask: [B, 1, 1 or Q, S], added to the logits.
            heads_first: which of the two layouts it is. Heads last goes to Paddle's fused kernel.

        Returns:
            [B, Q, W]; with heads first also the probabilities [B, H, Q, S] before dropout.
        """
        if not heads_first:
            rate = self.dropout if self.training else 0.0
            mixed = F.scaled_dot_product_attention(query, key, value, mask, rate, training=self.training)
            return mixed.reshape([0, 0, -1]), None
        logits = paddle.matmul(query * self.scale, key, transpose_y=True)
        weights = F.softmax(logits if mask is None else add_mask(logits, mask))
        dropped = dropout(weights, self.dropout, self.training)
        mixed = paddle.matmul(dropped, value).transpose([0, 2, 1, 3])
        return mixed.reshape([0, 0, -1]), weights


class SelfAttention(_MultiHead):
    """Self-attention with one product for queries, keys and values.

    `qkv.weight` is [W, 3 W]: columns of queries, then keys, then values.

    Args:
        key_bias: give keys a bias. BEiT and VLMo have none (`q_bias` and `v_bias` [W] stand for themselves):
            what it adds to the logits is the same for all keys of a query, and softmax does not see it.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        dropout: float = 0.0,
        std: float = 0.02,
        out_std: float | None = None,
        key_bias: bool = True,
    ) -> None:
        super().__init__(width, num_heads, dropout, std if out_std is None else out_std)
        self.qkv = linear(width, 3 * width, std, bias=key_bias)
        zero = constant_attr(0.0)
        self.q_bias = None if key_bias else self.create_parameter([width], attr=zero)
        self.v_bias = None if key_bias else self.create_parameter([width], attr=zero)

    def project(self, states: Tensor, heads_first: bool) -> list[Tensor]:
        """Project `states` [B, S, W] to queries, keys, values, [B, H, S, D] or, heads last, [B, S, H, D]."""
        packed = self.qkv(states)
        if self.q_bias is not None:
            packed = add_bias(
                packed, paddle.concat([self.q_bias, paddle.zeros_like(self.q_bias), self.v_bias])
            )
        return self._split(packed, 3, heads_first)

    def forward(
        self,
        states: Tensor,
        mask: Tensor | None = None,
        num_queries: int | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend over `states` [B, S, W].

        Args:
            states: the rows that attend to each other.
            mask: [B, 1, 1 or Q, S], added to the logits; None lets everything be read.
            num_queries: Q, number of first rows that are updated; None means all.
            need_weights: also return the probabilities [B, H, Q, S].
        """
        heads_first = need_weights or not use_fused_kernel()
        query, key, value = self.project(states, heads_first)
        if num_queries is not None:
            query = query[:, :, :num_queries] if heads_first else query[:, :num_queries]
        mixed, weights = self.mix(query, key, value, mask, heads_first)
        return self.out(mixed), weights


class CrossAttention(_MultiHead):
    """Attention from one sequence to another; keys and values come from one product (`kv`, [W, 2 W])."""

    def __init__(self, width: int, num_heads: int, dropout: float = 0.0, std: float = 0.02) -> None:
        super().__init__(width, num_heads, dropout, std)
        self.q = linear(width, width, std)
        self.kv = linear(width, 2 * width, std)

    def forward(
        self, states: Tensor, other: Tensor, mask: Tensor | None = None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from `states` [B, Q, W], the queries, to `other` [B, S, W], the keys and values.

        Args:
            states, other: the two sequences.
            mask: [B, 1, 1 or Q, S], added to the logits; None lets everything be read.
            need_weights: also return the probabilities [B, H, Q, S].
        """
        heads_first = need_weights or not use_fused_kernel()
        (query,) = self._split(self.q(states), 1, heads_first)
        key, value = self._split(self.kv(other), 2, heads_first)
        mixed, weights = self.mix(query, key, value, mask, heads_first)
        return self.out(mixed), weights
