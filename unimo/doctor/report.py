"""Rows of the examination, and their table. Imports no Paddle."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

Result = Literal["ok", "wrong", "not here"]
HEADINGS = ("check", "result", "figure", "what to do")
LONGEST = 300
"""Characters of a cell."""


@dataclass(frozen=True)
class Row:
    """The outcome of one check."""

    name: str
    result: Result
    """`not here` is what this machine cannot run, for example without a GPU."""
    figure: str
    """Measured value with its unit, and the expected one."""
    advice: str = ""
    """Remedy; empty if none is needed."""


@dataclass(frozen=True)
class Options:
    """Name of the check."""

    recipe: str = "unimo3_tiny"
    """Recipe of pre-training whose speed and disk space are examined, and that self-checks train."""
    overrides: tuple[str, ...] = ()
    """Dotted changes of the recipe, such as data.pairs=DIR."""
    folder: str = "output"
    """Where output goes; the runs of the self-checks are in a temporary folder there."""
    every_recipe: bool = False
    """Measure every base recipe on a CPU too."""


def verdict(name: str, is_right: bool, figure: str, advice: str) -> Row:
    """Return the row of a check that could be run; the advice stands only beside what is wrong."""
    return Row(name, "ok", figure) if is_right else Row(name, "wrong", figure, advice)


def exit_code(rows: Iterable[Row]) -> int:
    """Return 2 if something is wrong, else 0."""
    return 2 if any(row.result == "wrong" for row in rows) else 0


def format_markdown(rows: Sequence[Row], heading: str) -> str:
    """Format one Markdown table below a line about the machine."""
    cells = [HEADINGS, *((row.name, row.result, row.figure, row.advice) for row in rows)]
    lines = ["| " + " | ".join(map(_cell, line)) + " |" for line in cells]
    lines.insert(1, "|---" * len(HEADINGS) + "|")
    counts = ", ".join(
        f"{sum(row.result == result for row in rows)} {result}" for result in ("ok", "wrong", "not here")
    )
    return "\n".join([heading, "", *lines, "", counts])


def _cell(text: str) -> str:
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."


def format_json(rows: Sequence[Row], heading: str) -> str:
    """Format the same as JSON: `machine` and `rows`."""
    return json.dumps({"machine": heading, "rows": [asdict(row) for row in rows]}, indent=1)
