"""Evaluation during training, and the best model so far."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import islice

from unimo import distributed
from unimo.errors import ConfigError, DataError, nearest
from unimo.tasks.base import Batch
from unimo.training.callbacks.base import Callback
from unimo.training.state import TrainState

logger = logging.getLogger(__name__)


class Evaluate(Callback):
    """Evaluates the split `val` every `train.eval_every` steps and after the last step.

    With `train.select_metric`, `best/` holds the model with its highest value, or its lowest for a loss (a
    name that contains `loss`).
    """

    def __init__(self, split: str = "val") -> None:
        self.split = split
        self._batches: Iterable[Batch] | None = None
        self.last_step = -1
        self.last: dict[str, float] = {}

    def on_start(self, state: TrainState) -> None:
        """Open the split before hours of training; without one the run is not evaluated.

        Raises:
            DataError: there is no such split, and `train.select_metric` needs it.
        """
        ranks, size = (distributed.rank(), distributed.world_size()), state.run.train.eval_batch_size
        try:
            self._batches = state.data.eval_loader(self.split, state.run, *ranks, size)
        except DataError as error:
            if state.run.train.select_metric:
                raise
            logger.warning("no evaluation during this run: %s", error)

    def on_step_logged(self, state: TrainState) -> None:
        if state.is_due(state.run.train.eval_every):
            self.evaluate(state)

    def on_end(self, state: TrainState) -> None:
        """Evaluate the final model, unless the run was interrupted or this step was just evaluated."""
        if self.last_step != state.step and state.stop_reason not in ("SIGTERM", "SIGINT"):
            self.evaluate(state)

    def evaluate(self, state: TrainState) -> None:
        """Compute the metrics, hand them to the callbacks, keep the best model. Collective.

        Raises:
            ConfigError: `train.select_metric` is none of the metrics.
        """
        if self._batches is None:
            return
        limit = state.run.train.eval_max_batches or None
        values = state.task.evaluate(islice(self._batches, limit))
        state.layer.train()
        self.last_step, self.last = state.step, values
        state.emit("on_evaluate", self.split, values)
        metric = state.run.train.select_metric
        if not metric:
            return
        if metric not in values:
            raise ConfigError(
                f"train.select_metric={metric!r} is not computed here; {nearest(metric, values)}"
            )
        sign = -1.0 if "loss" in metric else 1.0
        if state.best and sign * values[metric] <= sign * state.best[metric]:
            return
        state.best = {**values, "step": float(state.step)}
        if distributed.rank() == 0:
            from unimo.inference.loading import save_model

            save_model(state.task, state.processor, state.output_dir / "best", values)
        distributed.barrier()
