"""A UNIMO-3 of a few thousand parameters on a handful of `scenes`, for tests of tasks, loading and tools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import paddle

from unimo import registry
from unimo.config import merge_plain
from unimo.data.loading.task_data import TaskData
from unimo.data.processor import Processor, build_processor
from unimo.data.tokenizers import load_tokenizer
from unimo.inference.saving import save_model
from unimo.settings import RunConfig, build_run_config
from unimo.tasks.base import Task

Tool = Callable[..., tuple[int, str, str]]
"""The fixture `tool` of conftest.py."""
TOWER = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 32}
VALUES: dict[str, Any] = {
    "model": {
        "name": "unimo3_tiny",
        "text": {**TOWER, "vocab_size": 300},
        "vision": {**TOWER, "image_size": 32},
        "fusion": TOWER,
    },
    "data": {
        "image_size": 32,
        "max_text_len": 20,
        "num_workers": 0,
        "scenes": {"train_images": 12, "val_images": 3},
    },
    "train": {"max_steps": 3, "batch_size": 8, "eval_batch_size": 8, "device": "cpu", "log_every": 1},
}


def words(values: dict[str, Any] = VALUES, prefix: str = "") -> list[str]:
    """`VALUES` as command-line overrides; a model name is left out."""
    found: list[str] = []
    for key, value in values.items():
        if isinstance(value, dict):
            found += words(value, f"{prefix}{key}.")
        elif key != "name":
            found.append(f"{prefix}{key}={value}")
    return found


def make_run(task: str, output_dir: Path | str = "unused", /, **changes: Any) -> RunConfig:
    """Config of a micro run of a task."""
    base = merge_plain(VALUES, {"task": {"name": task}, "output_dir": str(output_dir)})
    return build_run_config(merge_plain(base, changes))


def make_task(run: RunConfig, seed: int = 0) -> tuple[Task, Processor, TaskData]:
    """A randomly initialised task with its data."""
    paddle.seed(seed)
    processor = build_processor(run.data, load_tokenizer("scenes"))
    task_class = registry.task_class(run.task.name)
    data = task_class.open_data(run, processor)
    task = task_class.create(registry.build_model(run.model), run.task, data.metadata)
    return task, processor, data


def saved(task_name: str, directory: Path, seed: int = 0, **changes: Any) -> Path:
    """A model directory of a random task."""
    run = make_run(task_name, directory, **changes)
    task, processor, _ = make_task(run, seed)
    return save_model(task, processor, directory / "model", {"overall": 1.0}, run)
