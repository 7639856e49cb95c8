"""Several runs of one command, one after the other: stages of pre-training, each from the result of the one
before (`task.stages=all`), or the modes of a model in fine-tuning (`task.mode=best`).

Every one has a folder of its own with its name, so what is done is what that folder says: finished ones are
not repeated, and the one that was broken off goes on from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unimo import cli, distributed
from unimo.errors import CheckpointError
from unimo.inference import loading
from unimo.settings import RunConfig
from unimo.training import run as training
from unimo.training import stages, start
from unimo.training.pace import duration
from unimo.training.plan import Plan

logger = logging.getLogger(__name__)


def left_of(runs: Sequence[RunConfig]) -> list[RunConfig]:
    """Return the runs of all stages but those that `init_from` of the first went through already.

    Raises:
        CheckpointError: that is all of them, or there is no such model directory.
    """
    begin = runs[0].init_from
    done = stages.behind(runs[0])
    left = [run for run in runs if run.task.stage not in done]
    if not left:
        raise CheckpointError(f"init_from={begin} went through all stages; start from a model that did not")
    return [replace(left[0], init_from=begin), *left[1:]]


def without_results(runs: Sequence[RunConfig]) -> list[RunConfig]:
    """Return the runs without the models that they start from, where one of them is yet to make those."""
    results = {f"{run.output_dir}/model" for run in runs}
    files = (loading.CONFIG, loading.WEIGHTS)
    unmade = {place for place in results if not all((Path(place) / name).is_file() for name in files)}
    return [replace(run, init_from="") if run.init_from in unmade else run for run in runs]


def plan_runs(runs: Sequence[RunConfig]) -> Iterator[tuple[RunConfig, Plan | None]]:
    """Plan the runs one by one; None for a finished one. Errors as of `unimo.training.run.train`."""
    for run, ready in zip(runs, without_results(runs), strict=True):
        with training.open_run(ready) as (opened, processor, last, source):
            if last is not None and distributed.on_first(lambda: start.finished(opened, last)) is not None:
                yield run, None
                continue
            source = source if last is not None else f"init_from={run.init_from}" * bool(run.init_from)
            yield run, training.assemble(opened, processor, last, source or "scratch")[1]


@contextlib.contextmanager
def _warnings_only() -> Iterator[None]:
    library = logging.getLogger("unimo")
    level = library.level
    library.setLevel(logging.WARNING)
    try:
        yield
    finally:
        library.setLevel(level)


def kind_of(runs: Sequence[RunConfig]) -> str:
    """Return what several runs are, a `stage` or a `mode` each."""
    return "stage" if stages.order_of(runs[0]) else "mode"


def name_of(run: RunConfig) -> str:
    """Return the name of one of several runs, which is that of its folder."""
    return Path(run.output_dir).name


def format_runs(planned: Sequence[tuple[RunConfig, Plan | None]]) -> str:
    """Format what there is to do: a line for each run, and the time of all."""
    runs, total = [run for run, _ in planned], 0.0
    lines = [f"plan: {runs[0].model.name}, {len(runs)} {kind_of(runs)}s"]
    width = max(len(name_of(run)) for run in runs)
    for run, plan in planned:
        todo = "finished"
        if plan is not None:
            todo = f"{plan.last_step - plan.first_step:,} steps"
            todo += f" after step {plan.first_step:,}" * bool(plan.first_step)
            todo += f", {duration(plan.time.run_seconds)}" if plan.time else ", time unknown"
            total += plan.time.run_seconds if plan.time else 0.0
        lines.append(f"  {name_of(run):<{width}}  {todo}, in {run.output_dir}")
    return "\n".join([*lines, f"  {'all':<{width}}  {duration(total)}"])


def train_runs(runs: Sequence[RunConfig]) -> list[dict[str, Any]]:
    """Carry out the runs and return their summaries, up to that of the one that was stopped.

    Errors as of `unimo.training.run.train`.
    """
    kind = kind_of(runs)
    logger.info("planning %d %ss", len(runs), kind)
    with _warnings_only():  # all else is said again when a run begins
        planned = list(plan_runs(runs))
    logger.info("%s", format_runs(planned))
    summaries: list[dict[str, Any]] = []
    for number, run in enumerate(runs, 1):
        logger.info("%s %d of %d: %s, in %s", kind, number, len(runs), name_of(run), run.output_dir)
        summary = training.train(run)
        summaries.append(summary)
        if not is_done(summary):
            break
    return summaries


def is_done(summary: Mapping[str, Any]) -> bool:
    """Return whether the next run may follow on one with this summary."""
    whole = summary["step"] == summary["max_steps"] or summary.get("ended_early")
    return whole and not cli.code_after(summary["stopped_by"])
