"""Start `small_run.py` on several CPU ranks through `unimo.training.launch`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from unimo.training.launch import child_processes

TESTS = Path(__file__).resolve().parent


def start_ranks(
    ranks: int, output: Path, words: Sequence[str], script: str = "small_run.py"
) -> tuple[subprocess.Popen[str], Callable[[], list[int]]]:
    """The launcher's process, and a function that gives the process ids of the ranks."""
    environ = {
        **os.environ,
        "NPROC_PER_NODE": str(ranks),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(TESTS.parent),
    }
    command = [sys.executable, "-m", "unimo.training.launch", str(TESTS / script), str(output), *words]
    command.append(f"output_dir={output}")
    output.mkdir(parents=True, exist_ok=True)
    log = (output / "launcher.log").open("a")
    process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, text=True, cwd=TESTS.parent)

    def rank_processes() -> list[int]:
        return [rank for launcher in child_processes(process.pid) for rank in child_processes(launcher)]

    return process, rank_processes


def run_ranks(ranks: int, output: Path, words: Sequence[str], script: str = "small_run.py") -> None:
    """Run to the end and require success."""
    process, _ = start_ranks(ranks, output, words, script)
    try:
        code = process.wait(timeout=120)
    finally:
        process.kill()
    assert code == 0, (output / "launcher.log").read_text()[-4000:]
