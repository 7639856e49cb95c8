"""Set-up of Fleet, and the few collectives that evaluation and logging need.

All of them also work in a single process, where those of Paddle would raise.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import paddle
import paddle.distributed as dist
from paddle import Tensor
from paddle.distributed import collective, fleet

from unimo import signals
from unimo.errors import DeviceError
from unimo.metrics.average import gather_objects
from unimo.settings import TrainConfig

T = TypeVar("T")
_is_ready = False
_FLAG = 1 << 32
_meetings, _totals = 0, Counter[str]()
_asker: ThreadPoolExecutor | None = None
"""Thread that talks to the store."""


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

    Gloo carries the messages between CPU ranks, nccl those between GPUs.

    Raises:
        DeviceError: there is no GPU but the config asks for one, or the sharding stage cannot run here.
    """
    global _is_ready
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
        send_at_once()
        _is_ready = True


def send_at_once() -> None:
    """Let all TCP connections of this process send small messages at once (TCP_NODELAY).

    Paddle's store sends a request in pieces, the second of which would wait 40 ms for the other side: 45 ms
    for an answer instead of 0.02.
    """
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


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

    Ranks ask this between the rounds of a step. The answer comes from the store of the process group, through
    which the processes of all ranks meet: none waits for what its device still has to compute, and none gives
    up on a rank that reads or saves for minutes, as gloo does after 30 s.
    """
    global _asker
    if world_size() == 1:
        return flag
    if _asker is None:
        # A signal would break a message of the store off in the middle; this thread gets none.
        block = (signal.SIG_BLOCK, [signal.Signals[name] for name in signals.NAMES])
        _asker = ThreadPoolExecutor(1, "ranks", initializer=signal.pthread_sigmask, initargs=block)
    return _asker.submit(_meet, flag).result()


def _meet(flag: bool) -> bool:
    """Come to the next meeting of all ranks.

    Arrivals count in the lower half of a key, flags in the upper half. No rank comes to the meeting after the
    next before all have left this one, so two keys are enough, in turn.
    """
    global _meetings
    store, key = collective._default_store, f"unimo/meeting/{_meetings % 2}"
    before, total = _totals[key], store.add(key, 1 + flag * _FLAG)
    pause = 1e-4
    while (total - before) % _FLAG < world_size():
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
        total = store.add(key, 0)
    _meetings, _totals[key] = _meetings + 1, total
    return total - before >= _FLAG


def barrier() -> None:
    """Wait until the processes of all ranks have come here. Collective."""
    any_over_ranks(False)


def gather(value: T) -> list[T]:
    """Return the values of all ranks, in their order; they can be pickled. Collective."""
    barrier()
    return gather_objects(value)


def on_first(compute: Callable[[], T]) -> T:
    """Return on all ranks what rank 0 alone computes; it can be pickled. Collective."""
    return gather(compute() if rank() == 0 else None)[0]
