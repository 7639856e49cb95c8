"""Requests to end a run early: signals let the current step, or batch of an evaluation, finish."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TypeVar

from unimo import distributed
from unimo.training.state import SIGNALS, TrainState

logger = logging.getLogger(__name__)
T = TypeVar("T")


class StoppedError(Exception):
    """Ends an evaluation, on all ranks at the same batch, because the run was asked to stop."""


@contextlib.contextmanager
def signals_stop(state: TrainState) -> Iterator[None]:
    """Let SIGTERM and SIGINT set `state.stop_wanted`; a second SIGINT stops at once, without saving.

    Python handles signals in the main thread only; elsewhere nothing changes.
    """

    def note(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if name == "SIGINT" and state.stop_wanted == "SIGINT":
            raise KeyboardInterrupt
        state.stop_wanted = name
        logger.warning("%s: finishing this step, then saving", name)

    is_main = threading.current_thread() is threading.main_thread()
    previous = {n: signal.signal(n, note) for n in map(signal.Signals.__getitem__, SIGNALS) if is_main}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler or signal.SIG_DFL)


def agree_to_stop(state: TrainState, wanted: str) -> bool:
    """Set `state.stop_reason` if any rank has a reason to stop, `wanted`; return whether. Collective."""
    if distributed.any_over_ranks(bool(wanted)):
        state.stop_reason = next(filter(None, distributed.gather(wanted)))
        return True
    return False


def until_stopped(state: TrainState, batches: Iterable[T]) -> Iterator[T]:
    """Yield the batches of an evaluation. Collective: ranks ask each other before every batch.

    A rank that has fewer of them answers the others until all are through. `train.max_minutes` is the time of
    training and lets an evaluation finish.

    Raises:
        StoppedError: some rank got a signal; on all ranks, before the same batch.
    """
    left = iter(batches)
    while True:
        batch = next(left, None)
        if agree_to_stop(state, state.stop_wanted if state.stop_wanted in SIGNALS else ""):
            raise StoppedError
        if not distributed.any_over_ranks(batch is not None):
            return
        if batch is not None:
            yield batch
