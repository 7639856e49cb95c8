"""Checkpoints while a run goes on, and the decision to end it early."""

from __future__ import annotations

import time

from unimo.training import checkpoint
from unimo.training.state import Callback, TrainState
from unimo.training.stopping import agree_to_stop


class Checkpoint(Callback):
    """Saves every `train.save_every` steps, before each evaluation, and at the end, unless an error ends the
    run.

    When a signal has ended the run, the end is the last whole step. `train.max_minutes` lets the current step
    finish, then saves and ends the run. It stands before `Evaluate`, so whatever happens to an evaluation
    costs no training.
    """

    def __init__(self) -> None:
        self._saved_step = -1

    def on_step_logged(self, state: TrainState) -> None:
        """Save if it is due, and agree with the other ranks whether to stop."""
        train = state.run.train
        if state.is_due(train.save_every) or (train.save_every and state.is_due(train.eval_every)):
            self._save(state)
        if train.max_minutes is not None and time.monotonic() - state.started > 60 * train.max_minutes:
            state.stop_wanted = state.stop_wanted or "max_minutes"
        agree_to_stop(state, state.stop_wanted)

    def on_end(self, state: TrainState) -> None:
        """Save, unless the run was stopped in its first step, which begins anew without a checkpoint too."""
        if state.step or state.is_finished:
            self._save(state)

    def _save(self, state: TrainState) -> None:
        if self._saved_step == state.step:
            return
        self._saved_step = state.step
        state.read_metrics()
        state.emit("on_checkpoint", checkpoint.save(state))
