"""What data parallelism and sharding wrap around a model and its optimizer."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import paddle
from paddle import nn
from paddle.distributed import fleet
from paddle.distributed.fleet.utils.hybrid_parallel_util import fused_allreduce_gradients

from unimo.distributed import world_size

logger = logging.getLogger(__name__)
_SHARDING_LEVELS = {2: "os_g", 3: "p_g_os"}


def wrap(layer: nn.Layer, optimizer: Any, stage: int) -> tuple[nn.Layer, Any]:
    """Make a layer and its optimizer work over all ranks; rank 0's parameters go to all.

    Gradients are averaged over ranks: by DataParallel during the last backward pass of a step, with
    sharding in `optimizer.step()`.
    """
    if world_size() == 1:
        return layer, optimizer
    if stage >= 2:
        from paddle.distributed.sharding import group_sharded_parallel

        wrapped, optimizer, _ = group_sharded_parallel(layer, optimizer, _SHARDING_LEVELS[stage])
        return wrapped, optimizer
    return fleet.distributed_model(layer), fleet.distributed_optimizer(optimizer)


@contextlib.contextmanager
def backward_pass(layer: nn.Layer, is_last: bool, recompute: bool) -> Iterator[None]:
    """Context of a micro-batch: data parallelism averages gradients in the last backward pass of a step.

    With recomputation it must not: DataParallel sees the inner backward passes and would start too early.
    """
    if isinstance(layer, paddle.DataParallel) and (recompute or not is_last):
        with layer.no_sync():
            yield
    else:
        yield


def average_gradients(layer: nn.Layer, recompute: bool) -> None:
    """What `backward_pass` left undone: the average over ranks, once for a step."""
    if isinstance(layer, paddle.DataParallel) and recompute:
        fused_allreduce_gradients(list(layer.parameters()), None)
