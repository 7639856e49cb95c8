"""Means over the global batch, whatever the ranks hold."""

from __future__ import annotations

import paddle
import paddle.distributed as dist
from paddle import Tensor


def world_size() -> int:
    """Ranks of this run; 1 without a launcher."""
    return dist.get_world_size()


def global_mean(values_sum: Tensor, count: Tensor | int | float) -> Tensor:
    """A loss whose average over ranks, and whose averaged gradient, is the mean over all ranks' values.

    That is sum * ranks / (count summed over ranks), so data parallelism equals one big batch even when
    ranks hold different counts. No values on any rank give 0.

    Args:
        values_sum: scalar, sum of this rank's values.
        count: how many values this rank has; no gradient flows through it.
    """
    total = count if isinstance(count, Tensor) else paddle.to_tensor(count)
    total = total.detach().astype("float32").clone()
    ranks = world_size()
    if ranks > 1:
        dist.all_reduce(total)
    return values_sum * (ranks / paddle.clip(total, min=1.0))
