"""Evaluation while a run goes on, and the choice of the best model."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import islice

from unimo import distributed, signals
from unimo.data.loading.loader import EvalLoader
from unimo.errors import ConfigError, SplitError, nearest
from unimo.inference.evaluation import judge_records
from unimo.metrics.caption import missing_program
from unimo.progress import tracked
from unimo.training.state import Callback, TrainState
from unimo.training.stopping import StoppedError, until_stopped

logger = logging.getLogger(__name__)


class Evaluate(Callback):
    """Evaluates a split every `train.eval_every` steps and after the last step.

    With `train.select_metric`, `best/` holds the model with its highest value, or its lowest for a loss (a
    name that contains `loss`), and the run ends early once `train.patience` evaluations in a row were not
    better. A run that is asked to stop does so after the current batch; when it is
    resumed, it makes up for the evaluation first.

    Args:
        split: what is evaluated.
        about: what is saved beside the scores: how the checkpoint was chosen.
    """

    def __init__(self, split: str = "val", about: Mapping[str, str] | None = None) -> None:
        self.split, self.about = split, dict(about or {})
        self._batches: EvalLoader | None = None
        self._is_opened = False
        self.last_step = -1
        self.last: dict[str, float] = {}

    def on_start(self, state: TrainState) -> None:
        """Open the split and look for `train.select_metric` before hours of training; without the split the
        run is not evaluated.

        Raises:
            ConfigError: `train.select_metric` is none of the metrics.
        """
        if self.open(state) is not None and state.run.train.select_metric not in ("", *state.best):
            self._look_for_metric(state)

    def open(self, state: TrainState) -> EvalLoader | None:
        """Return the batches of the split, opened once; None without the split.

        Raises:
            ConfigError: `train.select_metric` needs a program that is missing.
            SplitError: there is no such split, and `train.select_metric` needs it.
            DataError: the split cannot be read.
        """
        if self._is_opened:
            return self._batches
        if missing := missing_program(state.run.train.select_metric):
            raise ConfigError(f"train.select_metric={state.run.train.select_metric} needs {missing}")
        self._is_opened = True
        ranks, size = (distributed.rank(), distributed.world_size()), state.run.train.eval_batch_size
        try:
            self._batches = state.data.eval_loader(self.split, state.run, *ranks, size)
        except SplitError as error:
            if state.run.train.select_metric:
                raise
            logger.warning("no evaluation during this run: %s", error)
        return self._batches

    def on_step_logged(self, state: TrainState) -> None:
        if state.is_due(state.run.train.eval_every) and not state.stop_reason:
            self.evaluate(state)

    def on_end(self, state: TrainState) -> None:
        """Evaluate the final model, unless the run was interrupted or this step was just evaluated."""
        if self.last_step != state.step and state.stop_reason not in signals.NAMES:
            self.evaluate(state)

    def on_resume(self, state: TrainState) -> None:
        """Make up for an evaluation that the checkpoint was saved before, unless it comes now anyway."""
        if state.awaits_evaluation and not state.is_finished:
            self.evaluate(state)

    def evaluate(self, state: TrainState) -> None:
        """Compute the metrics, hand them to the callbacks, keep the best model. Collective.

        Raises:
            ConfigError: `train.select_metric` is none of the metrics.
            DataError: too many records, or all, are broken.
        """
        if self._batches is None:
            return
        try:
            values = self._measure(state, state.run.train.eval_max_batches or None)
        except StoppedError:
            logger.warning("the evaluation of step %d is made up for when the run goes on", state.step)
            return
        self.last_step, self.last = state.step, values
        state.emit("on_evaluate", self.split, values)
        metric = state.run.train.select_metric
        if not metric:
            return
        check_metric(metric, values)
        sign = -1.0 if "loss" in metric else 1.0
        if state.best and sign * values[metric] <= sign * state.best[metric]:
            _note_no_better(state, metric)
            return
        state.best, state.no_better = {**values, "step": float(state.step)}, []
        if distributed.rank() == 0:
            from unimo.inference.saving import save_model

            best = state.output_dir / "best"
            save_model(state.task, state.processor, best, {**values, **self.about}, state.run)
        distributed.barrier()

    def _measure(self, state: TrainState, most: int | None) -> dict[str, float]:
        total = min(len(self._batches), most) if most else len(self._batches)
        batches = tracked(islice(self._batches, most), f"evaluating {self.split}", total, unit="batches")
        try:
            values = state.task.evaluate(batches, watch=partial(until_stopped, state))
        finally:
            state.layer.train()
        judge_records(self._batches, self.split)
        return values

    def _look_for_metric(self, state: TrainState) -> None:
        """Check `train.select_metric` by an evaluation of one batch, and of all if its name is not there."""
        if not distributed.any_over_ranks(len(self._batches) > 0):
            return
        with contextlib.suppress(StoppedError):
            values = self._measure(state, 1)
            if state.run.train.select_metric not in values:
                values = self._measure(state, state.run.train.eval_max_batches or None)
            check_metric(state.run.train.select_metric, values)


def _note_no_better(state: TrainState, metric: str) -> None:
    """Count an evaluation that was not better than the best, once however often it is made up for."""
    if state.step not in state.no_better:
        state.no_better.append(state.step)
    train, best = state.run.train, state.best
    if state.ended_early and distributed.rank() == 0:
        logger.info(
            "train.patience=%d: %s has not been better than %.4g of step %d in the last %d evaluations; the "
            "run ends early, after step %d of %d",
            train.patience,
            metric,
            best[metric],
            best["step"],
            len(state.no_better),
            state.step,
            train.max_steps,
        )


def check_metric(metric: str, values: Iterable[str]) -> None:
    """Raise ConfigError unless `train.select_metric` is one of the computed metrics."""
    if metric not in values:
        raise ConfigError(f"train.select_metric={metric!r} is not computed here; {nearest(metric, values)}")
