"""What deep Transformers do to a branch before it is added to the states: scale it, or drop it whole."""

from __future__ import annotations

import paddle
from paddle import Tensor

from unimo.nn.kernels import dropout


def drop_path(update: Tensor, probability: float, training: bool) -> Tensor:
    """Zero the update [B, S, W] of a whole sample with `probability`, and scale the others to keep the mean.

    Stochastic depth (Huang et al., 2016): such a sample skips this branch of the block.
    """
    if not training or not probability:
        return update
    return update * dropout(paddle.ones([update.shape[0], 1, 1], update.dtype), probability, training)


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Return the rates of the blocks, bottom first: they rise linearly from 0 to `rate` (BEiT, VLMo)."""
    return [rate * layer / max(1, depth - 1) for layer in range(depth)]
