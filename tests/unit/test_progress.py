"""Progress of long work: lines without a terminal, a bar on one, and a sign of life before the first part."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from typing import Any

import pytest

from unimo import progress
from unimo.progress import Progress, tracked


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Clock:
    """The clock of progress, which does not tick by itself."""
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    monkeypatch.setattr(Progress, "_keep_ticking", lambda self: None)
    caplog.set_level(logging.INFO, "unimo")
    return found


def test_lines_come_soon_and_then_at_growing_distances(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    shown, said = Progress("extracting", 1000, 200, unit="images"), []
    for second in range(400):
        clock.now = 1000.0 + second
        shown.done = 200 + second
        shown.tick()
        if caplog.messages:
            said.append((second, caplog.messages[-1]))
            caplog.clear()
    assert [second for second, _ in said] == [2, 4, 8, 16, 32, 64, 124, 184, 244, 304, 364]
    assert said[0][1] == "extracting 202/1000 images  1.00 images/s  elapsed 00:02  ETA 13:18"
    shown.close()
    assert caplog.messages == ["extracting 599/1000 images  1.00 images/s  elapsed 06:39  ETA 06:41"]


def test_time_moves_before_the_first_part(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    shown = Progress("step", 10, unit="steps")
    clock.now += 7
    shown.tick()
    assert caplog.messages == ["step 0/10 steps  elapsed 00:07"]


def test_slow_parts_and_long_times(clock: Clock) -> None:
    shown = Progress("step", 100000, unit="steps")
    shown.done, clock.now = 0.5, 1000.0 + 3600 * 2
    assert str(shown) == "step 0/100000 steps  14400.0 s each  elapsed 2:00:00  ETA 16667 days"
    assert str(Progress("reading", unit="lines")) == "reading 0 lines  elapsed 00:00"


def test_short_work_and_quiet_work_say_nothing(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    assert list(tracked([1, 2], "reading")) == [1, 2]
    with Progress("reading", 2, quiet=True) as shown:
        clock.now += 100
        shown.tick()
        shown.say("a line")
    assert not caplog.messages


def test_other_ranks_say_nothing(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PADDLE_TRAINER_ID", "1")
    with Progress("reading", 2) as shown:
        clock.now += 100
        shown.tick()
    assert not caplog.messages


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_and_no_lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "_REDRAW", 0.01)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress("extracting", 4, unit="images") as shown:
        shown.update(3)
        shown.detail = "loss 2"
        shown.say("checkpoint there")
    drawn = sys.stderr.getvalue()
    assert re.search(r"extracting 3/4 images  loss 2  .*images/s  elapsed 00:00  ETA 00:00 +75%\|", drawn)
    assert "checkpoint there" in drawn and not caplog.messages


def test_its_clock_ticks(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "unimo")
    monkeypatch.setattr(progress, "_REDRAW", 0.01)
    monkeypatch.setattr(progress, "_FIRST", 0.02)
    with Progress("thinking") as shown:
        assert shown._ended.wait(0.5) is False
    assert len(caplog.messages) > 1


def test_no_other_code_draws_bars(root: Any) -> None:
    found = [
        str(path.relative_to(root))
        for folder in ("unimo", "tools", "ppdet_features")
        for path in (root / folder).rglob("*.py")
        if "tqdm" in path.read_text(encoding="utf8")
    ]
    assert found == [os.path.join("unimo", "progress.py")]
