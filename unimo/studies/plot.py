"""A study as a picture: a panel for each score, a line for each row, its seeds, their mean and deviation."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from unimo.studies.report import chance_levels, group_by_row
from unimo.studies.results import Result
from unimo.studies.study import Column, Row, Study

MEAN, SEED, CHANCE = "#1f4e9c", "#7fa7e0", "#c23b22"
PER_BAND, DPI = 4, 110
"""Most panels beside each other, and pixels an inch."""
PANEL, LABELS, LINE = 3.0, 2.2, 0.34
"""Inches: width of a panel and of the names of rows, height of a row."""


def draw(study: Study, results: Sequence[Result], steps: str, overrides: Sequence[str] = ()) -> Image.Image:
    """Draw all tables of a study, as an RGB image.

    `steps` says in the heading how long the trainings were; some `overrides` make chance levels unknown.
    """
    groups, chance = group_by_row(study, results), chance_levels(study, results, overrides)
    bands = list(_bands(study, groups))
    heights = [len(rows) * LINE + 1.15 for rows, _ in bands]
    columns = max((len(shown) for _, shown in bands), default=1)
    figure = Figure((LABELS + PANEL * columns, sum(heights) + 1.1), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    seeds = sorted({result["seed"] for result in results})
    figure.suptitle(f"{study.question}\n{study.paper}; {steps}", fontsize=11, x=0.01, ha="left")
    legend = f"seed {seeds[0]}"
    if len(seeds) > 1:
        named = ", ".join(map(str, seeds))
        legend = f"filled: mean over seeds {named} with one standard deviation; open: each seed"
    legend += "; dashed: chance" if chance else ""
    figure.supxlabel(textwrap.fill(legend, int(13 * figure.get_figwidth())), fontsize=9, color="#505050")
    figure.get_layout_engine().set(h_pad=0.1)
    grid = figure.subplots(len(bands), columns, squeeze=False, height_ratios=heights) if bands else []
    for panels, (rows, shown) in zip(grid, bands, strict=True):
        for number, (axes, column) in enumerate(zip(panels, shown, strict=False)):
            _draw_panel(axes, column, [groups[row] for row in rows], chance.get(column.key))
            names = ["\n".join(textwrap.wrap(row.name, 26)) if number == 0 else "" for row in rows]
            axes.set_yticks(range(len(rows)), names, fontsize=9)
        for axes in panels[len(shown) :]:
            axes.set_axis_off()
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _bands(study: Study, groups: dict[Row, list[Result]]) -> Iterator[tuple[list[Row], list[Column]]]:
    """Yield the rows and columns of each band of panels; scores that no row has are left out."""
    for table in study.tables:
        rows = [row for row in groups if table.only_row in ("", row.name)]
        present = {key for row in rows for result in groups[row] for key in result}
        columns = [column for column in table.columns if column.key in present]
        width = math.ceil(len(columns) / max(1, math.ceil(len(columns) / PER_BAND)))
        for start in range(0, len(columns), max(1, width)):
            yield rows, columns[start : start + width]


def _draw_panel(axes: Axes, column: Column, rows: Sequence[list[Result]], chance: float | None) -> None:
    if chance is not None:
        axes.axvline(chance, color=CHANCE, linestyle="--", linewidth=1.2, zorder=1)
    for place, results in enumerate(rows):
        values = [result[column.key] for result in results if column.key in result]
        if values:
            mean, spread = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None
            axes.scatter(values, [place] * len(values), s=26, facecolors="none", edgecolors=SEED, zorder=2)
            axes.errorbar(mean, place, xerr=spread, fmt="o", ms=5, color=MEAN, capsize=3, zorder=3)
    axes.set_title("\n".join(textwrap.wrap(column.title, 30)), fontsize=10)
    axes.set_xlabel(column.unit, fontsize=9)
    # A tenth of what is shown is the least range, so that small differences look small.
    low, high = axes.get_xlim()
    middle, half = (low + high) / 2, max(1.1 * (high - low), 0.1 * abs(high)) / 2
    low, high = middle - half, middle + half
    axes.set_xlim(*((max(low, -2.0), min(high, 102.0)) if column.unit.endswith("%") else (low, high)))
    axes.set_ylim(len(rows) - 0.4, -0.6)  # the first row on top
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
