"""The time that a run takes, as its first round and its first step show."""

from __future__ import annotations

import dataclasses
import logging
import time

from unimo import distributed
from unimo.training.hints import too_long
from unimo.training.pace import Pace
from unimo.training.plan import Plan, save
from unimo.training.state import Callback, StepReport, TrainState
from unimo.training.trial import wait

logger = logging.getLogger(__name__)


class Pacing(Callback):
    """Replaces the guess in a plan, and in `plan.json`, by what the first round of this process takes that
    follows another, and then by its first step; logs both, and what to do if a run takes too long here."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._other_hints = [hint for hint in plan.hints if hint not in too_long(plan)]
        self._round_ended: float | None = None
        self._awaits_round = self._awaits_step = plan.time is not None

    def on_round(self, state: TrainState, doing: str, done: int, count: int) -> None:
        """Measure a round; not on a GPU, which is still busy with it."""
        before, self._round_ended = self._round_ended, time.perf_counter()
        if self._awaits_round and doing == "training" and before is not None and not distributed.is_on_gpu():
            self._tell(state, self._plan.time.after_round(self._round_ended - before))
            self._awaits_round = False

    def on_step_end(self, state: TrainState, report: StepReport) -> None:
        """Measure the first step."""
        if not self._awaits_step:
            return
        ended = time.perf_counter()
        wait()
        seconds = report.seconds + time.perf_counter() - ended
        self._tell(state, self._plan.time.after_step(seconds, state.loader.rounds))
        self._awaits_round = self._awaits_step = False

    def _tell(self, state: TrainState, pace: Pace) -> None:
        self._plan = dataclasses.replace(self._plan, time=pace)
        hints = too_long(self._plan)
        self._plan = dataclasses.replace(self._plan, hints=(*self._other_hints, *hints))
        save(self._plan, state)
        if distributed.rank() == 0:
            logger.info("time, %s", pace)
            for hint in hints if self._awaits_round else ():  # once
                logger.warning("! %s", hint)
