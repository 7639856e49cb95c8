"""The end of a process in the middle of a step, for tests that resume in the same process."""

from __future__ import annotations

from unimo.training import callbacks
from unimo.training.state import StepReport, TrainState


class KilledError(Exception):
    """Stands for the end of a process."""


class DieAt(callbacks.Callback):
    """Raises in the middle of a step, when its metrics are not read yet."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, state: TrainState, report: StepReport) -> None:
        if state.step == self.step:
            raise KilledError
