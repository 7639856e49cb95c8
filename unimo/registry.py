"""What can be named in a config: one table of papers and one of tasks.

The tables hold names of modules, so that nothing heavy is imported before it is used. The package of a paper
offers `PAPER` (`unimo.models.paper.Paper`), the module of a task `TASK` (a `unimo.tasks.base.Task`).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from unimo.config import merge_into
from unimo.errors import ConfigError, nearest

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
    """The record of every registered paper (`unimo.models.paper.Paper`)."""
    return [importlib.import_module(module).PAPER for module in PAPERS.values()]


def list_models() -> list[str]:
    """Names of all registered models, sorted."""
    return sorted(name for paper in papers() for name in paper.sizes)


def paper_of(model: str) -> Any:
    """The paper that a registered model is of.

    Raises:
        ConfigError: the name is unknown; the nearest names are given.
    """
    for paper in papers():
        if model in paper.sizes:
            return paper
    raise ConfigError(f"unknown model {model!r}; {nearest(model, list_models())}")


def model_config(name: str) -> Any:
    """The default config of a registered model.

    Raises:
        ConfigError: the name is unknown; the nearest names are given.
    """
    return paper_of(name).sizes[name]


def build_model(config: Any) -> Any:
    """A `Model` with random weights, but for the parts whose config names files to start from (`init`).

    Raises:
        CheckpointError: files that do not fit.
    """
    model = paper_of(config.name).network(config)
    model.load_parts()
    return model


def create_model(name: str, **overrides: Any) -> Any:
    """Build a registered model; keyword arguments replace fields of its config.

    Nested fields are given as mappings: `create_model("unimo3_tiny", fusion={"link_range": "none"})`.

    Raises:
        ConfigError: unknown model, field or value.
    """
    return build_model(merge_into(model_config(name), overrides, "model"))


def models_with(needed: Iterable[str]) -> list[str]:
    """Models that have all the capabilities in `needed`, sorted."""
    able = (paper for paper in papers() if set(needed) <= paper.capabilities)
    return sorted(name for paper in able for name in paper.sizes)


def task_class(name: str) -> Any:
    """The class of a task (`unimo.tasks.base.Task`).

    Raises:
        ConfigError: the name is unknown; the nearest names are given.
    """
    if name not in TASKS:
        raise ConfigError(f"unknown task {name!r}; {nearest(name, TASKS)}")
    return importlib.import_module(TASKS[name]).TASK


def task_config(name: str, model: str) -> Any:
    """The default config of a task for a registered model.

    Raises:
        ConfigError: a name is unknown; the nearest names are given.
    """
    return task_class(name).default_config(paper_of(model))
