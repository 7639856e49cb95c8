"""Stages of pre-training: which ones a model has behind it, and whether the next may follow.

Only some papers have stages (`Paper.stages`). The model directory lists those that its weights went through,
`metadata.stages`.
"""

from __future__ import annotations

import logging

from unimo import registry
from unimo.errors import CheckpointError
from unimo.inference import loading
from unimo.settings import RunConfig

logger = logging.getLogger(__name__)


def order_of(run: RunConfig) -> list[str]:
    """Return the stages of the paper in order; none where a run is not one of several."""
    return list(registry.paper_of(run.model.name).stages) if run.task.name == "pretrain" else []


def behind(run: RunConfig) -> list[str]:
    """Return the stages that `init_from` went through, in order.

    Raises:
        CheckpointError: there is no such model directory.
    """
    if not run.init_from or not (order := order_of(run)):
        return []
    found = (loading.read_model_config(run.init_from).get("metadata") or {}).get("stages")
    return [stage for stage in order if isinstance(found, list) and stage in found]


def record(run: RunConfig) -> dict[str, list[str]]:
    """Return the metadata of a model that went through a run; errors as of `behind`."""
    done = {*behind(run), getattr(run.task, "stage", "")}
    stages = [stage for stage in order_of(run) if stage in done]
    return {"stages": stages} if stages else {}


def check_order(run: RunConfig) -> None:
    """Check that the stage of a run may follow on what it starts from; warn of stages that are left out.

    Raises:
        CheckpointError: `init_from` has a later stage behind it, or lacks one whose result this one keeps.
    """
    order = order_of(run)
    if not order:
        return
    stage, found = run.task.stage, behind(run)
    place, start = order.index(stage), f"init_from={run.init_from}"
    if late := [each for each in order[place + 1 :] if each in found]:
        raise CheckpointError(
            f"task.stage={stage} comes before {late[-1]}, which {start} went through; start from a model "
            "that did not, or leave out init_from"
        )
    missing = [each for each in order[:place] if each not in found]
    needed = [each for each in registry.paper_of(run.model.name).stages[stage] if each in missing]
    if needed and run.init_from:
        raise CheckpointError(
            f"task.stage={stage} keeps what stage {needed[-1]} taught, and {start} did not go through that; "
            f"{_command(run, needed[-1])}"
        )
    if needed:
        logger.warning(
            "task.stage=%s keeps what stage %s taught, and without init_from that is random; %s",
            *(stage, needed[-1], _command(run, needed[-1])),
        )
    elif missing and run.init_from:
        logger.warning("%s did not go through stage %s; %s", start, missing[-1], _command(run, missing[-1]))


def _command(run: RunConfig, stage: str) -> str:
    """Return the command that makes what is missing."""
    return (
        f"make it with: bash scripts/run_pretrain.sh {run.model.name} task.stage={stage} output_dir=DIR, "
        "then init_from=DIR/model here"
    )
