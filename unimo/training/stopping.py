"""Requests to end a run early: training ends between two rounds of a step, evaluation between two batches.

All ranks end at the same place, because whatever comes next may be a collective of all of them. Between two
rounds the processes ask each other (`distributed.any_over_ranks`); a step that is not whole is dropped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from unimo import distributed, signals
from unimo.training.state import TrainState

T = TypeVar("T")


class StoppedError(Exception):
    """Ends a step or an evaluation, on all ranks at the same place, because the run was asked to stop."""


@contextlib.contextmanager
def signals_stop(state: TrainState) -> Iterator[None]:
    """Let signals set `state.stop_wanted`; a second SIGINT stops at once, without saving."""

    def note(name: str) -> None:
        if not state.signal:
            signals.say(f"{name}: ending after this round; the last whole step is saved")
        state.stop_wanted = name

    with signals.heard_by(note):
        yield


def take(state: TrainState, batches: Iterator[T], count: int) -> list[T]:
    """Wait for the next batches; fewer are returned at the end of the data, and once a signal has come.

    A wait may be long, or never end, so a signal ends it at once.
    """
    taken: list[T] = []
    try:
        with signals.heard_by(signals.interrupt):
            if not state.signal:
                taken.extend(islice(batches, count))
    except signals.Interrupted as asked:
        state.stop_wanted = str(asked)
    return taken


def agree_to_stop(state: TrainState, wanted: str) -> bool:
    """Set `state.stop_reason` if any rank has a reason to stop, `wanted`; return whether. Collective."""
    if distributed.any_over_ranks(bool(wanted)):
        state.stop_reason = next(filter(None, distributed.gather(wanted)))
        return True
    return False


def stop_if_asked(state: TrainState) -> None:
    """End a step or an evaluation if some rank got a signal. Collective.

    `train.max_minutes` lets both finish, so that a run that is started again and again gets on.

    Raises:
        StoppedError: on all ranks.
    """
    if agree_to_stop(state, state.signal):
        raise StoppedError


def until_stopped(state: TrainState, batches: Iterable[T]) -> Iterator[T]:
    """Yield the batches of an evaluation. Collective: ranks ask each other before every batch.

    A rank that has fewer of them answers the others until all are through.

    Raises:
        StoppedError: some rank got a signal; on all ranks, before the same batch.
    """
    left = iter(batches)
    while True:
        taken = take(state, left, 1)
        stop_if_asked(state)
        if not distributed.any_over_ranks(bool(taken)):
            return
        yield from taken
