"""Processes that are killed at moments nobody chose, and checkpoints with a flipped bit: no row and no byte
of what comes out in the end differs from that of an unbroken run."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import killed_jobs
import micro
import numpy as np
import pytest
from paddle_launch import run_ranks, start_ranks
from small_run import make_run, train
from test_resume import rows

from unimo import cli
from unimo.inference.search.nearest import open_newest
from unimo.inference.search.store import open_store
from unimo.training import checkpoint

pytestmark = pytest.mark.slow
STEPS = {"max_steps": 150, "save_every": 3, "keep_checkpoints": 2, "log_every": 2, "eval_every": 10}
WORDS = [f"train.{name}={value}" for name, value in STEPS.items()]
PATIENCE = 240
"""Seconds after which something hangs."""


@pytest.fixture(scope="module")
def child() -> Callable[..., Any]:
    """Start a function of `killed_jobs` in a process of its own, which need not import Paddle again."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killed_jobs"])

    def start(function: Callable[..., None], *arguments: Any) -> Any:
        process = context.Process(target=function, args=arguments)
        process.start()
        return process

    return start


def kill_now_and_then(start: Callable[[], Any], kills: int, seconds: float, chance: random.Random) -> int:
    """Start a process again and again and kill it after a part of `seconds`; how many of them were alive."""
    killed = 0
    for _ in range(kills):
        process = start()
        process.join(chance.uniform(0, seconds))
        killed += process.is_alive()
        process.kill()
        process.join()
    return killed


def test_thirty_kills_of_a_training(tmp_path: Path, child: Callable[..., Any]) -> None:
    whole = train(make_run(tmp_path / "whole", train=STEPS))
    start = time.monotonic()
    process = child(killed_jobs.train, tmp_path / "warm", {"train": STEPS})
    process.join(PATIENCE)
    seconds, chance, killed = time.monotonic() - start, random.Random(os.getpid()), 0
    for number in range(3):
        output = tmp_path / str(number)
        killed += kill_now_and_then(
            lambda output=output: child(killed_jobs.train, output, {"train": STEPS}), 10, seconds / 2, chance
        )
        process = child(killed_jobs.train, output, {"train": STEPS})
        process.join(PATIENCE)
        assert process.exitcode == 0 and rows(output) == rows(tmp_path / "whole")
        hidden = [path.name for path in output.rglob(".*") if path.name != ".lock"]
        assert not hidden, hidden
    assert killed > 15 and whole.step == 150


