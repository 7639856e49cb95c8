"""How long the trainings of a grid take at most, from the plan of one training of each task."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from unimo._runtime import available_cores
from unimo.errors import CheckpointError
from unimo.files import make_folder, read_json_object, write_text
from unimo.studies.results import digest
from unimo.studies.runner import call
from unimo.studies.study import Job, Steps, Study

S = TypeVar("S", bound=Study)
PLANS = "plans"


def with_minutes(study: S, output: Path, overrides: Sequence[str], may_plan: bool) -> S:
    """Return a study whose steps say how long they take, with the start of the two commands of a row.

    Plans are made once: an output folder keeps what they said. The time of a sample is that of the largest
    batch of its model and task.

    Args:
        may_plan: make plans that are missing, seconds each; else those steps say no time.
    """
    largest: dict[str, Job] = {}
    for row in study.rows:
        steps = next(each for each in study.steps if each.name == row.stages[0].steps)
        kind, batch = steps.name.rpartition("/")[::2]
        if kind not in largest or int(batch) > int(largest[kind].row.stages[0].steps.rpartition("/")[2]):
            largest[kind] = Job(row, 0, {steps.name: steps.default}, tuple(overrides))
    seconds = {kind: _run_seconds(job, output, may_plan) for kind, job in largest.items()}
    return replace(
        study, steps=tuple(_timed(each, seconds[each.name.rpartition("/")[0]]) for each in study.steps)
    )


def _timed(steps: Steps, seconds: float | None) -> Steps:
    return steps if seconds is None else replace(steps, minutes=1000 * seconds / 60 / steps.default)


def _run_seconds(job: Job, output: Path, may_plan: bool) -> float | None:
    """Return the seconds of a training with as many samples as that of a job; None if they are not known."""
    folder = output / PLANS / f"{job.row.slug}_{digest(job)}"
    kept = folder / "seconds.json"
    if not kept.is_file():
        if not may_plan:
            return None
        make_folder(folder, "--output")
        (training, *_) = job.row.stages
        started = time.monotonic()
        call(
            [*training.command(job, folder), "--plan"],
            folder / "log.txt",
            available_cores(),
            threading.Event(),
        )
        start = time.monotonic() - started
        found = read_json_object(folder / training.name / "plan.json", CheckpointError)["time"]
        whole = None if found is None else found["run_seconds"] + 2 * start
        write_text(kept, json.dumps({"seconds": whole}))
    return read_json_object(kept, CheckpointError)["seconds"]
