"""The papers and the tasks that a config can name.

The tables hold names of modules, so that nothing heavy is imported before it is used. The package of a paper
defines `PAPER` (`unimo.models.paper.Paper`), the module of a task `TASK` (a `unimo.tasks.base.Task`).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from unimo.config import merge_into
from unimo.errors import CapabilityError, ConfigError, nearest

PAPERS: dict[str, str] = {
    "unimo": "unimo.models.unimo",
    "unimo2": "unimo.models.unimo2",
    "unimo3": "unimo.models.unimo3",
}

TASKS: dict[str, str] = {
    "pretrain": "unimo.tasks.pretrain",
    "vqa": "unimo.tasks.vqa",
    "entailment": "unimo.tasks.entailment",
    "retrieval": "unimo.tasks.retrieval.task",
    "caption": "unimo.tasks.caption.task",
    "text_classification": "unimo.tasks.classification.text",
    "image_classification": "unimo.tasks.classification.image",
    "seq2seq": "unimo.tasks.seq2seq.task",
}


def papers() -> list[Any]:
    """Return the records of all registered papers (`unimo.models.paper.Paper`)."""
    return [importlib.import_module(module).PAPER for module in PAPERS.values()]


def list_models() -> list[str]:
    """Return the names of all registered models, sorted."""
    return sorted(name for paper in papers() for name in paper.sizes)


def paper_of(model: str) -> Any:
    """Return the paper of a registered model.

    Raises:
        ConfigError: the name is unknown; names the nearest.
    """
    for paper in papers():
        if model in paper.sizes:
            return paper
    raise ConfigError(f"unknown model {model!r}; {nearest(model, list_models())}")


def model_config(name: str) -> Any:
    """Return the default config of a registered model; errors as of `paper_of`."""
    return paper_of(name).sizes[name]


def build_model(config: Any) -> Any:
    """Build a `Model` with random weights, except in parts whose config names files of weights (`init`)."""
    return paper_of(config.name).build(config)


def create_model(name: str, **overrides: Any) -> Any:
    """Build a registered model; keyword arguments replace fields of its config.

    Nested fields are given as mappings: `create_model("unimo3_tiny", fusion={"link_range": "none"})`.

    Raises:
        ConfigError: unknown model, field or value.
    """
    return build_model(merge_into(model_config(name), overrides, "model"))


def models_with(needed: Iterable[str]) -> list[str]:
    """Return the names of the models with all capabilities in `needed`, sorted."""
    able = (paper for paper in papers() if set(needed) <= paper.capabilities)
    return sorted(name for paper in able for name in paper.sizes)


def require(model: str, needed: Iterable[str], task: str) -> None:
    """Check that a registered model can do a task.

    Raises:
        CapabilityError: a capability is missing; names the models that have it.
    """
    missing = sorted(set(needed) - paper_of(model).capabilities) if needed else []
    if missing:
        able = ", ".join(models_with(needed)) or "none"
        raise CapabilityError(
            f"task {task!r} needs {', '.join(missing)}, which {model!r} does not have; models that do: {able}"
        )


def task_class(name: str) -> Any:
    """Return the class of a task (`unimo.tasks.base.Task`).

    Raises:
        ConfigError: the name is unknown; names the nearest.
    """
    if name not in TASKS:
        raise ConfigError(f"unknown task {name!r}; {nearest(name, TASKS)}")
    return importlib.import_module(TASKS[name]).TASK


def task_config(name: str, model: str) -> Any:
    """Return the default config of a task for a registered model; errors as of `task_class`, `paper_of`."""
    return task_class(name).default_config(paper_of(model))
