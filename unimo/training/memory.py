"""Memory: what this process holds, and a forecast of the most that a run will hold."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import paddle

from unimo import distributed
from unimo.training import probe
from unimo.training.state import TrainState

MB = 2**20
_SHARDED_FROM = {"optimizer": 1, "gradients": 2, "parameters": 3}
"""Part of the memory -> first stage of sharding that divides it among ranks."""
_HEAP = 0.15
"""Freed memory that lies in pieces between tensors, as a share of those: 0.12 to 0.31 in base models."""
_THREAD = 72 * MB
"""Address space of a thread: its stack, and the heap that the C library keeps for it."""
_GROUP = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
_OF_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def process_memory(field: Literal["VmHWM", "VmRSS", "VmSize"]) -> int:
    """Return the largest (VmHWM) or the present (VmRSS) resident size of this process, or its address space
    (VmSize), in bytes.

    On systems that lack the field it is the largest resident size so far.
    """
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory() -> tuple[float, float]:
    """Return the memory in use and its peak, in MB (2^20 bytes): that of this process on a CPU, that which
    Paddle has allocated on a GPU."""
    if distributed.is_on_gpu():
        cuda = paddle.device.cuda
        return cuda.memory_allocated() / MB, cuda.max_memory_allocated() / MB
    now, peak = process_memory("VmRSS"), process_memory("VmHWM")
    return now / MB, max(now, peak) / MB


@dataclass(frozen=True)
class MemoryForecast:
    """The most memory that one rank will hold, by its parts, in bytes: of the device on a GPU, else of the
    process."""

    process: int
    """Interpreter, Paddle and data; 0 on a GPU."""
    parameters: int
    """With sharding stage 3, this rank's part."""
    gradients: int
    """With sharding stages 2 and 3, this rank's part; frozen parameters have none."""
    optimizer: int
    """Moments of AdamW, and float32 copies of narrower parameters; with sharding, this rank's part."""
    activations: int
    """Tensors of the forward and backward pass of one micro-batch."""
    micro_batch: int
    """Samples of the micro-batch that `activations` was measured with."""
    constant: int
    """Part of `activations` that does not grow with the micro-batch."""
    comparison: int
    """Contrastive losses over all rounds of a step, from their vectors; 0 without such losses."""
    evaluation: int
    """Forward pass of a batch of evaluation."""
    saving: int
    """Copies that a checkpoint is written from; 0 on a GPU, from which they go to the host."""
    sample: int
    """Arrays of one sample in a batch that waits; 0 on a GPU, where they wait on the host."""
    share: int
    """Samples of one rank in a step."""
    ahead: int
    """Batches read ahead, `data.prefetch`."""
    waste: float = 0.0
    """Overhead of the heap, as a share of all but `process`."""

    def activations_of(self, micro_batch: int) -> int:
        """Return the memory of the forward and backward pass of a micro-batch of another size."""
        growing = self.activations - self.constant
        return self.constant + -(-growing * micro_batch // self.micro_batch)

    def batches(self, micro_batch: int) -> int:
        """Return the memory of batches that wait: those of one step, and those read ahead meanwhile."""
        rounds = -(-self.share // micro_batch)
        return (self.share + (max(self.ahead, rounds) + 1) * micro_batch) * self.sample

    def of_step(self, micro_batch: int) -> int:
        """Return the peak of a training step with micro-batches of `micro_batch` samples."""
        comparison = self.comparison if micro_batch < self.share else 0
        return self._whole(micro_batch, max(self.activations_of(micro_batch), comparison))

    def at(self, micro_batch: int) -> int:
        """Return the peak of the whole run, evaluation and saving included."""
        besides = self._whole(micro_batch, max(self.evaluation, self.saving))
        return max(self.of_step(micro_batch), besides)

    def _whole(self, micro_batch: int, passing: int) -> int:
        held = self.parameters + self.gradients + self.optimizer + self.batches(micro_batch)
        return self.process + round((1 + self.waste) * (held + passing))


def forecast(state: TrainState) -> MemoryForecast | None:
    """Forecast the memory of a run by counting, and by a probe that leaves no trace.

    Returns:
        None if the first samples are all broken.

    Raises:
        MemoryError: not even one sample fits.
    """
    train, ranks = state.run.train, distributed.world_size()
    owners = {part: ranks if train.sharding_stage >= first else 1 for part, first in _SHARDED_FROM.items()}
    learned = [parameter for parameter in state.task.parameters() if not parameter.stop_gradient]
    parameters = probe.size_of(state.task.parameters())
    moments = 8 * sum(parameter.size for parameter in learned)
    copies = 4 * sum(parameter.size for parameter in learned if parameter.dtype != paddle.float32)
    optimizer = (moments + copies) // owners["optimizer"]
    on_host = not distributed.is_on_gpu()
    # Before the probe, which leaves memory with the C library.
    process = max(0, process_memory("VmRSS") - probe.allocated()) if on_host else 0
    found = probe.measure(state)
    if found is None:
        return None
    return MemoryForecast(
        process=process,
        parameters=parameters // owners["parameters"],
        gradients=probe.size_of(learned) // owners["gradients"],
        optimizer=optimizer,
        activations=found.activations,
        micro_batch=found.micro_batch,
        constant=found.constant,
        comparison=found.comparison,
        evaluation=found.evaluation,
        saving=max(parameters, optimizer) if on_host else 0,
        sample=found.sample if on_host else 0,
        share=train.batch_size // ranks,
        ahead=state.loader.prefetch,
        waste=_HEAP if on_host else 0.0,
    )


def available(threads: int = 0) -> int | None:
    """Return the bytes of the host that this process may take in addition, None if nothing says so.

    That is the smallest of what is free, shared by the ranks of this machine, what the control group of a
    container or job allows, and what a limit on the address space leaves.

    Args:
        threads: those that will be started, each of which takes address space.
    """
    named = os.environ.get("PADDLE_LOCAL_SIZE", "1")
    local_ranks = max(1, int(named)) if named.isdecimal() else 1
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    found = [size // local_ranks for size in (_free(), _left_to_group()) if size is not None]
    if limit != resource.RLIM_INFINITY:
        found.append(limit - process_memory("VmSize") - threads * _THREAD)
    return max(0, min(found)) if found else None


def _free() -> int | None:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    return None


def _left_to_group() -> int | None:
    """Return what the control group of this process leaves, in version 2 or 1; files may be dropped."""
    with contextlib.suppress(OSError):
        for line in _OWN_GROUPS.read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds not in ("", "memory"):
                continue
            names = ("memory.max", "memory.current") if not kinds else _OF_VERSION_1
            # Inside a container its own group is the root of what it sees.
            for folder in (_GROUP / kinds / path.lstrip("/"), _GROUP / kinds):
                with contextlib.suppress(OSError, ValueError):
                    most, used = (int((folder / name).read_text()) for name in names)
                    stat = dict(row.split() for row in (folder / "memory.stat").read_text().splitlines())
                    files = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
                    return most - used + files
    return None
