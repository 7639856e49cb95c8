"""Run the rows of a study by the public commands, several at a time, and keep every finished stage.

`ROW_SEED/row.json` in the output folder holds the commands of a row and the scores and minutes of each stage
that is done; `ROW_SEED/log.txt` what the commands log. Killed at any moment, the same call goes on: finished
stages are read, and a training resumes from its own last checkpoint. A row that stands in `table.csv` with
the same commands is finished, even without its folder.
"""

from __future__ import annotations

import concurrent.futures
import json
import logging
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unimo import cli
from unimo._runtime import available_cores
from unimo.errors import ConfigError, UnimoError
from unimo.files import read_json_object, write_text
from unimo.signals import Interrupted
from unimo.studies.results import Result, digest, find_result, read_table
from unimo.studies.study import Evaluate, Job, Stage, Study

logger = logging.getLogger(__name__)
TOOLS = Path(__file__).resolve().parents[2] / "tools"
RECORD = "row.json"
# A study that is killed must not leave a training behind, which would keep its folder locked: with
# PR_SET_PDEATHSIG Linux kills the training too.
TIED = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGKILL); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


def make_jobs(
    study: Study,
    rows: Sequence[str] = (),
    seeds: Sequence[int] = (),
    steps: dict[str, int] | None = None,
    overrides: Sequence[str] = (),
) -> list[Job]:
    """Return every chosen row with every seed, seed by seed, so that the first seed is complete first.

    Rows, seeds and steps that are not given are those of the study.

    Raises:
        ConfigError: unknown row, or fewer steps than the study needs.
    """
    chosen = {each.name: (steps or {}).get(each.name, each.default) for each in study.steps}
    for each in study.steps:
        if chosen[each.name] < each.least:
            raise ConfigError(f"--{each.name}-steps is {chosen[each.name]}, expected {each.least} or more")
    return [
        Job(row, seed, chosen, tuple(overrides))
        for seed in dict.fromkeys(seeds or study.seeds)
        for row in study.choose_rows(tuple(rows))
    ]


def run_jobs(
    jobs: Sequence[Job], output: Path, workers: int, row_done: Callable[[], None] = lambda: None
) -> None:
    """Run what is not finished of every job, `workers` jobs at a time, which share the cores.

    Args:
        jobs: rows and seeds.
        output: folder of the study.
        workers: number of jobs at a time.
        row_done: called when a job is finished, in the thread of the caller.

    Raises:
        ConfigError: the folder holds a row that was made with other settings.
        UnimoError: a command failed. Rows that run then are stopped; what is finished is kept.
        Interrupted: a training was stopped by a signal.
    """
    table = read_table(output)
    jobs = [job for job in jobs if find_result(job, table) is None]
    for job in jobs:
        _read_record(job, output)  # refuses before hours are spent
    threads, stop = max(1, available_cores() // workers), threading.Event()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(_run_job, job, output, threads, stop) for job in jobs]
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
                row_done()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _run_job(job: Job, output: Path, threads: int, stop: threading.Event) -> None:
    folder, record = output / job.row.folder(job.seed), _read_record(job, output)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / RECORD, json.dumps(record, indent=1))
    for name, words in job.commands(output).items():
        if name in record["stages"]:
            continue
        if stop.is_set():
            return
        started = time.monotonic()
        printed = call(words, folder / "log.txt", threads, stop)
        # A training that was interrupted counts from its last start.
        done: dict[str, Any] = {"minutes": round((time.monotonic() - started) / 60, 2)}
        if isinstance(job.stages[name], Evaluate):
            found = json.loads(printed)
            done |= {"scores": found["metrics"], "split": found["split"], "selection": found["selection"]}
        record["stages"][name] = done
        write_text(folder / RECORD, json.dumps(record, indent=1))
        logger.info("%s, seed %d: %s took %.1f minutes", job.row.name, job.seed, name, done["minutes"])


def call(words: Sequence[str], log: Path, threads: int, stop: threading.Event) -> str:
    """Return what a tool of `tools/` prints; `stop` ends it, so that it saves what it has."""
    with log.open("a", encoding="utf8") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", TIED, str(TOOLS / words[0]), *words[1:]],
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )
        while True:
            try:
                printed = process.communicate(timeout=0.5)[0]
                break
            except subprocess.TimeoutExpired:
                if stop.is_set():
                    process.terminate()
    if process.returncode == cli.STOPPED:
        raise Interrupted(f"a signal to tools/{words[0]}")
    if process.returncode:
        raise UnimoError(
            f"tools/{words[0]} ended with code {process.returncode}; see {log}. "
            "Finished stages are kept: the same command goes on there"
        )
    return printed


