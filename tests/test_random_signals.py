"""Signals at moments nobody chose: a step of 64 rounds ends within two of them, and nothing of a run differs
from an unbroken one. Whatever is killed or closed, nothing lives on."""

from __future__ import annotations

import contextlib
import itertools
import os
import pty
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import killed_jobs
import pytest
from paddle_launch import start_ranks
from signalled_run import LOG
from small_run import make_run, train
from test_random_kills import PATIENCE, child, descendants  # noqa: F401 - a fixture
from test_resume import rows

from unimo import cli, signals

pytestmark = pytest.mark.slow
ROUNDS = 64
KINDS = itertools.cycle(signals.NAMES)


@pytest.fixture(autouse=True, scope="module")
def hang_up_ends() -> Iterator[None]:
    """The tests may run under `nohup`, whose children ignore SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def notes(output: Path) -> list[tuple[float, str]]:
    """When each round was over, and which it was."""
    lines = (output / LOG).read_text().splitlines() if (output / LOG).exists() else []
    return [(float(line.split()[0]), line.partition(" ")[2]) for line in lines if line.count(" ") == 4]


def wait_for(what: Callable[[], Any], seconds: float = PATIENCE) -> bool:
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("case", ["curriculum", "regions"])
@pytest.mark.parametrize(("ranks", "rounds", "micro"), [(1, ROUNDS, 2), (2, 8, 8)])
def test_a_step_of_many_rounds_ends_within_two(
    tmp_path: Path, ranks: int, rounds: int, micro: int, case: str
) -> None:
    """With a mixture whose corpora come in later, and with regions and corpora for contrastive learning.

    Each rank must have a sample of each kind in each round, so two ranks have fewer and larger ones.
    """
    words = [case, f"batch={ranks * rounds * micro}", f"micro={micro}"]
    assert start_ranks(ranks, tmp_path / "whole", words, "signalled_run.py").wait(4 * PATIENCE) == 0
    output, chance = tmp_path / "broken", random.Random(os.getpid())
    for step in (0, 1, 2):
        process = start_ranks(ranks, output, words, "signalled_run.py")
        at = chance.randrange(2 * rounds - 4)
        assert wait_for(lambda step=step, at=at: len(of_step(output, step)) > at, 4 * PATIENCE), "no rounds"
        name, sent = next(KINDS), time.time()
        process.send_signal(getattr(signal, name))
        assert process.wait(PATIENCE) == cli.STOPPED
        ended = time.time()
        late = [line for when, line in notes(output) if when > sent]
        print(f"{ranks} ranks, {case}, step {step}: {name}, {len(late)} rounds, {ended - sent:.1f} s")
        assert len(late) <= 2, late
        (output / LOG).unlink()
        assert not descendants(output)
        if step < 2:  # on to the next step
            process = start_ranks(ranks, output, words, "signalled_run.py")
            assert wait_for(lambda step=step: len(of_step(output, step + 1)) > 0, 4 * PATIENCE)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == cli.STOPPED
            (output / LOG).unlink()
    assert start_ranks(ranks, output, words, "signalled_run.py").wait(4 * PATIENCE) == 0
    assert rows(output) == rows(tmp_path / "whole")


def of_step(output: Path, step: int) -> list[str]:
    return [line for _, line in notes(output) if line.startswith(f"{step} ")]


def test_two_ranks_of_64_rounds(tmp_path: Path) -> None:
    """Nothing is saved but by signals."""
    words = [f"train.batch_size={2 * ROUNDS}", "train.micro_batch_size=1", "task.contrast=true"]
    words += ["train.save_every=0", "train.log_every=1", "train.max_steps=12"]
    assert start_ranks(2, tmp_path / "whole", words).wait(PATIENCE) == 0
    chance, output = random.Random(os.getpid()), tmp_path / "broken"
    for step, kind in enumerate(signals.NAMES, 1):
        process = start_ranks(2, output, words)
        assert wait_for(
            lambda step=step: (output / "metrics.jsonl").exists() and len(rows(output)) > 2 * step
        )
        time.sleep(chance.uniform(0, 0.5))
        process.send_signal(getattr(signal, kind))
        sent = time.monotonic()
        assert process.wait(PATIENCE) == cli.STOPPED
        print(
            f"2 ranks: {kind}, ended after {time.monotonic() - sent:.1f} s, {len(rows(output))} steps saved"
        )
        assert not descendants(output)
    assert start_ranks(2, output, words).wait(PATIENCE) == 0
    assert rows(output) == rows(tmp_path / "whole")


def test_twenty_random_signals(tmp_path: Path, child: Callable[..., Any]) -> None:  # noqa: F811
    """Nothing is saved but by signals. Also while data are opened, and while a checkpoint is written."""
    steps = {"max_steps": 40, "save_every": 0, "log_every": 1, "batch_size": ROUNDS, "micro_batch_size": 1}
    changes = {"train": steps, "task": {"contrast": True}}
    start = time.monotonic()
    whole = train(make_run(tmp_path / "whole", **changes))
    seconds, chance, stopped = time.monotonic() - start, random.Random(os.getpid()), 0
    for _ in range(20):
        (begun := tmp_path / "begun").unlink(missing_ok=True)
        process = child(killed_jobs.train_as_tool, tmp_path / "broken", changes, begun)
        assert wait_for(begun.exists)
        process.join(chance.uniform(0, seconds / 12))
        if process.is_alive():
            os.kill(process.pid, getattr(signal, next(KINDS)))
        process.join(PATIENCE)
        assert process.exitcode in (0, cli.STOPPED)
        stopped += process.exitcode == cli.STOPPED
    process = child(killed_jobs.train_as_tool, tmp_path / "broken", changes, begun)
    process.join(PATIENCE)
    found, expected = rows(tmp_path / "broken"), rows(tmp_path / "whole")
    differing = sum(a != b for a, b in zip(found, expected, strict=True))
    print(f"{stopped} runs stopped by signals; {differing} of {len(expected)} rows differ")
    assert process.exitcode == 0 and whole.step == 40 and differing == 0 and stopped >= 10


@pytest.mark.parametrize("name", killed_jobs.JOBS)
def test_signals_to_a_job(tmp_path: Path, child: Callable[..., Any], name: str) -> None:  # noqa: F811
    corpus, begun, stopped = killed_jobs.make_corpus(tmp_path / "corpus"), tmp_path / "begun", 0
    start = time.monotonic()
    child(killed_jobs.as_tool, name, corpus, tmp_path / "whole" / "out", begun).join(PATIENCE)
    seconds, chance = time.monotonic() - start, random.Random(os.getpid())
    # Starting a process takes longer than the shortest job, so later signals come sooner.
    for part, kind in itertools.product((4, 16, 64), signals.NAMES):
        begun.unlink()
        process = child(killed_jobs.as_tool, name, corpus, tmp_path / "broken" / "out", begun)
        assert wait_for(begun.exists)
        process.join(chance.uniform(0, seconds / part))
        if process.is_alive():
            os.kill(process.pid, getattr(signal, kind))
        process.join(PATIENCE)
        assert process.exitcode in (0, cli.STOPPED)
        stopped += process.exitcode == cli.STOPPED
    process = child(killed_jobs.as_tool, name, corpus, tmp_path / "broken" / "out", begun)
    process.join(PATIENCE)
    print(f"{name}: {stopped} of 12 stopped by signals")
    assert process.exitcode == 0
    assert stopped or name == "convert"  # which may be over before a signal comes
    assert killed_jobs.content(tmp_path / "broken") == killed_jobs.content(tmp_path / "whole")


@pytest.mark.parametrize("victim", ["rank", "launcher", "Paddle's launcher", "terminal"])
def test_nothing_lives_on(tmp_path: Path, victim: str) -> None:
    words = ["train.max_steps=1000000", "train.batch_size=128", "train.micro_batch_size=1"]
    terminal = -1
    if victim == "terminal":
        command = [sys.executable, "-m", "unimo.training.launch"]
        script = Path(killed_jobs.__file__).with_name("small_run.py")
        command += [str(script), str(tmp_path), *words, f"output_dir={tmp_path}"]
        launcher, terminal = pty.fork()
        if not launcher:
            os.execve(sys.executable, command, {**os.environ, "NPROC_PER_NODE": "2"})
        reap = lambda: os.waitpid(launcher, os.WNOHANG)  # noqa: E731
    else:
        process = start_ranks(2, tmp_path, words)
        launcher, reap = process.pid, process.poll
    assert wait_for(lambda: (tmp_path / "metrics.jsonl").exists() and len(descendants(tmp_path)) >= 4)
    ranks = [
        pid for pid in descendants(tmp_path) if b"unimo" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(ranks) == 2, ranks
    others = [pid for pid in descendants(tmp_path) if pid not in (*ranks, launcher)]
    started = time.monotonic()
    if victim == "terminal":
        os.close(terminal)
    else:
        chosen = {"rank": ranks[1], "launcher": launcher, "Paddle's launcher": others[0]}[victim]
        os.kill(chosen, signal.SIGKILL)

    def is_over() -> bool:
        with contextlib.suppress(ChildProcessError):
            reap()
        return not descendants(tmp_path)

    assert wait_for(is_over, 60), descendants(tmp_path)
    print(f"killed {victim}: nothing alive after {time.monotonic() - started:.1f} s")
