"""The progress of a run as a person sees it: a bar, or lines of a log."""

from __future__ import annotations

from pathlib import Path

from unimo import distributed, progress
from unimo.training.state import Callback, StepReport, TrainState

_HIDDEN = {"lr", "data_wait", "memory_mb", "peak_memory_mb", "step_seconds", "grad_norm"}
_PLANNING = 1 / 3
"""Share of a step that passes while the vectors of its rounds are computed, before they go backward."""


class Progress(Callback):
    """Shows step, round, metrics, speed and remaining time on rank 0."""

    def __init__(self) -> None:
        self._shown: progress.Progress | None = None
        self._step, self._values, self._planned = 0, "", 0.0

    def on_start(self, state: TrainState) -> None:
        """Begin to show."""
        self._step, quiet = state.step, distributed.rank() > 0
        self._shown = progress.Progress(
            "step", state.run.train.max_steps, state.step, unit="steps", quiet=quiet
        )

    def on_round(self, state: TrainState, doing: str, done: int, count: int) -> None:
        """Advance by a part of a step."""
        if self._shown is None or count == 1:
            return
        if doing == "planning":
            self._planned = _PLANNING
            part = _PLANNING * done / count
        else:
            part = self._planned + (1 - self._planned) * done / count
        self._shown.done = self._step + part
        self._shown.detail = "  ".join(filter(None, [f"{doing} round {done}/{count}", self._values]))

    def on_step_end(self, state: TrainState, report: StepReport) -> None:
        """Advance to the next step."""
        self._step, self._planned = state.step, 0.0
        if self._shown is not None:
            self._shown.done, self._shown.detail = state.step, self._values

    def on_log(self, state: TrainState, values: dict[str, float]) -> None:
        """Show the metrics."""
        shown = {name: value for name, value in values.items() if name not in _HIDDEN}
        self._values = " ".join(f"{name} {value:.4g}" for name, value in shown.items())
        if self._shown is not None:
            self._shown.detail = self._values
            self._shown.log()

    def on_evaluate(self, state: TrainState, split: str, values: dict[str, float]) -> None:
        """Show the scores."""
        numbers = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        self._say(f"step {state.step}  {split}: {numbers}")

    def on_checkpoint(self, state: TrainState, folder: Path) -> None:
        """Show where it is."""
        self._say(f"step {state.step}  checkpoint {folder}")

    def close(self, state: TrainState) -> None:
        """Close the bar."""
        if self._shown is not None:
            self._shown.close()

    def _say(self, text: str) -> None:
        if self._shown is not None:
            self._shown.say(text)
