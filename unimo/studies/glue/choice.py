"""Results of a grid on GLUE: the best cell of each task, and a table as UNIMO-3's Table 3."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unimo.data.readers.glue import TITLES, GlueName
from unimo.studies.results import Result
from unimo.studies.study import Column, Row, Study, Table

UNITS = {"f1": "F1, %", "matthews": "Matthews x 100", "spearman": "Spearman x 100"}
AVERAGE = "average"


@dataclass(frozen=True)
class Cell:
    """One setting of the grid, a row of the study."""

    label: str
    """Name of the model."""
    task: GlueName
    score: str
    """Metric that dev is judged by."""
    rate: float
    batch: int

    @property
    def setting(self) -> str:
        """Rate and batch, for people."""
        return f"{self.rate:g} x {self.batch}"

    @property
    def row(self) -> str:
        """Name of the row."""
        return f"{self.label} {self.task} {self.setting}"

    def value(self, result: Result) -> float:
        """Return the score of a finished training on dev."""
        return result[f"dev.{self.score}"]


Chosen = dict[tuple[str, GlueName], tuple[Cell, list[Result]]]
"""The best cell of each model and task that has any, with its results by seed."""


def choose(cells: Sequence[Cell], results: Sequence[Result]) -> Chosen:
    """Choose the cell with the best mean over seeds, among those of which most seeds are finished."""
    found: dict[tuple[str, GlueName], list[tuple[Cell, list[Result]]]] = {}
    for cell in cells:
        own = [result for result in results if result["row"] == cell.row]
        if own:
            found.setdefault((cell.label, cell.task), []).append((cell, own))
    return {key: max(candidates, key=_rank) for key, candidates in found.items()}


def _rank(candidate: tuple[Cell, list[Result]]) -> tuple[int, float]:
    cell, own = candidate
    return len(own), statistics.mean(map(cell.value, own))


def table(
    scores: Mapping[GlueName, str], sizes: Mapping[GlueName, int], chance: Mapping[GlueName, float]
) -> Table:
    """Return the columns of Table 3: tasks with their numbers of training samples, and the mean over them.

    Args:
        scores: metric of each task.
        sizes: training samples of each task.
        chance: score of guessing on dev.
    """
    columns = [
        Column(
            f"{task}.{score}",
            f"{TITLES[task]} {short(sizes[task])}",
            unit=UNITS.get(score, "accuracy, %"),
            chance=chance[task],
            digits=2,
        )
        for task, score in scores.items()
    ]
    if len(columns) > 1:
        columns.append(Column(AVERAGE, "average", unit="mean of the tasks", digits=2))
    return Table(("model",), tuple(columns))


def short(count: int) -> str:
    """Return a number of samples as the paper prints it: `392k`, `8.5k`."""
    if count < 1000:
        return str(count)
    return f"{count // 1000}k" if count >= 10_000 else f"{count / 1000:.1f}k"


def by_model(study: Study, chosen: Chosen) -> tuple[Study, list[Result]]:
    """Return the study as a table of models, and a result for each model and seed.

    A seed has an average if all tasks of the table are finished with it.
    """
    tasks = [key for key in study.columns if key != AVERAGE]
    labels = list(dict.fromkeys(label for label, _ in chosen))
    results: list[Result] = []
    for label in labels:
        by_seed: dict[int, Result] = {}
        for (owner, task), (cell, own) in chosen.items():
            for result in own if owner == label else ():
                start = {name: result[name] for name in ("seed", "split", "selection")}
                line = by_seed.setdefault(result["seed"], {"row": label, **start})
                line |= {f"{task}.{cell.score}": cell.value(result), f"{task}.setting": cell.setting}
        for _, line in sorted(by_seed.items()):
            values = [value for key, value in line.items() if isinstance(value, float)]
            is_whole = len(values) == len(tasks) > 1
            results.append(line | ({AVERAGE: statistics.mean(values)} if is_whole else {}))
    rows = tuple(Row(label, "", ()) for label in labels)
    shown = Study(study.name, study.question, study.paper, (), rows, study.tables, study.next_command)
    return shown, results


def describe(chosen: Chosen) -> str:
    """Return the chosen settings as a Markdown list."""
    labels = dict.fromkeys(label for label, _ in chosen)
    lines = []
    for label in labels:
        own = [(task, cell, found) for (owner, task), (cell, found) in chosen.items() if owner == label]
        named = (f"{TITLES[task]} {cell.setting} ({len(found)} seeds)" for task, cell, found in own)
        lines.append(f"- {label}: {', '.join(named)}")
    return "Rate x batch, chosen by the mean over seeds on dev:\n\n" + "\n".join(lines)
