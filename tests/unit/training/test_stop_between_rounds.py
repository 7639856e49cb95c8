"""A signal ends a step between two of its rounds: it is dropped, and taken again whole by the next start."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_run import SmallRun, VectorCollator, make_run, make_state, train
from test_resume import rows

from unimo import signals
from unimo.training import callbacks, checkpoint, loop
from unimo.training.optimizer import optimizer_tensors
from unimo.training.state import StepReport, TrainState

ROUNDS = 16
KINDS = itertools.cycle(signals.NAMES)


def many_rounds(output: Path, **changes: Any) -> SmallRun:
    """Twelve steps of 16 rounds, the vectors of which are compared before."""
    sizes = {"batch_size": ROUNDS, "micro_batch_size": 1}
    return make_run(output, train={**sizes, **changes}, task={"contrast": True})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    output = tmp_path_factory.mktemp("whole")
    train(many_rounds(output))
    return rows(output)


class SignalAt(callbacks.Callback):
    """Sends a signal after a round, and counts the rounds after it."""

    def __init__(self, step: int, doing: str, done: int, name: str) -> None:
        self.at, self.name, self.since = (step, doing, done), name, 0

    def on_round(self, state: TrainState, doing: str, done: int, count: int) -> None:
        self.since += bool(state.stop_wanted)
        if (state.step, doing, done) == self.at:
            os.kill(os.getpid(), getattr(signal, self.name))


@pytest.mark.parametrize("step", [0, 5, 11])
@pytest.mark.parametrize(
    ("doing", "done"),
    [("planning", 1), ("planning", ROUNDS), ("training", 1), ("training", 9), ("training", ROUNDS - 1)],
)
def test_a_signal_ends_the_step_before_the_next_round(
    tmp_path: Path, whole: list[dict[str, Any]], step: int, doing: str, done: int
) -> None:
    killer = SignalAt(step, doing, done, next(KINDS))
    state = train(many_rounds(tmp_path), [killer])
    assert (state.step, state.stop_reason, killer.since) == (step, killer.name, 0)
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in state.task.parameters())
    last = checkpoint.find_last(tmp_path)
    assert (last.name if last else "") == (f"step_{step:08d}" if step else "")
    train(many_rounds(tmp_path))
    assert rows(tmp_path) == whole


@pytest.mark.parametrize("step", [3, 12])
def test_a_signal_in_the_last_round_keeps_the_step(
    tmp_path: Path, whole: list[dict[str, Any]], step: int
) -> None:
    state = train(many_rounds(tmp_path), [SignalAt(step - 1, "training", ROUNDS, "SIGHUP")])
    assert (state.step, state.stop_reason) == (step, "SIGHUP")
    assert checkpoint.find_last(tmp_path).name == f"step_{step:08d}"
    train(many_rounds(tmp_path))
    assert rows(tmp_path) == whole


class Reach(callbacks.Callback):
    """Tells that a step is over."""

    def __init__(self, step: int) -> None:
        self.step, self.reached = step, threading.Event()

    def on_step_end(self, state: TrainState, report: StepReport) -> None:
        if state.step == self.step:
            self.reached.set()


@pytest.mark.parametrize("never", [False, True])
def test_a_signal_ends_the_wait_for_data(
    tmp_path: Path, whole: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, never: bool
) -> None:
    """Reading takes long, or does not end, as on a file system that hangs; two batches are there already."""
    read, end, seen, watch = VectorCollator.prepare, threading.Event(), itertools.count(), Reach(3)

    def slow(self: VectorCollator, *arguments: Any) -> Any:
        if next(seen) == 3 * ROUNDS + 2:
            assert watch.reached.wait(60)
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            assert end.wait(60 if never else 0.4) is never
        return read(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(VectorCollator, "prepare", slow)
        state = train(many_rounds(tmp_path, save_every=0), [watch])
    end.set()
    assert (state.step, state.stop_reason) == (3, "SIGUSR1")
    train(many_rounds(tmp_path, save_every=0))
    assert rows(tmp_path) == whole


class FailOnce(callbacks.Callback):
    """Raises in the middle of a step, as a device without memory does."""

    def __init__(self) -> None:
        self.failed = False

    def on_round(self, state: TrainState, doing: str, done: int, count: int) -> None:
        if (doing, done, self.failed) == ("training", 5, False):
            self.failed = True
            raise MemoryError


def test_a_dropped_step_can_be_taken_again_in_the_same_process(tmp_path: Path) -> None:
    """What a caller needs that repeats a step for another reason than a signal."""
    results = []
    for broken in (False, True):
        state = make_state(many_rounds(tmp_path), [FailOnce()] if broken else [])
        position = state.loader.state_dict()
        if broken:
            with pytest.raises(MemoryError):
                loop.take_step(state, iter(state.loader))
            loop.drop_step(state, position)
        report = loop.take_step(state, iter(state.loader))
        moments = optimizer_tensors(state.adamw, state.task)
        values = {name: moment.tobytes() for name, moment in moments.items()}
        results.append((report.sample_ids, report.values.tolist(), values, state.loader.state_dict()))
        state.loader.close()
    assert results[0] == results[1]


def test_minutes_let_the_step_finish(tmp_path: Path) -> None:
    state = train(many_rounds(tmp_path, max_minutes=1e-9))
    assert (state.step, state.stop_reason) == (1, "max_minutes")


@pytest.mark.parametrize("name", signals.NAMES)
def test_listeners_are_nested_and_restored(name: str) -> None:
    number, heard = getattr(signal, name), []
    before = signal.getsignal(number)
    with signals.heard_by(heard.append):
        with pytest.raises(signals.Interrupted, match=name), signals.heard_by(signals.interrupt):
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
    assert heard == ["SIGTERM"] and signal.getsignal(number) == before


def test_a_second_interrupt_stops_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), signals.heard_by(lambda name: None):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)


def test_nohup_keeps_its_meaning() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.heard_by(signals.interrupt):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_last_steps_of_several_threads(tmp_path: Path) -> None:
    """Only the main thread hears signals; elsewhere a run works as before."""
    found: list[TrainState] = []
    worker: Callable[[], None] = lambda: found.append(train(many_rounds(tmp_path, max_steps=1)))  # noqa: E731
    thread = threading.Thread(target=worker)
    thread.start()
    thread.join()
    assert found[0].step == 1
