"""What can be trained here: the recipes with their sizes, and what the papers trained them on."""

from __future__ import annotations

from collections.abc import Sequence

from unimo import registry
from unimo.config import list_recipes, read_recipe
from unimo.settings import named_section

_SCENES = """
Every recipe runs on the built-in pictures `scenes` when no data are named. `*_tiny` learns them in minutes on
two CPU cores; the others are for GPUs: `--plan` says what they cost on this machine."""


def list_pretraining() -> str:
    """Return the recipes of pre-training as a table: size, and data and hardware of the paper."""
    rows = [("recipe", "parameters", "hardware of the paper", "data of the paper")]
    for name in list_recipes("pretrain"):
        model = named_section(read_recipe(name, "pretrain")["model"])["name"]
        paper = registry.paper_of(model)
        published = paper.published.get(model)
        hardware = (published.hardware or "not said") if published else "(2 CPU cores)"
        size = f"{paper.parameters[model]:.1f} M"
        rows.append((name, size, hardware, published.data if published else "(`scenes`)"))
    return _table(rows) + "\n" + _SCENES


def list_finetuning() -> str:
    """Return the tasks as a table: data sets of the papers, and the recipes there are."""
    rows = [("--task", "data of the papers", "--model")]
    for task in registry.TASKS:
        if task != "pretrain":
            data = registry.task_class(task).published_data
            rows.append((task, data, " ".join(list_recipes(task))))
    return _table(rows) + "\n" + _SCENES


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows in columns; the last column is as wide as it likes."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
