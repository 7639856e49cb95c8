"""The declaration of a study: a question, rows with their stages, the columns that answer it, the claims.

All of it is data. `runner.py` carries it out, `report.py` and `plot.py` show what came out. A study whose
rows follow from the command line overrides methods of `Study`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimo.errors import ConfigError, nearest


@dataclass(frozen=True)
class Pretrain:
    """Pre-training with the overrides of the row."""

    name: str = "pretrain"
    """`pretrain`, or, of a stage before it, another name."""
    steps: str = "pretrain"
    """Name of the number of steps."""
    overrides: tuple[str, ...] = ()
    """`KEY=VALUE` words of this stage, before those of the row."""
    after: str = ""
    """Stage from whose model it starts; from random weights where empty."""

    def command(self, job: Job, folder: Path) -> list[str]:
        """Return the tool and its arguments. What the row overrides wins over the command line."""
        start = [f"init_from={folder / self.after / 'model'}"] if self.after else []
        words = [*start, *self.overrides, *job.row.overrides]
        return ["pretrain.py", job.row.model, *job.training(self, folder), *words]


@dataclass(frozen=True)
class Finetune:
    """Fine-tuning on a task, or a linear probe, from `init`, else from the row's pre-training or scratch."""

    name: str
    steps: str
    """Name of the number of steps."""
    task: str
    overrides: tuple[str, ...] = ()
    init: str = ""
    """Model directory."""

    def command(self, job: Job, folder: Path) -> list[str]:
        """Return the tool and its arguments. What the stage overrides wins over the command line."""
        pretrained = any(isinstance(stage, Pretrain) for stage in job.row.stages)
        init = self.init or (str(folder / "pretrain" / "model") if pretrained else "none")
        start = ["--task", self.task, "--model", job.row.model, "--init", init]
        return ["finetune.py", *start, *job.training(self, folder), *self.overrides]


@dataclass(frozen=True)
class Evaluate:
    """Evaluation of the model of an earlier stage on held-out data."""

    name: str
    """Prefix of the scores: `vqa` gives `vqa.overall`."""
    of: str
    """Name of the training whose model is evaluated."""
    task: str
    options: tuple[str, ...] = ()
    """Options of `tools/evaluate.py`, such as `--zero-shot`."""
    overrides: tuple[str, ...] = ()
    model: str = "model"
    """Folder of the model: `model`, the last one, or `best`."""

    def command(self, job: Job, folder: Path) -> list[str]:
        """Return the tool and its arguments."""
        model = ["--model", str(folder / self.of / self.model)]
        options = [*self.options, *self.overrides]
        return ["evaluate.py", "--task", self.task, *model, "--split", "val", *options]


Stage = Pretrain | Finetune | Evaluate
"""One public command of `tools/`; `command` takes the job and its folder."""


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
    """About how long 1,000 steps of a default row and the evaluation after them take on one CPU core, or on
    this machine where a plan of the training said so."""


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
    """Result of guessing on the built-in data of the study, where known."""
    each_seed: bool = True
    """Whether tables show every seed besides the mean."""
    digits: int = 1
    """Decimals in tables."""


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
    """The next command; `{row}` is the folder of the first finished row."""
    claims: tuple[Claim, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    default_rows: tuple[str, ...] = ()
    """Rows that run unless others are chosen; empty: all."""
    words: tuple[str, ...] = ()
    """Options of the command line from which the rows follow."""
    about: tuple[str, ...] = ()
    """Lines that say what runs; empty: the names of the rows."""
    length: str = ""
    """How long trainings are, in words; empty: the numbers of steps."""
    ends_early: bool = False
    """Whether trainings may take fewer than their steps."""

    @property
    def columns(self) -> dict[str, Column]:
        """All columns by key."""
        return {column.key: column for table in self.tables for column in table.columns}

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the options from which the rows follow; a declared study has none."""

    def declare(self, args: argparse.Namespace) -> Study:
        """Return the study with the rows of a parsed command line.

        Raises:
            UnimoError: there is no such model, or there are no such data.
        """
        return self

    def sum_up(self, results: Sequence[dict[str, Any]]) -> tuple[Study, Sequence[dict[str, Any]], str]:
        """Return the study and the results that its tables and its plot show, and a text below the tables."""
        return self, results, ""

    def row_done(self, results: Sequence[dict[str, Any]], output: Path) -> None:
        """Take note of the finished rows after one more; a declared study keeps all that they wrote."""

    def finish(self, results: Sequence[dict[str, Any]], output: Path) -> list[str]:
        """Do what follows on the last row, and return what to say of it."""
        return []

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
    """Number of steps by the name that stages refer to."""
    overrides: tuple[str, ...] = ()
    """`KEY=VALUE` words for every training."""

    @property
    def stages(self) -> dict[str, Stage]:
        """Stages by name, without trainings of 0 steps and without what needs their models."""
        kept: dict[str, Stage] = {}
        for stage in self.row.stages:
            if stage.of in kept if isinstance(stage, Evaluate) else self.steps[stage.steps] > 0:
                kept[stage.name] = stage
        return kept

    def training(self, stage: Pretrain | Finetune, folder: Path) -> list[str]:
        """Return the words that every training has: where it writes, how long it is, what is overridden."""
        output = f"output_dir={folder / stage.name}"
        length = f"train.max_steps={self.steps[stage.steps]}"
        return [output, length, f"seed={self.seed}", "data.num_workers=1", *self.overrides]

    def commands(self, output: Path = Path()) -> dict[str, list[str]]:
        """Return the words of the command of each stage, by its name.

        Args:
            output: folder of the study, which gets a folder for the job.
        """
        folder = output / self.row.folder(self.seed)
        return {name: stage.command(self, folder) for name, stage in self.stages.items()}
