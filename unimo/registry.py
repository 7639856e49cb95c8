"""The papers and the tasks that a config can name.

The tables hold names of modules, so that nothing heavy is imported before it is used. The package of a paper
defines `PAPER` (`unimo.models.paper.Paper`), the module of a task `TASK` (a `unimo.tasks.base.Task`).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from unimo.config import merge_into, merge_plain, to_plain
from unimo.errors import CapabilityError, ConfigError, nearest
from unimo.limits import MODEL_PARAMETERS

PAPERS: dict[str, str] = {
    "unimo": "unimo.models.unimo",
    "unimo2": "unimo.models.unimo2",
    "unimo3": "unimo.models.unimo3",
    "vlmo": "unimo.models.vlmo",
    "semvlp": "unimo.models.semvlp",
}

TASKS: dict[str, str] = {
    "pretrain": "unimo.tasks.pretrain",
    "vqa": "unimo.tasks.vqa",
    "gqa": "unimo.tasks.gqa",
    "entailment": "unimo.tasks.entailment",
    "nlvr2": "unimo.tasks.nlvr2",
    "retrieval": "unimo.tasks.retrieval.task",
    "caption": "unimo.tasks.caption.task",
    "text_classification": "unimo.tasks.classification.text",
    "image_classification": "unimo.tasks.classification.image",
    "segmentation": "unimo.tasks.segmentation.task",
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
    """Build a `Model` with random weights, except in parts whose config names files of weights (`init`).

    Raises:
        ConfigError: unknown model, or sizes that together ask for more parameters than any machine has.
    """
    wanted = rough_size(config)
    if wanted > MODEL_PARAMETERS:
        sections = {each.name: getattr(config, each.name) for each in fields(config)}
        name = max(sections, key=lambda each: rough_size(sections[each], getattr(config, "hidden_size", 0)))
        sizes = vars(sections[name]) if is_dataclass(sections[name]) else vars(config)
        given = ", ".join(
            f"{key} {value:,}" for key, value in sizes.items() if type(value) is int and value > 99
        )
        raise ConfigError(
            f"{config.name}, section {name}: {given} make about {wanted:,} parameters; this machine has "
            f"memory for {MODEL_PARAMETERS:,}; correct the largest of them"
        )
    return paper_of(config.name).build(config)


def rough_size(section: Any, hidden: int = 0) -> int:
    """Return about how many parameters a section of a model config asks for, from its sizes alone.

    Args:
        section: the config, or a value in it.
        hidden: width of the section around it, for those that have none.
    """
    if not is_dataclass(section):
        return 0
    values = {each.name: getattr(section, each.name) for each in fields(section)}
    hidden = getattr(section, "hidden_size", hidden)
    sizes = {name: value for name, value in values.items() if type(value) is int}
    inner = sizes.pop("intermediate_size", 4 * hidden)
    blocks = sizes.pop("num_layers", 0) * (4 * hidden**2 + 2 * hidden * inner)
    # Any other number may be that of the rows of a table: words, positions, classes. Pixels are not.
    sizes.pop("image_size", None)
    rows = sum(sizes.values()) + getattr(section, "num_patches", 0)
    return blocks + rows * hidden + sum(rough_size(value, hidden) for value in values.values())


def with_sections(config: Any, changes: Mapping[str, Any]) -> Any:
    """Return a model config with some fields of its sections replaced."""
    return merge_into(model_config(config.name), merge_plain(to_plain(config), changes), "model")


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
