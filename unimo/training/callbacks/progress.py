"""The progress of a run as a person sees it: a bar, or lines of a log."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

from tqdm import tqdm

from unimo import distributed
from unimo.training.state import Callback, StepReport, TrainState

logger = logging.getLogger(__name__)
_HIDDEN = {"lr", "data_wait", "memory_mb", "peak_memory_mb", "step_seconds", "grad_norm"}


class Progress(Callback):
    """Shows step, metrics, speed and remaining time on rank 0."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def on_start(self, state: TrainState) -> None:
        """Open the bar if standard error is a terminal."""
        self._first_step, self._started = state.step, time.monotonic()
        if distributed.rank() == 0 and sys.stderr.isatty():
            total = state.run.train.max_steps
            self._bar = tqdm(total=total, initial=state.step, unit="step", dynamic_ncols=True)

    def on_step_end(self, state: TrainState, report: StepReport) -> None:
        """Advance the bar."""
        if self._bar is not None:
            self._bar.update(1)

    def on_log(self, state: TrainState, values: dict[str, float]) -> None:
        """Show the metrics."""
        shown = {name: f"{value:.4g}" for name, value in values.items() if name not in _HIDDEN}
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
        elif distributed.rank() == 0:
            numbers = " ".join(f"{name} {text}" for name, text in shown.items())
            total, done = state.run.train.max_steps, max(1, state.step - self._first_step)
            left = (time.monotonic() - self._started) / done * (total - state.step)
            logger.info("step %d/%d  %s  ETA %s", state.step, total, numbers, tqdm.format_interval(left))

    def on_evaluate(self, state: TrainState, split: str, values: dict[str, float]) -> None:
        """Show the scores."""
        numbers = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        self._say(f"step {state.step}  {split}: {numbers}")

    def on_checkpoint(self, state: TrainState, folder: Path) -> None:
        """Show where it is."""
        self._say(f"step {state.step}  checkpoint {folder}")

    def close(self, state: TrainState) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        elif distributed.rank() == 0:
            logger.info(text)
