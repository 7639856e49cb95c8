"""What can be named in a config: models and tasks, in two explicit tables.

A model package offers `SIZES` (name -> config dataclass instance) and `build(config)`; the tables
hold import paths, so that nothing heavy is imported before it is used.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from unimo.errors import ConfigError

if TYPE_CHECKING:
    from unimo.models.base import Model

# Model name prefixes and the package that holds their sizes.
MODEL_PACKAGES: dict[str, str] = {
    "unimo3": "unimo.models.unimo3",
    "meter": "unimo.models.unimo3",
    "bridgetower": "unimo.models.unimo3",
    "unimo2": "unimo.models.unimo2",
    "unimo": "unimo.models.unimo",
}

# Task name -> module; each module offers `Config` (dataclass) and `build(config, model, context)`.
TASK_MODULES: dict[str, str] = {
    "pretrain": "unimo.tasks.pretrain",
    "vqa": "unimo.tasks.vqa",
    "entailment": "unimo.tasks.entailment",
    "retrieval": "unimo.tasks.retrieval.task",
    "caption": "unimo.tasks.caption.task",
    "text_classification": "unimo.tasks.classification.text",
    "image_classification": "unimo.tasks.classification.image",
    "seq2seq": "unimo.tasks.seq2seq.task",
}


def nearest(name: str, known: Iterable[str]) -> str:
    """'did you mean' text: the closest known names, or all of them when none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"nearest: {', '.join(close)}" if close else f"known: {', '.join(known)}"


def list_models() -> list[str]:
    """Names of all registered models, sorted."""
    return sorted({name for package in set(MODEL_PACKAGES.values()) for name in _sizes(package)})


def model_config(name: str) -> Any:
    """The default config dataclass of a registered model.

    Raises:
        ConfigError: the name is unknown; the nearest names are given.
    """
    package = MODEL_PACKAGES.get(name.split("_")[0])
    if package is None or name not in _sizes(package):
        raise ConfigError(f"unknown model {name!r}; {nearest(name, list_models())}")
    return _sizes(package)[name]


def model_package(name: str) -> Any:
    """The Python package that implements a registered model."""
    model_config(name)
    return importlib.import_module(MODEL_PACKAGES[name.split("_")[0]])


def create_model(name: str, **overrides: Any) -> Model:
    """Build a randomly initialised model; keyword arguments replace fields of its config.

    Nested fields are given as mappings: `create_model("unimo3_tiny", fusion={"link_range": "none"})`.

    Raises:
        ConfigError: unknown model, field or value.
    """
    from unimo.config import merge_into

    config = merge_into(model_config(name), overrides, "model")
    return model_package(name).build(config)


def task_module(name: str) -> Any:
    """The module of a task.

    Raises:
        ConfigError: the name is unknown; the nearest names are given.
    """
    if name not in TASK_MODULES:
        raise ConfigError(f"unknown task {name!r}; {nearest(name, TASK_MODULES)}")
    return importlib.import_module(TASK_MODULES[name])


def _sizes(package: str) -> dict[str, Any]:
    return importlib.import_module(package).SIZES


def models_with(needed: Iterable[str]) -> list[str]:
    """Models whose package declares all the capabilities in `needed` (`CAPABILITIES` in its `__init__`)."""
    packages = {package: importlib.import_module(package) for package in set(MODEL_PACKAGES.values())}
    able = (module for module in packages.values() if set(needed) <= set(module.CAPABILITIES))
    return sorted(name for module in able for name in module.SIZES)
