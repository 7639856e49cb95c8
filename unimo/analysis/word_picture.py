"""The neighbours of words (`word_embeddings.py`) as an image: rows are words, columns are models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from PIL import Image

from unimo.analysis.show import writing_to
from unimo.analysis.word_embeddings import Surroundings, only_there, to_plain
from unimo.files import write_text

CENTRE, SHARED, OWN, FAINT = "#d62728", "#1f77b4", "#ff7f0e", "#c8c8c8"
SIDE, DPI = 5.2, 120
"""Side of a panel in inches, and pixels per inch."""
AWAY = 7.0
"""Distance between a mark and its name in points."""
DIRECTIONS = [(1, 0), (-1, 0), (0, 1), (0, -1), (0.8, 0.8), (-0.8, 0.8), (0.8, -0.8), (-0.8, -0.8)]


def draw(rows: Sequence[Sequence[Surroundings]]) -> Image.Image:
    """Draw the surroundings of each word in each model as an RGB image.

    Neighbours that no other model has get another colour.
    """
    columns = max(map(len, rows))
    figure = Figure((SIDE * columns, SIDE * len(rows) + 0.4), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    panels = [
        part
        for axes, row in zip(grid, rows, strict=True)
        for part in zip(axes, row, only_there(row) if columns > 1 else [set()], strict=True)
    ]
    for part in panels:
        _draw_marks(*part)
    legend = "red: centre, blue: nearest by cosine, grey: other words of the plane"
    if columns > 1:
        legend += ", orange: nearest in this model only"
    figure.supxlabel(legend, fontsize=9, color="#6e6e6e")
    canvas.draw()  # fixes the layout, on which the positions of names depend
    figure.set_layout_engine("none")
    for part in panels:
        _draw_names(*part)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _draw_marks(axes: Axes, panel: Surroundings, own: set[str]) -> None:
    far = np.array([near.place for near in panel.words[panel.named :]]).reshape(-1, 2)
    axes.scatter(*far.T, s=10, color=FAINT, linewidths=0)
    for near in panel.neighbours:
        axes.scatter(*near.place, s=26, color=OWN if near.text.lower() in own else SHARED, zorder=3)
    axes.scatter(*panel.place, s=60, color=CENTRE, zorder=4)
    axes.set_title(f"{panel.model}\n{panel.title}; {panel.variance:.0%} of the variance", fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.margins(0.12)


def _draw_names(axes: Axes, panel: Surroundings, own: set[str]) -> None:
    """Name the centre and the nearest words, each where its name covers least."""
    renderer = axes.figure.canvas.get_renderer()
    points = [panel.place, *(near.place for near in panel.neighbours)]
    marks = axes.transData.transform(points)
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in marks]
    frame = axes.get_window_extent(renderer)
    names = [
        (panel.word, CENTRE),
        *((n.text, OWN if n.text.lower() in own else SHARED) for n in panel.neighbours),
    ]
    for point, (name, color) in zip(points, names, strict=True):
        label = axes.annotate(
            name, point, (0, 0), textcoords="offset points", fontsize=10, color=color, zorder=5
        )
        costs = []
        for far in (1.0, 1.9):
            for right, up in DIRECTIONS:
                box = _place(label, right * far, up * far).get_window_extent(renderer)
                costs.append((_covered(box, taken, frame), far, right, up))
        _, far, right, up = min(costs, key=lambda cost: cost[:2])
        taken.append(_place(label, right * far, up * far).get_window_extent(renderer))


def _place(label: Annotation, right: float, up: float) -> Annotation:
    """Move a label to one side of its mark."""
    label.xyann = (AWAY * right, AWAY * up)
    label.set_ha("left" if right > 0 else "right" if right < 0 else "center")
    label.set_va("bottom" if up > 0 else "top" if up < 0 else "center")
    return label


def _covered(box: Bbox, taken: Sequence[Bbox], frame: Bbox) -> float:
    """Compute the pixels of a box that overlap others or are outside of the frame."""
    shared = [Bbox.intersection(box, other) for other in taken]
    inside = Bbox.intersection(box, frame)
    outside = box.width * box.height - (inside.width * inside.height if inside else 0.0)
    return sum(part.width * part.height for part in shared if part) + outside


def write(rows: Sequence[Sequence[Surroundings]], folder: str | Path) -> tuple[Path, Path]:
    """Write `word_embeddings.png` and `word_embeddings.json`: for each word its surroundings in each model.

    Raises:
        ConfigError: see `writing_to`.
    """
    with writing_to(folder) as out:
        picture, table = out / "word_embeddings.png", out / "word_embeddings.json"
        draw(rows).save(picture, format="PNG")
        write_text(table, json.dumps(to_plain(rows), indent=1, ensure_ascii=False) + "\n")
    return picture, table
