"""Means over the global batch, independent of how the ranks share it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import paddle
import paddle.distributed as dist
from paddle import Tensor

_is_alone = False


def ranks() -> int:
    """Return the number of ranks whose samples are one batch; 1 inside `alone`."""
    return 1 if _is_alone else dist.get_world_size()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Let losses inside a `with` block be those of this rank's batch: no other rank is asked for anything."""
    global _is_alone
    before, _is_alone = _is_alone, True
    try:
        yield
    finally:
        _is_alone = before


@paddle.no_grad()
def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the share of this rank's labels [N] that have the largest logit of their row of [N, C]."""
    return (logits.argmax(axis=1) == labels).astype("float32").mean()


def global_mean(values_sum: Tensor, count: Tensor | int | float) -> Tensor:
    """Scale the sum of a rank's `count` values, so that averages over ranks, also of gradients, are means.

    That is sum * ranks / (count summed over ranks): data parallelism, which averages losses, then equals one
    big batch even when ranks hold different numbers of values. 0 when no rank has any. No gradient
    flows through the count. Collective.
    """
    total = count if isinstance(count, Tensor) else paddle.to_tensor(count)
    total = total.detach().astype("float32").clone()
    count_of_ranks = ranks()
    if count_of_ranks > 1:
        dist.all_reduce(total)
    return values_sum * (count_of_ranks / paddle.clip(total, min=1.0))
