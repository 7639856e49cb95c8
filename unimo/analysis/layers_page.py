"""The figures of `layers.py` as a picture and as an HTML page whose cells show their numbers."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from unimo.analysis.layers import Layers
from unimo.analysis.show import html_page, writing_to
from unimo.files import write_text

PANEL, DPI = 3.4, 110
"""Side of a panel in inches, and pixels an inch."""
COLOR = (31, 78, 156)
READING = {
    "cka": (
        "CKA (Fig. 1 of UNIMO-3). A cell compares two layers: 1, dark, if both place the pairs alike, up to "
        "turning and scaling; 0 if they have nothing in common. Layer 0 are the embeddings. Text and image: "
        "layers that are alike are those at which the towers can be linked."
    ),
    "distances": (
        "Attention distance (Fig. 4 of UNIMO-3). A cell is a head of a layer: how far from itself a word or "
        "a part of the picture reads, on average; words in tokens, parts in sides of the picture. Low: the "
        "surroundings are read; high: the whole. White to dark: lowest to highest of its kind here."
    ),
    "gates": (
        "Gates (Eqs 8 and 10 of UNIMO-3). How much a layer of the fusion lets through of a layer of the "
        "tower: the mean over pairs, rows and channels; 0.5 is a gate that has learned nothing. White: no "
        "link."
    ),
}
STYLE = """body{font:15px/1.45 system-ui,sans-serif;margin:24px auto;max-width:1100px;padding:0 16px;
color:#1e1e1e}h2{font-size:18px;margin-top:32px}h3{font-size:15px;margin:16px 0 4px}
p{color:#505050;max-width:75ch}
.panels{display:flex;flex-wrap:wrap;gap:28px}table{border-collapse:collapse;font-size:11px}
td{min-width:34px;height:24px;text-align:center;padding:0}th{font-weight:400;color:#6e6e6e;padding:0 4px}"""


def write(models: Sequence[Layers], folder: str | Path, source: str = "") -> tuple[Path, Path]:
    """Write `layers.png` and `layers.html`; `source` stands in their headings.

    Raises:
        ConfigError: see `writing_to`.
    """
    with writing_to(folder) as out:
        picture, page = out / "layers.png", out / "layers.html"
        draw(models, source).save(picture, format="PNG")
        write_text(page, make_page(models, source))
    return picture, page


def headline(model: Layers) -> str:
    """Say the main figures of a model in a line."""
    parts = [f"{model.model}: {model.pairs} pairs"]
    if ("text", "image") in model.cka:
        table = model.cka["text", "image"]
        text, image = np.unravel_index(table.argmax(), table.shape)
        parts.append(f"text layer {text} and image layer {image} are most alike, CKA {table.max():.2f}")
    for tower, gates in model.gates.items():
        parts.append(f"mean gate of the {tower} {np.nanmean(gates):.2f}")
    return "; ".join(parts)


def draw(models: Sequence[Layers], source: str = "") -> Image.Image:
    """Draw a row of panels for each kind of figure of each model, as an RGB image."""
    bands = [(model, kind) for model in models for kind in READING if getattr(model, kind)]
    columns = max(len(getattr(model, kind)) for model, kind in bands)
    figure = Figure((PANEL * columns, PANEL * len(bands) + 0.6), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(f"Layers: CKA, attention distance, gates\n{source}", fontsize=11, x=0.01, ha="left")
    ranges = _ranges(models)
    for panels, (model, kind) in zip(figure.subplots(len(bands), columns, squeeze=False), bands, strict=True):
        left = iter(panels)
        for name, value in getattr(model, kind).items():
            axes = next(left)
            if kind == "cka":
                down, across = name
                labels = f"CKA, {down} and {across}", f"{across} layer", f"{down} layer"
                _draw_table(axes, value, *labels, first=0)
            elif kind == "distances":
                _draw_distances(axes, value, name, ranges[name.split()[0]])
            else:
                _draw_table(axes, value, f"gates, {name}", "tower layer", "fusion layer", first=1)
        panels[0].set_ylabel(f"{model.model}\n\n{panels[0].get_ylabel()}", fontsize=9)
        for axes in left:
            axes.set_axis_off()
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _ranges(models: Iterable[Layers]) -> dict[str, tuple[float, float]]:
    """Return the range of the distances of each kind of rows, so that all panels can be compared."""
    found: dict[str, list[float]] = {}
    for name, layers in (item for model in models for item in model.distances.items()):
        found.setdefault(name.split()[0], []).extend(float(x) for heads in layers.values() for x in heads)
    margin = {kind: 0.05 * (max(values) - min(values)) + 1e-6 for kind, values in found.items()}
    return {kind: (min(x) - margin[kind], max(x) + margin[kind]) for kind, x in found.items()}


def _draw_table(axes: Axes, table: np.ndarray, title: str, across: str, down: str, first: int) -> None:
    axes.imshow(table, vmin=0, vmax=1, cmap="Blues", origin="lower", aspect="auto")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(across, fontsize=9)
    axes.set_ylabel(down, fontsize=9)
    axes.set_yticks(range(len(table)), [str(number + first) for number in range(len(table))])
    axes.set_xticks(range(table.shape[1]))
    axes.tick_params(labelsize=8)
    if table.size <= 64:
        for (y, x), value in np.ndenumerate(table):
            if not np.isnan(value):
                color = "white" if value > 0.6 else "black"
                axes.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=7, color=color)


def _draw_distances(
    axes: Axes, layers: Mapping[int, np.ndarray], name: str, span: tuple[float, float]
) -> None:
    for layer, heads in layers.items():
        axes.scatter([layer] * len(heads), heads, s=14, color="#7fa7e0")
    axes.plot(list(layers), [heads.mean() for heads in layers.values()], color="#1f4e9c")
    axes.set_ylim(*span)
    axes.set_title(f"distance, {name}", fontsize=10)
    axes.set_xlabel("layer", fontsize=9)
    axes.set_ylabel("sides of the picture" if name.startswith("image") else "tokens", fontsize=9)
    axes.set_xticks(list(layers))
    axes.tick_params(labelsize=8)


def make_page(models: Sequence[Layers], source: str = "") -> str:
    """Build an HTML document of tables."""
    body, ranges = [], _ranges(models)
    for kind, reading in READING.items():
        shown = [model for model in models if getattr(model, kind)]
        if shown:
            body.append(f"<h2>{reading.split(' (')[0]}</h2><p>How to read it. {html.escape(reading)}</p>")
        for model in shown:
            panels = "".join(_panels(model, kind, ranges))
            body.append(f'<h3>{html.escape(model.model)}</h3><div class="panels">{panels}</div>')
    return html_page("Layers", "The layers of a model", STYLE, source, "\n".join(body))


def _panels(model: Layers, kind: str, ranges: Mapping[str, tuple[float, float]]) -> Iterable[str]:
    if kind == "cka":
        for (first, second), table in model.cka.items():
            yield _html_table(table, f"{first} (down) and {second}", range(len(table)), range(table.shape[1]))
    elif kind == "gates":
        for tower, table in model.gates.items():
            title = f"{tower}: fusion layer (down), tower layer"
            yield _html_table(table, title, range(1, 1 + len(table)), range(table.shape[1]))
    else:
        for name, layers in model.distances.items():
            table = np.array(list(layers.values()))
            title = f"{name}: layer (down), head"
            yield _html_table(table, title, layers, range(1, 1 + table.shape[1]), ranges[name.split()[0]])


def _html_table(
    table: np.ndarray,
    title: str,
    rows: Iterable[int],
    columns: Iterable[int],
    span: tuple[float, float] = (0.0, 1.0),
) -> str:
    head = "".join(f"<th>{column}</th>" for column in columns)
    lines = [
        f"<tr><th>{row}</th>{''.join(_cell(float(value), span) for value in values)}</tr>"
        for row, values in zip(rows, table, strict=True)
    ]
    return f"<div><h3>{html.escape(title)}</h3><table><tr><th></th>{head}</tr>{''.join(lines)}</table></div>"


def _cell(value: float, span: tuple[float, float]) -> str:
    if np.isnan(value):
        return "<td></td>"
    low, high = span
    share = max(0.0, min(1.0, (value - low) / (high - low)))
    background = ",".join(str(round(255 - share * (255 - part))) for part in COLOR)
    color = "#fff" if share > 0.6 else "#1e1e1e"
    shown = f"{value:.2f}" if high <= 1.1 else f"{value:.1f}"
    return f'<td style="background:rgb({background});color:{color}" title="{value:.4f}">{shown}</td>'
