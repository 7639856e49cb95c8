"""The time that a run takes, once its first step is measured."""

from __future__ import annotations

import dataclasses
import logging

from unimo import distributed
from unimo.training.hints import too_long
from unimo.training.plan import Plan, save
from unimo.training.state import Callback, StepReport, TrainState

logger = logging.getLogger(__name__)


class Pacing(Callback):
    """Replaces the guess in a plan, and in `plan.json`, by the time of the first step of this process, and
    logs it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan if plan.time is not None else None

    def on_step_end(self, state: TrainState, report: StepReport) -> None:
        if self._plan is None:
            return
        left = state.run.train.max_steps - state.step
        time = self._plan.time.measured(report.seconds, state.loader.rounds, left)
        plan, self._plan = dataclasses.replace(self._plan, time=time), None
        save(plan, state)
        if distributed.rank() == 0:
            logger.info("time %s", time)
            for hint in too_long(plan):
                logger.warning("! %s", hint)