def descendants(output: Path) -> list[int]:
    """Processes whose command line names a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(output).encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_twelve_kills_of_two_ranks(tmp_path: Path) -> None:
    assert run_ranks(2, tmp_path / "whole", WORDS) == 0
    output, chance = tmp_path / "broken", random.Random(os.getpid())
    for number in range(12):
        before = checkpoint.find_last(output)
        process = start_ranks(2, output, WORDS)
        end = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < end:
            found = descendants(output)
            if len(found) >= 4 and checkpoint.find_last(output) != before:  # the ranks and both launchers
                break
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 0.3))
        # In turn the launcher is killed, and any of the others: a rank, or Paddle's launcher.
        victims = [process.pid] if number % 2 else [pid for pid in descendants(output) if pid != process.pid]
        if victims:
            os.kill(chance.choice(victims), signal.SIGKILL)
        process.wait(PATIENCE)
        while descendants(output):
            assert time.monotonic() < end, "ranks outlive their launcher"
            time.sleep(0.1)
    assert run_ranks(2, output, WORDS) == 0
    assert rows(output) == rows(tmp_path / "whole")


@pytest.mark.parametrize("name", killed_jobs.JOBS)
def test_six_kills_of_a_tool(tmp_path: Path, child: Callable[..., Any], name: str) -> None:
    corpus, job = killed_jobs.make_corpus(tmp_path / "corpus"), killed_jobs.JOBS[name]
    child(job, corpus, tmp_path / "warm" / "out").join(PATIENCE)
    start = time.monotonic()
    child(job, corpus, tmp_path / "whole" / "out").join(PATIENCE)
    seconds, chance = time.monotonic() - start, random.Random(os.getpid())
    for _ in range(6):
        folder = tmp_path / "killed" / "out"
        kill_now_and_then(lambda folder=folder: child(job, corpus, folder), 1, seconds, chance)
    process = child(job, corpus, folder)
    process.join(PATIENCE)
    assert process.exitcode == 0
    assert killed_jobs.content(tmp_path / "killed") == killed_jobs.content(tmp_path / "whole")


def test_forty_kills_of_an_index_searched_meanwhile(tmp_path: Path, child: Callable[..., Any]) -> None:
    directory, chance, killed, answers = micro.saved("retrieval", tmp_path), random.Random(os.getpid()), 0, 0

    def search(folder: Path) -> None:
        """Answer from one state, whole and without doubles, whatever is written meanwhile."""
        opened, index = open_newest(folder)
        names = [name["id"] for name in opened.names()]
        assert len(set(names)) == len(names) == opened.state.rows
        found = index.search(opened.vectors(0)[:1], 5)
        assert found.rows[0, 0] == 0 and found.scores[0, 0] == pytest.approx(1, abs=1e-5)
        assert opened.name(int(found.rows[0, 1])) is not None

    def build(folder: Path, images: int, seconds: float = PATIENCE) -> bool:
        """Whether a kill after some time came before the end."""
        nonlocal answers
        process, end = child(killed_jobs.index, directory, folder, images), time.monotonic() + seconds
        while process.is_alive() and time.monotonic() < end:
            if (folder / "index.json").exists() and open_store(folder).state.rows > 4:
                search(folder)
                answers += 1
            process.join(min(0.05, max(0.0, end - time.monotonic())))
        alive = process.is_alive()
        process.kill()
        process.join()
        assert alive or process.exitcode == 0
        return alive

    build(tmp_path / "warm", 64)
    start = time.monotonic()
    build(tmp_path / "whole", 400)
    seconds = time.monotonic() - start
    build(tmp_path / "whole", 480)
    whole = open_store(tmp_path / "whole")
    wanted = dict(zip((name["id"] for name in whole.names()), whole.take(np.arange(480)), strict=True))
    for number in range(4):
        folder = tmp_path / str(number)
        for images in (400, 480):  # built, then added to
            killed += sum(build(folder, images, chance.uniform(0, seconds)) for _ in range(5))
            build(folder, images)
        opened = open_store(folder)
        opened.check_all()
        names = [name["id"] for name in opened.names()]
        assert sorted(names) == sorted(wanted) and opened.state.lists.rows == 480
        expected = np.stack([wanted[name] for name in names])
        np.testing.assert_allclose(opened.take(np.arange(480)), expected, atol=1e-5)
        assert not [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]
    assert killed >= 8 and answers >= 40


def test_forty_flipped_bits_of_the_last_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(make_run(tmp_path / "whole"))
    chance, last = random.Random(0), Path("checkpoints/step_00000012")
    files = sorted((tmp_path / "whole" / last).iterdir())
    for number in range(40):
        output = shutil.copytree(tmp_path / "whole", tmp_path / str(number))
        # Places are drawn among all bytes, but every fourth among those of the two small files.
        drawn = files if number % 4 else [path for path in files if path.suffix != ".safetensors"]
        name = chance.choices(drawn, [path.stat().st_size for path in drawn])[0].name
        content = bytearray((output / last / name).read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        (output / last / name).write_bytes(content)
        caplog.clear()
        assert checkpoint.find_last(output).name == "step_00000008"
        assert train(make_run(output)).step == 12
        assert "step_00000012 is damaged" in caplog.text and rows(output) == rows(tmp_path / "whole")
        for path in files:
            if path.suffix == ".safetensors":
                assert (output / last / path.name).read_bytes() == path.read_bytes()
        shutil.rmtree(output)


def test_a_signal_during_the_final_evaluation_of_two_ranks(tmp_path: Path) -> None:
    words = [*micro.words(), "train.eval_batch_size=1", "data.scenes.val_images=400"]
    words = ["--task", "vqa", "--model", "unimo3_tiny", "--init", "none", *words, "train.log_every=1"]
    tool = Path(__file__).resolve().parent.parent / "tools" / "finetune.py"
    summary, last = tmp_path / "summary.json", tmp_path / "checkpoints" / "step_00000003"
    process = start_ranks(2, tmp_path, words, tool)
    end = time.monotonic() + PATIENCE
    while not last.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == cli.STOPPED
    first = json.loads(summary.read_text())
    assert (first["step"], first["stopped_by"], first["metrics"]) == (3, "SIGTERM", {})
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert start_ranks(2, tmp_path, words, tool).wait(PATIENCE) == 0
    second = json.loads(summary.read_text())
    assert second["steps_now"] == 0 and second["stopped_by"] == "" and "overall" in second["metrics"]
