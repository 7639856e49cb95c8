"""Learning rate, speed and memory beside the metrics of a log line."""

from __future__ import annotations

from unimo.training.memory import memory
from unimo.training.optimizer import learning_rate
from unimo.training.state import Callback, StepReport, TrainState


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
