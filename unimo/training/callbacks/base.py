"""The hooks of a run. A callback overrides those it needs; all are called on every rank."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unimo.training.state import StepReport, TrainState


class Callback:
    """Base of all callbacks, which are called in the order of `state.callbacks`."""

    def on_start(self, state: TrainState) -> None:
        """Before the first step; `state.step` is above 0 in a resumed run."""

    def on_step_end(self, state: TrainState, report: StepReport) -> None:
        """After an optimizer step; the numbers in `report` are still on the device."""

    def on_read(self, state: TrainState, reports: Sequence[StepReport]) -> None:
        """After metrics were read from the device: every `log_every` steps, and before saving."""

    def on_log(self, state: TrainState, values: dict[str, float]) -> None:
        """Every `log_every` steps, with the means since then over steps and ranks; entries may be added."""

    def on_step_logged(self, state: TrainState) -> None:
        """At the end of a step: evaluation, checkpoints, decisions to stop."""

    def on_evaluate(self, state: TrainState, split: str, values: dict[str, float]) -> None:
        """After an evaluation, with its metrics over all ranks."""

    def on_checkpoint(self, state: TrainState, folder: Path) -> None:
        """After a checkpoint is complete."""

    def on_end(self, state: TrainState) -> None:
        """After the last step, also if the run was asked to stop; by default, close."""
        self.close(state)

    def on_exception(self, state: TrainState, error: BaseException) -> None:
        """Before an error leaves the loop; by default, close. Must not raise."""
        self.close(state)

    def close(self, state: TrainState) -> None:
        """Release files, bars and signal handlers."""
