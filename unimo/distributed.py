"""Ranks: Fleet set-up, and the few collectives that evaluation and logging need.

Everything here also works in one process, where collectives of Paddle would raise.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import paddle
import paddle.distributed as dist
from paddle import Tensor
from paddle.distributed import fleet

from unimo.errors import DeviceError
from unimo.metrics.average import gather_objects
from unimo.settings import TrainConfig

logger = logging.getLogger(__name__)
_is_ready = False


def rank() -> int:
    """Number of this process, 0 when alone."""
    return dist.get_rank() if world_size() > 1 else 0


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size()


def is_on_gpu() -> bool:
    """Whether tensors live on a GPU."""
    return paddle.device.get_device().startswith("gpu")


def setup(train: TrainConfig) -> None:
    """Choose the device and, when `paddle.distributed.launch` started several ranks, start Fleet.

    Gloo carries the messages between CPU ranks, nccl those between GPUs.

    Raises:
        DeviceError: a GPU is asked for and absent, or the sharding stage cannot run here.
    """
    global _is_ready
    if train.device == "gpu" and not _has_gpu():
        raise DeviceError(
            "train.device=gpu, but this Paddle sees no GPU; try train.device=cpu, or install the GPU build"
        )
    if train.device == "cpu" or not _has_gpu():
        os.environ.setdefault("PADDLE_DISTRI_BACKEND", "gloo")
        paddle.set_device("cpu")
    ranks = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
    check_sharding(train.sharding_stage, ranks)
    if ranks > 1 and not _is_ready:
        fleet.init(is_collective=True, strategy=_strategy(train.sharding_stage, ranks), log_level="WARNING")
        _is_ready = True


def _has_gpu() -> bool:
    return paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0


def check_sharding(stage: int, ranks: int) -> None:
    """Check that a sharding stage can run on this device with that many ranks.

    Raises:
        DeviceError: one rank, or stages 2 and 3 on a CPU.
    """
    if stage and ranks < 2:
        raise DeviceError(
            f"train.sharding_stage={stage} shares state among ranks, and there is one; "
            "start more (NPROC_PER_NODE=2) or set train.sharding_stage=0"
        )
    if stage >= 2 and not is_on_gpu():
        raise DeviceError(
            f"train.sharding_stage={stage}: Paddle's group_sharded_parallel runs on gpu, xpu and custom "
            "devices only and refuses a CPU; try train.sharding_stage=1, which runs here"
        )


def _strategy(stage: int, ranks: int) -> fleet.DistributedStrategy:
    strategy = fleet.DistributedStrategy()
    degrees = {"dp_degree": ranks, "mp_degree": 1, "pp_degree": 1, "sharding_degree": 1}
    if stage == 1:
        degrees.update(dp_degree=1, sharding_degree=ranks)
    strategy.hybrid_configs = degrees
    # Every parameter of a task takes part in its loss; tests/test_every_model.py keeps it so.
    strategy.find_unused_parameters = False
    return strategy


def mean_over_ranks(values: Tensor) -> Tensor:
    """Mean of a tensor over all ranks; every rank must call it."""
    if world_size() == 1:
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values / world_size()


def any_over_ranks(flag: bool) -> bool:
    """Whether the flag is set on any rank; every rank must call it."""
    if world_size() == 1:
        return flag
    answer = paddle.to_tensor([int(flag)])
    dist.all_reduce(answer, op=dist.ReduceOp.MAX)
    return bool(answer.item())


def gather(value: Any) -> list[Any]:
    """The picklable `value` of every rank, in rank order; every rank must call it."""
    return gather_objects(value)


def barrier() -> None:
    """Wait for all ranks."""
    if world_size() > 1:
        dist.barrier()
