"""The better of several modes of fine-tuning, as SemVLP's section 3.3.3 has it (`task.mode=best`)."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unimo import distributed
from unimo.config import dump
from unimo.errors import CheckpointError
from unimo.files import write_text
from unimo.inference.folders import replacing_folder
from unimo.settings import RunConfig
from unimo.training import checkpoint
from unimo.training.next_command import next_command
from unimo.training.start import SUMMARY

logger = logging.getLogger(__name__)
KEPT = ("model", "best")
"""Folders of a run that are copied: the last model, and the one with the best score."""


def check_folder(runs: Sequence[RunConfig]) -> None:
    """Check that the folder around those of all modes is not that of a run in one mode.

    Raises:
        CheckpointError: it is.
    """
    folder = Path(runs[0].output_dir).parent
    if checkpoint.folder_of(folder).is_dir():
        raise CheckpointError(
            f"{folder} is the output folder of a single run; choose another folder for task.mode=best, "
            f"output_dir={folder}_best"
        )


def keep_best(runs: Sequence[RunConfig], summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Copy the models of the best mode into the folder around those of all modes, and return its summary.

    The best has the highest value of `train.select_metric` on the split of validation, or the lowest of a
    loss; of equal ones the first. `modes` of the summary, which is also written, has the value of each.
    Collective.

    Raises:
        CheckpointError: the models cannot be copied.
    """
    metric = runs[0].train.select_metric
    folder = Path(runs[0].output_dir).parent
    scores = {run.model.mode: found["best"][metric] for run, found in zip(runs, summaries, strict=True)}
    mode = (min if "loss" in metric else max)(scores, key=scores.__getitem__)
    run, summary = next(pair for pair in zip(runs, summaries, strict=True) if pair[0].model.mode == mode)
    kept = replace(run, output_dir=str(folder))
    place = {"output_dir": str(folder), "model_dir": str(folder / "model")}
    choice = {"mode": mode, "modes": scores, "selected_by": metric}
    summary = {**summary, **place, **choice, "next": next_command(kept, summary["split"], True)}
    distributed.on_first(lambda: _write(Path(run.output_dir), kept, summary))
    logger.info("%s: %s; kept %s", metric, ", ".join(f"{name} {x:.4f}" for name, x in scores.items()), mode)
    return summary


def _write(source: Path, kept: RunConfig, summary: dict[str, Any]) -> None:
    """Put models of the run in `source`, config and summary into the output folder of `kept`."""
    folder = Path(kept.output_dir)
    for name in KEPT:
        _copy(source / name, folder / name)
    write_text(folder / checkpoint.CONFIG, dump(kept))  # no other run begins here
    write_text(folder / SUMMARY, json.dumps(summary, indent=1))


def _copy(source: Path, target: Path) -> None:
    """Put a copy of a folder in the place of an older one."""
    with replacing_folder(target, f"copy {source} to {target}") as fresh:
        shutil.copytree(source, fresh, dirs_exist_ok=True)
