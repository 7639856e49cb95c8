"""Tables of trainings: every variant with every seed, by the public commands, several at a time."""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import json
import logging
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimo._runtime import available_cores
from unimo.errors import UnimoError
from unimo.files import write_text

logger = logging.getLogger(__name__)
TOOLS = Path(__file__).resolve().parents[2] / "tools"
Row = dict[str, Any]


def add_study_arguments(parser: argparse.ArgumentParser, output: str) -> None:
    """Arguments that all tables of trainings have: seeds, jobs, output folder, overrides."""
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="rows at a time; the cores are shared out")
    parser.add_argument("--output", type=Path, default=Path(output))
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for every training")


def variant_jobs(
    args: argparse.Namespace, make: Callable[[argparse.Namespace, str, int, Bench], Row]
) -> dict[str, Callable[[Bench], Row]]:
    """Folder name -> what makes the row, for `args.variants` with each of `args.seeds`."""
    return {
        f"{variant.replace('/', '').replace(' ', '_')}_{seed}": functools.partial(make, args, variant, seed)
        for seed in args.seeds
        for variant in args.variants
    }


@dataclass(frozen=True)
class Bench:
    """Where the commands of one row run.

    Attributes:
        folder: of everything the row leaves; `log.txt` there holds what the tools log.
        threads: `OMP_NUM_THREADS` of each command.
    """

    folder: Path
    threads: int

    def call(self, tool: str, *words: object) -> str:
        """Standard output of a tool of `tools/`.

        Raises:
            UnimoError: the tool failed.
        """
        with (self.folder / "log.txt").open("a", encoding="utf8") as log:
            done = subprocess.run(
                [sys.executable, str(TOOLS / tool), *map(str, words)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": str(self.threads)},
                check=False,
            )
        if done.returncode:
            raise UnimoError(f"tools/{tool} ended with code {done.returncode}; see {self.folder / 'log.txt'}")
        return done.stdout

    def scores(self, *words: object) -> dict[str, float]:
        """The metrics that `tools/evaluate.py` prints."""
        return json.loads(self.call("evaluate.py", *words))["metrics"]


def run_study(jobs: Mapping[str, Callable[[Bench], Row]], output: Path, workers: int) -> list[Row]:
    """The row of every job, in their order. Rows that an earlier call finished are read, not made again.

    Args:
        jobs: folder name -> what makes the row there.
        output: folder of those folders; `table.json` there gets all rows.
        workers: jobs at a time; the cores are shared out among them.

    Raises:
        UnimoError: a command failed; rows that are finished by then are kept.
    """
    threads = max(1, available_cores() // workers)

    def make(name: str, job: Callable[[Bench], Row]) -> Row:
        folder = output / name
        folder.mkdir(parents=True, exist_ok=True)
        done = folder / "row.json"
        if done.is_file():
            return json.loads(done.read_text(encoding="utf8"))
        row = job(Bench(folder, threads))
        write_text(done, json.dumps(row, indent=1))
        logger.info("%s: %s", name, json.dumps(row))
        return row

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(make, name, job) for name, job in jobs.items()]
        try:
            rows = [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    write_text(output / "table.json", json.dumps(rows, indent=1))
    return rows


def mean_and_each(rows: Sequence[Row], name: str, digits: int = 1) -> str:
    """`**82.1** (80.0, 84.2)`: the mean of a score over rows, and each one."""
    values = [float(row[name]) for row in rows]
    each = ", ".join(f"{value:.{digits}f}" for value in values)
    return f"**{statistics.mean(values):.{digits}f}** ({each})"


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table for a README."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
