"""Attention masks. Everywhere in the library a mask has 1 = token and 0 = padding."""

from __future__ import annotations

import paddle
from paddle import Tensor

BLOCKED = -1e4
"""Added to the logits of keys that must not be read: exp() of it is 0 in fp32, and fp16 can hold it."""


def additive_mask(mask: Tensor | None) -> Tensor | None:
    """Turn a key mask [B, S] into one [B, 1, 1, S] that is added to attention logits [B, H, Q, S].

    None (everything may be read) stays None, which saves the addition.
    """
    if mask is None:
        return None
    return ((1.0 - mask.astype("float32")) * BLOCKED).unsqueeze([1, 2])


def causal_mask(length: int) -> Tensor:
    """Return an additive mask [1, 1, T, T] in which no token reads a later one."""
    return (paddle.triu(paddle.ones([length, length]), 1) * BLOCKED).unsqueeze([0, 1])
