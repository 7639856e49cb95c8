"""Model directories, which a run writes and `unimo.load` opens.

config.yaml         the run's config, plus `metadata` (answers, ...) and `processor`
model.safetensors   weights: `model.*` and the heads of the task
tokenizer.json      the tokenizer
metrics.json        scores at the time of saving, and how the checkpoint was chosen
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from unimo.config import merge_plain, read_yaml, to_plain
from unimo.errors import CheckpointError, shown
from unimo.files import write_text
from unimo.inference.folders import replacing_folder
from unimo.weights.files import write_safetensors

if TYPE_CHECKING:
    from unimo.data.processor import Processor
    from unimo.settings import RunConfig
    from unimo.tasks.base import Task

CONFIG, WEIGHTS, METRICS = "config.yaml", "model.safetensors", "metrics.json"


def save_model(
    task: Task,
    processor: Processor,
    directory: str | Path,
    metrics: Mapping[str, float | str] | None = None,
    run: RunConfig | None = None,
) -> Path:
    """Write a model directory under a temporary name, then replace an older one with it.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written; the older one is intact.
    """
    from unimo.weights.layers import open_layer

    directory = Path(directory)
    with replacing_folder(directory, f"write the model to {directory}") as fresh:
        processor.save(fresh)
        content = to_plain(run) if run is not None else {}
        content |= {"model": to_plain(task.model.config), "task": to_plain(task.config)}
        content["metadata"] = to_plain(task.metadata)
        write_text(fresh / CONFIG, yaml.safe_dump(merge_plain(read_config(fresh), content), sort_keys=False))
        write_text(fresh / METRICS, json.dumps(dict(metrics or {}), indent=1))
        write_safetensors(fresh / WEIGHTS, open_layer(task))
    return directory


def read_config(directory: Path) -> dict[str, Any]:
    """Return the config of a folder, nothing if it has none; sections are mappings, names are texts."""
    content = read_yaml(directory / CONFIG) if (directory / CONFIG).is_file() else {}
    for section in ("model", "task", "data", "metadata"):
        found = content.get(section) or {}
        if not isinstance(found, Mapping) or not isinstance(found.get("name") or "", str):
            raise CheckpointError(
                f"{directory / CONFIG}: expected a section {section!r}, found {shown(found)}; copy it again"
            )
    return content
