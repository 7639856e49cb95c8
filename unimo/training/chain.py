"""Stages of pre-training one after the other, each from the result of the one before (`task.stages=all`).

Every stage is a run with a folder of its own, so what is done is what its folder says: finished stages are
not repeated, and the one that was broken off goes on from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
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


def before_its_start(run: RunConfig) -> RunConfig:
    """Return the run of a stage without the model that it starts from, as long as that is not made."""
    is_made = all((Path(run.init_from) / name).is_file() for name in (loading.CONFIG, loading.WEIGHTS))
    return run if is_made else replace(run, init_from="")


def plan_stages(runs: Sequence[RunConfig]) -> Iterator[tuple[RunConfig, Plan | None]]:
    """Plan the stages one by one; None for a finished one. Errors as of `unimo.training.run.train`."""
    for run in runs:
        with training.open_run(before_its_start(run)) as (opened, processor, last, source):
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


def format_stages(planned: Sequence[tuple[RunConfig, Plan | None]]) -> str:
    """Format what there is to do: a line for each stage, and the time of all."""
    lines, total = [f"plan: {planned[0][0].model.name}, {len(planned)} stages"], 0.0
    width = max(len(run.task.stage) for run, _ in planned)
    for run, plan in planned:
        todo = "finished"
        if plan is not None:
            todo = f"{plan.last_step - plan.first_step:,} steps"
            todo += f" after step {plan.first_step:,}" * bool(plan.first_step)
            todo += f", {duration(plan.time.run_seconds)}" if plan.time else ", time unknown"
            total += plan.time.run_seconds if plan.time else 0.0
        lines.append(f"  {run.task.stage:<{width}}  {todo}, in {run.output_dir}")
    return "\n".join([*lines, f"  {'all':<{width}}  {duration(total)}"])


def train_stages(runs: Sequence[RunConfig]) -> dict[str, Any]:
    """Carry out the stages and return the summary of the last one, or of the one that was stopped.

    Errors as of `unimo.training.run.train`.
    """
    logger.info("planning %d stages", len(runs))
    with _warnings_only():  # all else is said again when a stage begins
        planned = list(plan_stages(runs))
    logger.info("%s", format_stages(planned))
    for number, run in enumerate(runs, 1):
        logger.info("stage %d of %d: %s, in %s", number, len(runs), run.task.stage, run.output_dir)
        summary = training.train(run)
        if cli.code_after(summary["stopped_by"]) or summary["step"] < summary["max_steps"]:
            break
    return summary
