"""Start a script of this folder on several CPU ranks through `unimo.training.launch`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TESTS = Path(__file__).resolve().parent


def start_ranks(
    ranks: int, output: Path, words: Sequence[str] = (), script: str | Path = "small_run.py", **environ: str
) -> subprocess.Popen[bytes]:
    """Start the launcher with a script of this folder, which gets the output folder first, or with a tool.

    What the ranks print goes to `launcher.log`.
    """
    output.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "unimo.training.launch", str(TESTS / script)]
    command += [] if isinstance(script, Path) else [str(output)]
    with (output / "launcher.log").open("a") as log:
        return subprocess.Popen(
            [*command, *words, f"output_dir={output}"],
            env={**os.environ, "NPROC_PER_NODE": str(ranks), "OMP_NUM_THREADS": "1", **environ},
            stdout=log,
            stderr=log,
            cwd=TESTS.parent.parent,
        )


def run_ranks(
    ranks: int, output: Path, words: Sequence[str] = (), script: str = "small_run.py", **environ: str
) -> int:
    """Run to the end and give the exit code; arguments as of `start_ranks`."""
    with start_ranks(ranks, output, words, script, **environ) as process:
        return process.wait(timeout=180)
