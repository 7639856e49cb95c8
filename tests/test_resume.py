"""Kill a run at any step and start it again: the remaining losses are those of the unbroken run, bit for bit.

Two corpora, in the middle of epochs, with dropout, checkpoints that do not fall on log lines.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from killed import DieAt, KilledError
from paddle_launch import run_ranks
from small_run import make_run, train

from unimo import cli
from unimo.training import callbacks, checkpoint
from unimo.training.state import TrainState

METRICS = ("step", "split", "loss", "square", "views", "error", "grad_norm", "lr", "weight_sum")


def rows(output: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without what depends on the clock."""
    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key in METRICS} for line in lines]


@pytest.mark.parametrize("step", [1, 5, 8, 11])
def test_broken_run_equals_unbroken_run(tmp_path: Path, step: int) -> None:
    train(make_run(tmp_path / "whole"))
    run = make_run(tmp_path / "broken")
    with pytest.raises(KilledError):
        train(run, [DieAt(step)])
    state = train(run)
    assert state.step == 12
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")
    for name in ("model.safetensors", "optimizer.safetensors"):
        path = Path("checkpoints/step_00000012") / name
        assert (tmp_path / "broken" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()


@pytest.mark.parametrize("contrast", [False, True])
def test_accumulated_run_resumes(tmp_path: Path, contrast: bool) -> None:
    options = {"train": {"micro_batch_size": 4}, "task": {"contrast": contrast}}
    train(make_run(tmp_path / "whole", **options))
    with pytest.raises(KilledError):
        train(make_run(tmp_path / "broken", **options), [DieAt(6)])
    train(make_run(tmp_path / "broken", **options))
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")


def test_finished_run_is_not_repeated(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    train(run)
    before = rows(tmp_path)
    assert train(run).step == 12
    assert rows(tmp_path) == before


def start(output: Path, *words: str, **environ: str) -> subprocess.Popen[bytes]:
    """The small run in its own process."""
    command = [sys.executable, str(Path(__file__).parent / "support" / "small_run.py"), str(output), *words]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1", **environ})


def test_sigkill_of_a_process(tmp_path: Path) -> None:
    assert start(tmp_path / "broken", DIE_AT="7:0").wait(timeout=60) == -signal.SIGKILL
    assert checkpoint.find_last(tmp_path / "broken").name == "step_00000004"
    assert start(tmp_path / "broken").wait(timeout=60) == 0
    train(make_run(tmp_path / "whole"))
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")


def test_sigkill_while_saving(tmp_path: Path) -> None:
    """Kill at a time that nobody chose, with a checkpoint after every step."""
    words = ("train.max_steps=400", "train.save_every=1", "train.keep_checkpoints=1", "train.log_every=1")
    process = start(tmp_path / "broken", *words)
    end = time.monotonic() + 60
    while len(list((tmp_path / "broken").glob("checkpoints/step_*"))) < 1 and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(random.random() / 2)
    process.kill()
    process.wait()
    last = checkpoint.find_last(tmp_path / "broken")
    assert last is not None
    step = min(400, int(last.name[5:]) + 5)
    options = {"save_every": 100, "log_every": 1, "max_steps": 400}
    # The schedule must stay that of 400 steps, so the runs are stopped instead of shortened.
    train(make_run(tmp_path / "broken", train=options), [StopAt(step)])
    train(make_run(tmp_path / "whole", train=options), [StopAt(step)])
    losses = [[row["loss"] for row in rows(tmp_path / name) if "loss" in row] for name in ("broken", "whole")]
    assert len(losses[0]) == step
    assert losses[0] == losses[1]


class StopAt(callbacks.Callback):
    """Ends the run cleanly after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_logged(self, state: TrainState) -> None:
        if state.step >= self.step:
            state.stop_reason = "test"


def test_sigterm_saves_and_exits_cleanly(tmp_path: Path) -> None:
    process = start(tmp_path, "train.max_steps=1000000", "train.save_every=0")
    end = time.monotonic() + 60
    while not (tmp_path / "metrics.jsonl").exists() and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == cli.STOPPED
    last = checkpoint.find_last(tmp_path)
    assert last is not None
    assert 0 < json.loads((last / "state.json").read_text())["step"] < 1000000


@pytest.mark.parametrize(
    "words",
    [
        ["train.sharding_stage=0"],
        pytest.param(["train.sharding_stage=1"], marks=pytest.mark.slow),
        ["train.micro_batch_size=2", "task.contrast=true"],
    ],
    ids=["plain", "sharded", "rounds"],
)
def test_two_ranks_killed_and_resumed(tmp_path: Path, words: list[str]) -> None:
    assert run_ranks(2, tmp_path / "whole", words) == 0
    assert run_ranks(2, tmp_path / "broken", words, DIE_AT="10:1") != 0
    assert checkpoint.find_last(tmp_path / "broken").name == "step_00000008"
    assert run_ranks(2, tmp_path / "broken", words) == 0
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")
