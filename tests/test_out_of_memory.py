"""Memory runs out on purpose: below a limit on the address space, and on one of two ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from paddle_launch import run_ranks
from small_run import make_run, train

from unimo.config import merge_into, read_yaml

WORDS = {"model": {"dropout": 0.0}, "train": {"log_every": 1}, "task": {"contrast": True}}
OVERRIDES = ["model.dropout=0.0", "train.log_every=1", "task.contrast=true"]
ROOT = Path(__file__).resolve().parent.parent


def losses(output: Path) -> list[float]:
    """The losses that a run logged."""
    rows = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if row["split"] == "train"]


def size_in(output: Path) -> int:
    """The micro-batch that the config of a run names."""
    return read_yaml(output / "config.yaml")["train"]["micro_batch_size"]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Losses of one rank that takes the whole batch at once."""
    output = tmp_path_factory.mktemp("single")
    train(merge_into(make_run(output), WORDS))
    return losses(output)


@pytest.mark.parametrize(
    "capacity", [2, *(pytest.param(capacity, marks=pytest.mark.slow) for capacity in (4, 1))]
)
def test_all_ranks_halve_if_one_lacks_memory(capacity: int, tmp_path: Path, single: list[float]) -> None:
    """Its trial does not need the others, which otherwise would wait for it in a collective."""
    code = run_ranks(2, tmp_path, OVERRIDES, script="lack_case.py", CAPACITY=str(capacity))
    log = (tmp_path / "launcher.log").read_text()
    assert code == 0, log[-2000:]
    assert size_in(tmp_path) == capacity
    np.testing.assert_allclose(losses(tmp_path), single, rtol=1e-5)


def test_a_rank_that_lacks_memory_later_ends_the_run_which_then_goes_on(
    tmp_path: Path, single: list[float]
) -> None:
    """The others wait in the middle of a pass; they end too, and all start again with half the size."""
    words = [*OVERRIDES, "train.save_every=1"]
    code = run_ranks(2, tmp_path, words, script="lack_case.py", CAPACITY="2", SHRINK="5")
    log = (tmp_path / "launcher.log").read_text()
    assert code != 0
    assert "rank 1 is out of memory in step 6 with micro-batches of 4; run the same command again" in log
    assert size_in(tmp_path) == 2
    assert run_ranks(2, tmp_path, words, script="lack_case.py", CAPACITY="2") == 0
    assert size_in(tmp_path) == 2
    np.testing.assert_allclose(losses(tmp_path), single, rtol=1e-5)


LIMITED = """
import resource, sys
import unimo, paddle
from unimo import cli
from unimo.settings import load_run_config
from unimo.training.memory import process_memory
from unimo.training.run import train
more = int(sys.argv[1]) << 20
if more:
    resource.setrlimit(resource.RLIMIT_AS, (process_memory("VmSize") + more,) * 2)
cli.run(lambda: train(load_run_config("unimo3_tiny", "vqa", sys.argv[2:])) and None)
"""


def limited(output: Path, megabytes: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Train in a child process with a limit, in megabytes, on its address space besides Paddle; 0: none."""
    words = (
        *(f"output_dir={output}", "train.device=cpu", "train.max_steps=2", "train.batch_size=1024", "seed=1"),
        *("train.log_every=1", "train.eval_batch_size=4", "train.eval_max_batches=1", "data.num_workers=0"),
        *("data.scenes.train_images=200", "data.scenes.val_images=8", "optim.warmup=0", *words),
        *("model.text.dropout=0", "model.text.attention_dropout=0", "model.fusion.dropout=0"),
    )
    return subprocess.run(
        [sys.executable, "-c", LIMITED, str(megabytes), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )


def test_a_limit_on_the_address_space(tmp_path: Path) -> None:
    """Less memory than the whole batch needs: smaller micro-batches, and the same losses."""
    whole, less = tmp_path / "whole", tmp_path / "less"
    assert limited(whole, 0).returncode == 0
    assert size_in(whole) == 1024
    done = limited(less, 700)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 1 <= size_in(less) < 1024
    np.testing.assert_allclose(losses(less), losses(whole), rtol=1e-5)


def test_a_limit_below_what_was_asked_for(tmp_path: Path) -> None:
    done = limited(tmp_path, 700, "train.micro_batch_size=1024")
    assert done.returncode == 2, done.stderr[-2000:]
    assert "with micro-batches of 1024 on rank 0; try train.micro_batch_size=auto" in done.stderr
