"""Fig. 4 of UNIMO: the neighbours of a word among the word embeddings of one or several models.

The words with the largest cosines to a centre word are projected to two dimensions by PCA. A word of several
tokens is represented by the mean of their rows. In the image rows are words, columns are models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from PIL import Image
from sklearn.decomposition import PCA

from unimo.analysis.show import writing_to
from unimo.data.processor import Processor
from unimo.data.tokenizers import Tokenizer
from unimo.errors import CapabilityError, ConfigError
from unimo.files import write_text
from unimo.models.base import Model

CENTRE, SHARED, OWN, FAINT = "#d62728", "#1f77b4", "#ff7f0e", "#c8c8c8"
SIDE, DPI = 5.2, 120
"""Side of a panel in inches, and pixels per inch."""
AWAY = 7.0
"""Distance between a mark and its name in points."""
DIRECTIONS = [(1, 0), (-1, 0), (0, 1), (0, -1), (0.8, 0.8), (-0.8, 0.8), (0.8, -0.8), (-0.8, -0.8)]


@dataclass(frozen=True)
class NearWord:
    """A word near the centre."""

    text: str
    similarity: float
    """Cosine with the centre."""
    place: tuple[float, float]
    """Position in the plane of the two main components."""


@dataclass(frozen=True)
class Surroundings:
    """A centre word with its neighbours in one model."""

    model: str
    word: str
    tokens: tuple[str, ...]
    """Tokens of the word, whose mean is the centre."""
    place: tuple[float, float]
    """Position in the plane of the two main components."""
    words: tuple[NearWord, ...]
    """Words, nearest first: those shown with names, then others around them."""
    named: int
    """Number of words shown with names."""
    variance: float
    """Share of the variance of these words in the plane."""

    @property
    def neighbours(self) -> tuple[NearWord, ...]:
        """Words shown with names."""
        return self.words[: self.named]

    @property
    def title(self) -> str:
        """The word, with the tokens whose mean stands for it."""
        return f"{self.word} (mean of {' + '.join(self.tokens)})" if len(self.tokens) > 1 else self.word


class Lexicon:
    """The complete words of a vocabulary with their embeddings.

    Parts of words, signs and numbers are excluded. Of spellings that differ in case only that with the
    smallest id, in most vocabularies the most frequent, is included.

    Args:
        name: name of the model, for images and messages.
        rows: [V, W], the embedding of each id.
        tokenizer: tokenizer of the model.
    """

    def __init__(self, name: str, rows: np.ndarray, tokenizer: Tokenizer) -> None:
        self.name, self.tokenizer = name, tokenizer
        self._rows = rows.astype(np.float64)
        words: dict[str, int] = {}
        self.texts: list[str] = []
        vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
        # Byte-level vocabularies mark the space before a word, those of WordPiece a token inside a word.
        is_byte_level = any(token.startswith("Ġ") for token in vocabulary)
        for token, number in sorted(vocabulary.items(), key=lambda item: item[1]):
            whole = token.startswith("Ġ") if is_byte_level else not token.startswith("##")
            if not whole or number in tokenizer.special_ids or number >= len(rows):
                continue
            text = tokenizer.decode([number]).strip()
            if text.isalpha() and text.lower() not in words:
                words[text.lower()] = number
                self.texts.append(text)
        self._ids = list(words.values())
        self._units = _unit(self._rows[self._ids])

    def around(self, word: str, nearest: int = 12, context: int = 150) -> Surroundings:
        """Find the nearest words to a word, and their positions.

        Args:
            nearest: number of words shown with names.
            context: number of words that the plane is fitted to, including those with names.

        Raises:
            ConfigError: a word that is empty or unknown to the vocabulary, or too few words for a plane.
        """
        if nearest < 2 or context < nearest:
            raise ConfigError(f"{nearest} nearest words of {context}: expected 2 to {context}")
        if not word.strip():
            raise ConfigError("an empty word; give words separated by commas, e.g. --words hamburger,foot")
        # Byte-level vocabularies recognise the start of a word by the space before it.
        ids = self.tokenizer.backend.encode(f" {word.strip()}", add_special_tokens=False).ids
        unknown = self.tokenizer.unk_token_id
        if not ids or unknown in ids or max(ids) >= len(self._rows):
            examples = ", ".join(self.texts[:: max(1, len(self.texts) // 8)][:8])
            raise ConfigError(f"{self.name} does not know the word {word!r}; it knows e.g. {examples}")
        centre = _unit(self._rows[ids].mean(axis=0, keepdims=True))
        cosines = self._units @ centre[0]
        # Exclude the word itself and the tokens of its mean.
        known = word.strip().lower()
        others = [
            row for row, text in enumerate(self.texts) if self._ids[row] not in ids and text.lower() != known
        ]
        order = np.array(others)[np.argsort(-cosines[others], kind="stable")[:context]]
        fitted = PCA(n_components=2, svd_solver="full")
        places = fitted.fit_transform(np.concatenate([centre, self._units[order]])).tolist()
        pairs = zip(order, places[1:], strict=True)
        return Surroundings(
            model=self.name,
            word=word.strip(),
            tokens=tuple(self.tokenizer.decode([one]).strip() for one in ids),
            place=tuple(places[0]),
            words=tuple(NearWord(self.texts[row], float(cosines[row]), tuple(at)) for row, at in pairs),
            named=min(nearest, len(order)),
            variance=float(fitted.explained_variance_ratio_.sum()),
        )


def open_lexicon(name: str, model: Model, processor: Processor) -> Lexicon:
    """Open the words of a model.

    Raises:
        CapabilityError: the model has no word embeddings.
    """
    for parameter, tensor in model.named_parameters():
        if parameter.endswith("embeddings.word.weight"):
            return Lexicon(name, tensor.astype("float32").numpy(), processor.tokenizer)
    raise CapabilityError(f"{name} ({model.config.name}) has no word embeddings to show")


def headline(panel: Surroundings) -> str:
    """List the neighbours of a word in one line."""
    near = ", ".join(f"{one.text} {one.similarity:.2f}" for one in panel.neighbours)
    return f"{panel.model}, {panel.title}: {near}"


def _unit(rows: np.ndarray) -> np.ndarray:
    """Scale rows to length 1; rows of zeros stay."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def only_there(panels: Sequence[Surroundings]) -> list[set[str]]:
    """Return for each panel of a word the neighbours that no other panel has, in lower case."""
    names = [{near.text.lower() for near in panel.neighbours} for panel in panels]
    return [own.difference(*(names[:i] + names[i + 1 :])) for i, own in enumerate(names)]


def to_plain(rows: Sequence[Sequence[Surroundings]]) -> dict[str, Any]:
    """Convert the neighbours of each word in each model to plain values, for JSON."""
    content: dict[str, Any] = {}
    for panels in rows:
        content[panels[0].word] = [
            {
                "model": panel.model,
                "tokens": list(panel.tokens),
                "mean_of_tokens": len(panel.tokens) > 1,
                "variance_shown": round(panel.variance, 4),
                "neighbours": [
                    {
                        "word": near.text,
                        "cosine": round(near.similarity, 4),
                        "only_here": len(panels) > 1 and near.text.lower() in own,
                    }
                    for near in panel.neighbours
                ],
            }
            for panel, own in zip(panels, only_there(panels), strict=True)
        ]
    return content


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
