"""Kill a run at any step and start it again: the remaining losses are those of the unbroken run, bit for bit.

Two corpora, in the middle of epochs, with dropout, checkpoints that do not fall on log lines.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from paddle_launch import run_ranks, start_ranks
from small_run import make_run, train

from unimo.training import callbacks, checkpoint
from unimo.training.state import StepReport, TrainState

METRICS = ("step", "split", "loss", "square", "error", "grad_norm", "lr", "weight_sum")


def rows(output: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without what depends on the clock."""
    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key in METRICS} for line in lines]


class KilledError(Exception):
    """Stands for the end of a process."""


class DieAt(callbacks.Callback):
    """Raises in the middle of a step, when its metrics are not read yet."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, state: TrainState, report: StepReport) -> None:
        if state.step == self.step:
            raise KilledError


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


def test_accumulated_run_resumes(tmp_path: Path) -> None:
    options = {"train": {"accumulate": 2}}
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


def wait_for(path: Path, seconds: float = 60.0) -> None:
    """Wait until a file or folder exists."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.02)


def test_sigkill_while_running(tmp_path: Path) -> None:
    words = ["train.max_steps=300", "train.save_every=7", "train.keep_checkpoints=1"]
    script = Path(__file__).parent / "small_run.py"
    command = [sys.executable, str(script), str(tmp_path / "broken"), *words]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    wait_for(tmp_path / "broken/checkpoints")
    time.sleep(0.3)
    process.kill()
    process.wait()
    last = checkpoint.find_last(tmp_path / "broken")
    assert subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120).returncode == 0
    whole = make_run(tmp_path / "whole", train={"max_steps": 300, "save_every": 7, "keep_checkpoints": 1})
    train(whole)
    assert last is None or int(last.name[5:]) < 300
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")


def test_sigterm_saves_and_exits_cleanly(tmp_path: Path) -> None:
    script = Path(__file__).parent / "small_run.py"
    command = [sys.executable, str(script), str(tmp_path), "train.max_steps=100000", "train.save_every=0"]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    wait_for(tmp_path / "metrics.jsonl")
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    last = checkpoint.find_last(tmp_path)
    assert last is not None
    assert 0 < checkpoint.read_state(last)["step"] < 100000


@pytest.mark.parametrize("stage", [0, 1])
def test_two_ranks_killed_and_resumed(tmp_path: Path, stage: int) -> None:
    words = ["train.max_steps=200", "train.save_every=10", f"train.sharding_stage={stage}"]
    run_ranks(2, tmp_path / "whole", words)
    launcher, ranks = start_ranks(2, tmp_path / "broken", words)
    wait_for(tmp_path / "broken/checkpoints/step_00000010")
    os.kill(ranks()[1], signal.SIGKILL)
    assert launcher.wait(timeout=60) != 0
    run_ranks(2, tmp_path / "broken", words)
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")
