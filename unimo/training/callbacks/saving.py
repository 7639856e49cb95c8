"""Checkpoints while a run goes on, and the decision to end it early."""

from __future__ import annotations

import time

from unimo import distributed
from unimo.training import checkpoint
from unimo.training.state import Callback, TrainState
from unimo.training.stopping import agree_to_stop


class Checkpoint(Callback):
    """Saves every `train.save_every` steps, before each evaluation, and at the end, unless an error ends the
    run.

    SIGTERM, SIGINT and `train.max_minutes` let the current step finish, then save and end the run with exit
    code 0. It stands before `Evaluate`, so whatever happens to an evaluation costs no training.
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
        # On a GPU, asking the other ranks waits for the device, so it is done when metrics are read anyway.
        if not distributed.is_on_gpu() or state.is_due(train.log_every):
            agree_to_stop(state, state.stop_wanted)

    def on_end(self, state: TrainState) -> None:
        self._save(state)

    def _save(self, state: TrainState) -> None:
        if self._saved_step == state.step:
            return
        self._saved_step = state.step
        state.read_metrics()
        state.emit("on_checkpoint", checkpoint.save(state))
