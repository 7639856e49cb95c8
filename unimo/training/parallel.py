"""Data parallelism and sharding around a model and its optimizer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import paddle
from paddle import nn
from paddle.distributed import fleet
from paddle.distributed.fleet.utils.hybrid_parallel_util import fused_allreduce_gradients

from unimo.distributed import world_size

_SHARDING_LEVELS = {2: "os_g", 3: "p_g_os"}


def wrap(layer: nn.Layer, optimizer: Any, stage: int) -> tuple[nn.Layer, Any]:
    """Wrap a layer and its optimizer to work over all ranks; all ranks get the parameters of rank 0.

    DataParallel averages gradients over ranks during the last backward pass of a step, sharding does so in
    `optimizer.step()`.
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
    """Return the context of a micro-batch: DataParallel averages gradients in the last one of a step only.

    With recomputation it never does: it would take an inner backward pass for the last one and start early.
    """
    if isinstance(layer, paddle.DataParallel) and (recompute or not is_last):
        with layer.no_sync():
            yield
    else:
        yield


def average_gradients(layer: nn.Layer, recompute: bool) -> None:
    """Average gradients over ranks once per step if `backward_pass` has kept DataParallel from doing so."""
    if isinstance(layer, paddle.DataParallel) and recompute:
        fused_allreduce_gradients(list(layer.parameters()), None)