def _read_record(job: Job, output: Path) -> dict[str, Any]:
    """Return what an earlier call kept of a job, with the commands of this one.

    Raises:
        ConfigError: a stage was made with another command, or the file is broken.
    """
    path, commands = output / job.row.folder(job.seed) / RECORD, job.commands()
    if not path.is_file():
        return {"commands": commands, "stages": {}}
    record = read_json_object(path, ConfigError)
    kept, stages = record["commands"], record["stages"]
    for name, words in commands.items():
        before = kept.get(name, words)
        if before != words:
            there = " ".join(word for word in before if word not in words) or "less"
            now = " ".join(word for word in words if word not in before) or "less"
            raise ConfigError(
                f"{path.parent}: {name} was made with {there}, and is {now} now; "
                "give another --output, or remove that folder"
            )
    return {"commands": kept | commands, "stages": stages}


def waiting_stages(job: Job, output: Path) -> list[Stage]:
    """Return the stages of a job that are not done yet.

    Raises:
        ConfigError: the folder holds the row with other settings.
    """
    if find_result(job, read_table(output)):
        return []
    done = _read_record(job, output)["stages"]
    return [stage for name, stage in job.stages.items() if name not in done]


def collect(study: Study, jobs: Sequence[Job], output: Path) -> list[Result]:
    """Return all finished rows of an output folder, in declared order, from this call and earlier ones.

    Rows of other settings than those of `jobs` are left out, and the log names them.
    """
    results, table = [], read_table(output)
    for row in study.rows:
        found = [re.fullmatch(rf"{re.escape(row.slug)}_(\d+)", path.name) for path in output.glob("*")]
        seeds = {int(match[1]) for match in found if match}
        for seed in sorted(seeds | {each["seed"] for each in table if each["row"] == row.name}):
            job = Job(row, seed, jobs[0].steps, jobs[0].overrides)
            if kept_result := find_result(job, table):
                results.append(kept_result)
                continue
            if seed not in seeds:
                logger.warning(
                    "left out: %s, seed %d in table.csv was made with other settings", row.name, seed
                )
                continue
            try:
                kept = _read_record(job, output)["stages"]
            except ConfigError as error:
                logger.warning("left out of the table: %s", error)
                continue
            if job.stages.keys() <= kept.keys():
                results.append(_flatten(job, kept))
    return results


def _flatten(job: Job, kept: Mapping[str, Any]) -> Result:
    flat: Result = {"row": job.row.name, "seed": job.seed, "split": "", "selection": ""}
    flat |= {"commands": digest(job), "minutes": 0.0, "training_minutes": 0.0}
    for name, stage in job.stages.items():
        flat["minutes"] += kept[name]["minutes"]
        if isinstance(stage, Evaluate):
            flat["split"] = kept[name].get("split", "val")
            flat["selection"] = kept[name].get("selection", "clean")
            flat |= {f"{name}.{metric}": value for metric, value in kept[name]["scores"].items()}
        else:
            flat["training_minutes"] += kept[name]["minutes"]
    return flat | {key: round(flat[key], 2) for key in ("minutes", "training_minutes")}


def estimate_minutes(
    study: Study, jobs: Sequence[Job], results: Sequence[Result], output: Path
) -> float | None:
    """Return about how many minutes what is left of `jobs` takes with one row at a time, None if not known.

    A row that is finished with another seed says how long it takes; the declared minutes, those of default
    rows, say the rest.
    """
    declared, usual, total = {each.name: each.minutes for each in study.steps}, study.choose_rows(), 0.0
    for job in jobs:
        waiting = waiting_stages(job, output)
        before = [result["minutes"] for result in results if result["row"] == job.row.name]
        if before and len(waiting) == len(job.stages):
            total += statistics.mean(before)
            continue
        for stage in waiting:
            if isinstance(stage, Evaluate):
                continue
            minutes = declared[stage.steps]
            if minutes is None or job.row not in usual:
                return None
            total += job.steps[stage.steps] * minutes / 1000
    return total
