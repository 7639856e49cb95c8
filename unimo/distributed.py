"""Set-up of Fleet, and the few collectives that evaluation and logging need.

All of them also work in a single process, where those of Paddle would raise.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Callable
from typing import TypeVar

import paddle
import paddle.distributed as dist
from paddle import Tensor
from paddle.distributed import fleet
from paddle.distributed.communication.group import Group

from unimo.errors import DeviceError
from unimo.metrics.average import gather_objects
from unimo.settings import TrainConfig

T = TypeVar("T")
_is_ready = False
_hosts: Group | None = None
"""All ranks over gloo; None between CPUs, where the group of all ranks is that."""
_ADDRESS_OF_INTERFACE = 0x8915  # SIOCGIFADDR of Linux
gather = gather_objects


def rank() -> int:
    """Return the number of this process; 0 for a single process."""
    return dist.get_rank() if world_size() > 1 else 0


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size()


def is_on_gpu() -> bool:
    """Return whether tensors live on a GPU."""
    return paddle.device.get_device().startswith("gpu")


def setup(train: TrainConfig) -> None:
    """Choose the device and, when `paddle.distributed.launch` started several ranks, start Fleet.

    Gloo carries the messages between CPU ranks, nccl those between GPUs, beside a group over gloo for answers
    of processes, see `any_over_ranks`.

    Raises:
        DeviceError: there is no GPU but the config asks for one, or the sharding stage cannot run here.
    """
    global _is_ready, _hosts
    has_gpu = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    if train.device == "gpu" and not has_gpu:
        raise DeviceError(
            "train.device=gpu, but this Paddle sees no GPU; try train.device=cpu, or install the GPU build"
        )
    if train.device == "cpu" or not has_gpu:
        os.environ.setdefault("PADDLE_DISTRI_BACKEND", "gloo")
        paddle.set_device("cpu")
    ranks = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
    check_sharding(train.sharding_stage, ranks)
    if ranks > 1 and not _is_ready:
        strategy = fleet.DistributedStrategy()
        degrees = {"dp_degree": ranks, "mp_degree": 1, "pp_degree": 1, "sharding_degree": 1}
        if train.sharding_stage == 1:
            degrees.update(dp_degree=1, sharding_degree=ranks)
        strategy.hybrid_configs = degrees
        # Every trainable parameter takes part in the loss of its task (tests/unit/tasks/test_task_losses.py).
        strategy.find_unused_parameters = False
        fleet.init(is_collective=True, strategy=strategy, log_level="WARNING")
        if is_on_gpu():
            name = interface_of(os.environ.get("PADDLE_CURRENT_ENDPOINT", "").rpartition(":")[0])
            if name:  # gloo would take that of the host's name, which may be the loopback
                os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            _hosts = dist.new_group(backend="gloo")
        _is_ready = True


def interface_of(address: str) -> str:
    """Return the network interface of this machine that has an IPv4 address; empty if none has."""
    for _, name in socket.if_nameindex():
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            answer = fcntl.ioctl(probe, _ADDRESS_OF_INTERFACE, name.encode().ljust(256, b"\0"))
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return ""


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


def mean_over_ranks(values: Tensor) -> Tensor:
    """Return the mean of a tensor over all ranks. Collective."""
    if world_size() == 1:
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values / world_size()


def any_over_ranks(flag: bool) -> bool:
    """Return whether the flag is set on any rank. Collective.

    Ranks ask this between the rounds of a step, so it waits for processes, and never for what their devices
    still have to compute: the message goes over gloo, between GPUs in a group of its own.
    """
    if world_size() == 1:
        return flag
    answer = paddle.to_tensor([int(flag)], place=paddle.CPUPlace())
    dist.all_reduce(answer, op=dist.ReduceOp.MAX, group=_hosts)
    return bool(answer.item())


def on_first(compute: Callable[[], T]) -> T:
    """Return on all ranks what rank 0 alone computes; it can be pickled. Collective."""
    return gather(compute() if rank() == 0 else None)[0]


def barrier() -> None:
    """Wait until all ranks have come here. Collective."""
    if world_size() > 1:
        dist.barrier()
