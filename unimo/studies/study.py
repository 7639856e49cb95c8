"""The declaration of a study: a question, rows with their stages, the columns that answer it, the claims.

All of it is data. `runner.py` carries it out, `report.py` and `plot.py` show what came out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unimo.errors import ConfigError, nearest
from unimo.studies.stages import Context, Evaluate, Pretrain, Stage


@dataclass(frozen=True)
class Steps:
    """A number of training steps, changed by the option `--NAME-steps`."""

    name: str
    default: int
    about: str
    """Help of the option."""
    least: int = 1
    """Smallest value. 0 leaves out the trainings with these steps and the evaluations of their models."""
    minutes: float | None = None
    """About how long 1,000 steps of a default row and the evaluation after them take on one CPU core."""


@dataclass(frozen=True)
class Row:
    """One configuration, run with every seed."""

    name: str
    model: str
    stages: tuple[Stage, ...]
    overrides: tuple[str, ...] = ()
    """`KEY=VALUE` words for pre-training: what makes this row another than the others."""
    cells: tuple[str, ...] = ()
    """First cells of the row in tables; its name where empty."""

    @property
    def slug(self) -> str:
        """The name as part of a folder's name."""
        return re.sub(r"[^\w.-]+", "_", self.name.replace("/", ""))

    @property
    def label(self) -> tuple[str, ...]:
        """The first cells of the row in tables."""
        return self.cells or (self.name,)

    def folder(self, seed: int) -> str:
        """Return the name of the folder of the row with a seed."""
        return f"{self.slug}_{seed}"


@dataclass(frozen=True)
class Column:
    """A score that tables and plots show."""

    key: str
    """`STAGE.METRIC`, or `minutes` (the whole row) or `training_minutes`."""
    title: str
    unit: str = "accuracy, %"
    """Label of its axis; one that ends with % has no values above 100."""
    chance: float | None = None
    """What guessing reaches on the built-in data of the study, where known."""
    each_seed: bool = True
    """Whether tables show every seed besides the mean."""


@dataclass(frozen=True)
class Table:
    """Columns that stand together."""

    head: tuple[str, ...]
    """Titles of the first cells of a row."""
    columns: tuple[Column, ...]
    only_row: str = ""
    """The one row that has these columns: its table has a line for each column."""


@dataclass(frozen=True)
class Claim:
    """A finding of the paper as an order of two rows; larger scores are better."""

    text: str
    """Where in the paper, and what it says."""
    better: str
    worse: str
    columns: tuple[str, ...]
    """Keys of the scores in which the order is looked for."""


@dataclass(frozen=True)
class Study:
    """A grid of rows and seeds."""

    name: str
    question: str
    paper: str
    """The paper and the tables of it that the study follows."""
    steps: tuple[Steps, ...]
    rows: tuple[Row, ...]
    tables: tuple[Table, ...]
    next_command: str
    """What to type after it; `{row}` is the folder of the first finished row."""
    claims: tuple[Claim, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    default_rows: tuple[str, ...] = ()
    """Rows that run unless others are chosen; empty: all."""

    @property
    def columns(self) -> dict[str, Column]:
        """All columns by key."""
        return {column.key: column for table in self.tables for column in table.columns}

    def choose_rows(self, names: tuple[str, ...] = ()) -> tuple[Row, ...]:
        """Return the rows with these names in the order of the declaration; without names the default ones.

        Raises:
            ConfigError: a name is unknown.
        """
        known = [row.name for row in self.rows]
        for name in names:
            if name not in known:
                raise ConfigError(f"study {self.name} has no row {name!r}; {nearest(name, known)}")
        names = names or self.default_rows or tuple(known)
        return tuple(row for row in self.rows if row.name in names)


@dataclass(frozen=True)
class Job:
    """One row with one seed, and what the command line chose for all rows."""

    row: Row
    seed: int
    steps: Mapping[str, int]
    overrides: tuple[str, ...] = ()
    """`KEY=VALUE` words for every training."""

    @property
    def stages(self) -> dict[str, Stage]:
        """Stages by name, without trainings of 0 steps and without what needs their models."""
        kept: dict[str, Stage] = {}
        for stage in self.row.stages:
            runs = stage.of in kept if isinstance(stage, Evaluate) else self.steps[stage.steps] > 0
            if runs:
                kept[stage.name] = stage
        return kept

    def commands(self, output: Path = Path()) -> dict[str, list[str]]:
        """Return the words of the command of each stage, by its name.

        Args:
            output: folder of the study, which gets a folder for the job.
        """
        context = Context(
            model=self.row.model,
            folder=output / self.row.folder(self.seed),
            steps=self.steps,
            overrides=(f"seed={self.seed}", "data.num_workers=1", *self.overrides),
            variant=self.row.overrides,
            pretrained=any(isinstance(stage, Pretrain) for stage in self.row.stages),
        )
        return {name: stage.command(context) for name, stage in self.stages.items()}
