"""Means over the global batch, independent of how the ranks share it."""

from __future__ import annotations

import paddle
import paddle.distributed as dist
from paddle import Tensor


@paddle.no_grad()
def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the share of this rank's labels [N] that have the largest logit of their row of [N, C]."""
    return (logits.argmax(axis=1) == labels).astype("float32").mean()


def global_mean(values_sum: Tensor, count: Tensor | int | float) -> Tensor:
    """Scale a rank's sum so that the average over ranks, and of its gradient, is the mean over all values.

    That is sum * ranks / (count summed over ranks): data parallelism, which averages losses, then equals one
    big batch even when ranks hold different numbers of values. 0 when no rank has any. Collective.

    Args:
        values_sum: scalar, sum of this rank's values.
        count: number of this rank's values; no gradient flows through it.
    """
    total = count if isinstance(count, Tensor) else paddle.to_tensor(count)
    total = total.detach().astype("float32").clone()
    ranks = dist.get_world_size()
    if ranks > 1:
        dist.all_reduce(total)
    return values_sum * (ranks / paddle.clip(total, min=1.0))
