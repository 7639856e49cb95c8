"""Saving while training: on schedule, at the end, and when the run is asked to stop."""

from __future__ import annotations

import logging
import signal
import threading
import time
from types import FrameType
from typing import Any

from unimo import distributed
from unimo.training import checkpoint
from unimo.training.callbacks.base import Callback
from unimo.training.state import TrainState

logger = logging.getLogger(__name__)


class Checkpoint(Callback):
    """Saves every `train.save_every` steps and at the end, unless an error ends the run.

    SIGTERM, SIGINT and `train.max_minutes` let the current step finish, then save and end the run
    with exit code 0. A second SIGINT stops at once, without saving.
    """

    def __init__(self) -> None:
        self._wanted = ""
        self._saved_step = -1
        self._previous: dict[int, Any] = {}

    def on_start(self, state: TrainState) -> None:
        """Handle signals; Python allows that in the main thread only."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._on_signal)

    def on_step_logged(self, state: TrainState) -> None:
        """Save if it is due, and agree with the other ranks whether to stop."""
        if state.is_due(state.run.train.save_every):
            self._save(state)
        minutes = state.run.train.max_minutes
        if minutes is not None and time.monotonic() - state.started > 60 * minutes:
            self._wanted = self._wanted or "max_minutes"
        # On a GPU, asking the other ranks waits for the device, so it is done when metrics are read anyway.
        if not distributed.is_on_gpu() or state.is_due(state.run.train.log_every):
            if distributed.any_over_ranks(bool(self._wanted)):
                state.stop_reason = next(filter(None, distributed.gather(self._wanted)))

    def on_end(self, state: TrainState) -> None:
        """Save the last step and restore the signal handlers."""
        self._save(state)
        self.close(state)

    def close(self, state: TrainState) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler or signal.SIG_DFL)
        self._previous = {}

    def _save(self, state: TrainState) -> None:
        if self._saved_step == state.step:
            return
        self._saved_step = state.step
        state.read_metrics()
        folder = checkpoint.save(state)
        state.emit("on_checkpoint", folder)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if name == "SIGINT" and self._wanted == "SIGINT":
            raise KeyboardInterrupt
        self._wanted = name
        logger.warning("%s: finishing this step, then saving", name)
