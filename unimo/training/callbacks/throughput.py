"""Learning rate, speed and memory beside the metrics of a log line."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import paddle

from unimo import distributed
from unimo.training.optimizer import learning_rate
from unimo.training.state import Callback, StepReport, TrainState

_MB = 1 << 20


class Throughput(Callback):
    """Adds `lr`, `samples_per_second` over all ranks, `step_seconds`, `data_wait` (share of the time spent
    waiting for batches), `memory_mb` and `peak_memory_mb` of this process.

    Memory is the resident set on a CPU and the memory that Paddle has allocated on a GPU.
    """

    def __init__(self) -> None:
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0
        self.total_steps, self.total_seconds = 0, 0.0

    def on_step_end(self, state: TrainState, report: StepReport) -> None:
        self._steps += 1
        self._seconds += report.seconds
        self._waited += report.data_seconds

    def on_log(self, state: TrainState, values: dict[str, float]) -> None:
        """Add the entries; times of evaluation and saving are not included."""
        run = state.run
        values["lr"] = learning_rate(state.step - 1, run.train.max_steps, run.optim)
        if self._steps and self._seconds > 0:
            values["samples_per_second"] = run.train.batch_size * self._steps / self._seconds
            values["step_seconds"] = self._seconds / self._steps
            values["data_wait"] = self._waited / self._seconds
        values["memory_mb"], values["peak_memory_mb"] = memory()
        self.total_steps += self._steps
        self.total_seconds += self._seconds
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0


def memory() -> tuple[float, float]:
    """Return the memory in use and its peak, in MB (2^20 bytes)."""
    if distributed.is_on_gpu():
        cuda = paddle.device.cuda
        return cuda.memory_allocated() / _MB, cuda.max_memory_allocated() / _MB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_mb = peak / _MB if sys.platform == "darwin" else peak / 1024
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux: the peak is all there is
        return peak_mb, peak_mb
    now_mb = pages * resource.getpagesize() / _MB
    return now_mb, max(peak_mb, now_mb)
