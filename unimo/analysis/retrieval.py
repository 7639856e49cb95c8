"""Figs. 5 and 6 of UNIMO: what one or two models retrieve, results on which they differ first, as HTML."""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import paddle
from PIL import Image

from unimo.analysis.grounded_tokens import Progress, open_loader
from unimo.analysis.show import data_uri, html_page, titles_of, writing_to
from unimo.errors import ConfigError, DataError, RecordError
from unimo.files import write_text
from unimo.inference.evaluation import processor_changes, run_of
from unimo.inference.zero_shot import open_matcher
from unimo.tasks.retrieval.matching import Gallery, score_pairs

Direction = Literal["text", "image"]
"""Modality of the results."""
THUMBNAIL = 200
"""Longest side of an image in pixels."""
STYLE = """body{font:15px/1.45 system-ui,sans-serif;margin:24px auto;max-width:1200px;color:#1e1e1e}
section{border-top:1px solid #e1e1e1;padding:12px 0;display:flex;gap:24px;align-items:flex-start}
.query{flex:0 0 210px}.model{flex:1 1 0;min-width:0}.model h3{font-size:14px;margin:0 0 6px;color:#6e6e6e}
img{max-width:200px;max-height:200px;display:block}.hits{display:flex;flex-wrap:wrap;gap:10px}
.hit{margin:0 0 8px;padding:4px 8px;border-left:4px solid #d8d8d8}.right{border-color:#2ca02c}
.picture{width:150px}.picture img{max-width:150px;max-height:130px}
.agrees{color:#157f1f;font-weight:600}.disagrees{color:#c81e1e;font-weight:600}
small,.note{color:#6e6e6e}table{border-collapse:collapse}td,th{padding:2px 12px 2px 0;text-align:right}
th:first-child,td:first-child{text-align:left}"""
FUNCTION_WORDS = frozenset(
    "a an the and or but as of to in on at by for from with into onto is are was were be been being has have "
    "had it its he she they them his her their this that these those there here who which while some another "
    "other one".split()
)
"""Words without content, which are not coloured."""
NOTES: dict[Direction, str] = {
    "text": "The captions that fit an image best. Words that a true caption of the image has are green, "
    "words that none of them has are red.",
    "image": "The images that fit a caption best. The caption is repeated below each: words that a true "
    "caption of that image has are green, words that none of them has, the neglected ones, are red.",
}


@dataclass(frozen=True)
class Hit:
    """One result."""

    row: int
    """Index into `Found.captions` (text retrieval) or `Found.image_ids` (image retrieval)."""
    score: float
    is_right: bool


@dataclass(frozen=True)
class Example:
    """The results of all models for one query."""

    query: int
    """Index into `Found.image_ids` (text retrieval) or `Found.captions` (image retrieval)."""
    hits: tuple[tuple[Hit, ...], ...]
    """Results of each model, best first."""


@dataclass(frozen=True)
class Ranking:
    """All scores of one model."""

    name: str
    scores: np.ndarray
    """[texts, images]."""
    recall: dict[str, float]
    """Recall in percent, see `retrieval_recall`."""


@dataclass(frozen=True)
class Found:
    """The examples with their images and captions."""

    models: tuple[Ranking, ...]
    captions: tuple[str, ...]
    image_ids: tuple[str, ...]
    image_of_text: np.ndarray
    """Index of the image of each caption."""
    examples: dict[Direction, tuple[Example, ...]]
    picture: Callable[[int], Image.Image]
    """Opens the image with an index; grey where the data have no image."""

    def true_captions(self, image: int) -> list[str]:
        """Return the captions of an image."""
        return [self.captions[row] for row in np.flatnonzero(self.image_of_text == image)]


def headline(model: Ranking) -> str:
    """Summarise the recalls at 1 of a model in one line."""
    return f"{model.name}: text R@1 {model.recall['tr_r1']:.1f}, image R@1 {model.recall['ir_r1']:.1f}"


def find_examples(
    directories: Sequence[Path],
    split: str = "val",
    *,
    paths: Sequence[str] = (),
    overrides: Sequence[str] = (),
    queries: int = 12,
    top: int = 3,
    progress: Progress = lambda items, **_: items,
) -> Found:
    """Rank the images and captions of a split with one or two models, and select examples.

    Args:
        directories: model directories of pre-training (scored by the matching head) or of retrieval.
        split: split of the data.
        paths: corpora, as for `data.pairs`; those of each model's run when empty.
        overrides: overrides of the runs, e.g. `train.eval_max_batches=4`.
        queries, top: numbers of examples of each direction, and of results of each.

    Raises:
        ConfigError: too many models, a number below 1, or an invalid override.
        CheckpointError, CapabilityError: a model that cannot match images and texts.
        DataError: no such data, or different data for the two models.
    """
    if len(directories) not in (1, 2):
        raise ConfigError(f"{len(directories)} models; expected one, or two to compare")
    for name, value in (("queries", queries), ("top", top)):
        if value < 1:
            raise ConfigError(f"{name} is {value}, expected 1 or more")
    ranked = [
        _rank(name, directory, split, paths, overrides, progress)
        for name, directory in zip(titles_of(directories), directories, strict=True)
    ]
    models = tuple(ranking for ranking, _ in ranked)
    captions, image_ids, owners, picture = ranked[0][1]
    if any(samples[:3] != ranked[0][1][:3] for _, samples in ranked):
        raise DataError(
            f"{' and '.join(model.name for model in models)} read different images or texts; name the corpus "
            "with --data, or give only one model"
        )
    image_of_text, images = np.array(owners), np.arange(len(image_ids))
    examples: dict[Direction, tuple[Example, ...]] = {
        "text": choose([model.scores.T for model in models], images, image_of_text, queries, top),
        "image": choose([model.scores for model in models], image_of_text, images, queries, top),
    }
    return Found(models, tuple(captions), tuple(image_ids), image_of_text, examples, picture)


def choose(
    scores: Sequence[np.ndarray], queries: np.ndarray, candidates: np.ndarray, number: int, top: int
) -> tuple[Example, ...]:
    """Select the examples of one direction.

    With two models these are first the queries whose first result is right for only one of them, then those
    with different first results, then others; within these groups, and with one model, they are evenly spread
    over the data.

    Args:
        scores: scores of each model, [queries, candidates].
        queries, candidates: image of each; a result is right if it has the image of the query.
        number, top: numbers of examples, and of results of each.
    """
    orders = [np.argsort(-table, axis=1, kind="stable")[:, :top] for table in scores]
    firsts = np.stack([order[:, 0] for order in orders])
    right = candidates[firsts] == queries
    differ = (right != right[0]).any(axis=0)
    others = (firsts != firsts[0]).any(axis=0) & ~right.all(axis=0) & ~differ
    chosen: list[int] = []
    for group in (differ, others, ~(differ | others)):
        rows = np.flatnonzero(group)
        wanted = min(number - len(chosen), len(rows))
        chosen += rows[np.linspace(0, len(rows) - 1, wanted).round().astype(int)].tolist() if wanted else []

    def hits(row: int, table: np.ndarray, order: np.ndarray) -> tuple[Hit, ...]:
        right = candidates[order[row]] == queries[row]
        return tuple(map(Hit, order[row].tolist(), table[row, order[row]].tolist(), right.tolist()))

    return tuple(
        Example(row, tuple(hits(row, *each) for each in zip(scores, orders, strict=True))) for row in chosen
    )


def _rank(
    name: str,
    directory: Path,
    split: str,
    paths: Sequence[str],
    overrides: Sequence[str],
    progress: Progress,
) -> tuple[Ranking, tuple[list[str], list[str], list[int], Callable[[int], Image.Image]]]:
    """Score all captions and images with one model.

    Returns:
        Scores; captions, image ids, index of the image of each caption, and a function that opens an image.
    """
    run = run_of(directory, overrides)
    matcher, processor = open_matcher(directory, processor_changes(run))
    loader = open_loader(run, processor, paths, split)
    count = min(len(loader), run.train.eval_max_batches or len(loader))
    batches = progress(itertools.islice(loader, count), total=count, what=f"{name}: encoding")
    with paddle.no_grad():
        gallery = Gallery.collect(matcher, batches)
        scores = score_pairs(matcher, gallery)
    dataset, numbers = loader.dataset, [int(number) for number in gallery.text_ids]
    captions = [dataset[number].text for number in numbers]
    owners = gallery.image_of_text.tolist()
    first = {owner: number for owner, number in reversed(list(zip(owners, numbers, strict=True)))}

    def picture(row: int) -> Image.Image:
        try:
            return processor.open(dataset.image_source(first[row]))
        except RecordError:  # stored regions need no image
            return Image.new("RGB", (160, 120), "lightgrey")

    ranking = Ranking(name, scores, gallery.recall(scores))
    return ranking, (captions, gallery.image_ids, owners, picture)


def write(found: Found, folder: str | Path, source: str = "") -> Path:
    """Write `retrieval.html`; `source` (the data) stands in its heading.

    Raises:
        ConfigError: see `writing_to`.
    """
    with writing_to(folder) as out:
        write_text(out / "retrieval.html", make_page(found, source))
    return out / "retrieval.html"


def make_page(found: Found, source: str = "") -> str:
    """Build an HTML document with embedded images."""
    parts = []
    for direction, about in NOTES.items():
        sections = "\n".join(_section(found, direction, example) for example in found.examples[direction])
        parts.append(f'<h2>{direction.title()} retrieval</h2><p class="note">{about}</p>\n{sections}')
    order = "Examples on whose first result the models differ come first. " if len(found.models) > 1 else ""
    note = (
        f"{order}A green bar marks right results. Words are compared as they are written, but for capitals; "
        "function words are not coloured."
    )
    body = "\n".join([f'{_recalls(found)}<p class="note">{note}</p>', *parts])
    return html_page("Retrieval", "Retrieval examples", STYLE, source, body)


def _recalls(found: Found) -> str:
    names = {"tr_r1": "text R@1", "tr_r5": "R@5", "tr_r10": "R@10", "ir_r1": "image R@1"}
    names |= {"ir_r5": "R@5", "ir_r10": "R@10"}
    head = "".join(f"<th>{name}</th>" for name in names.values())
    rows = "".join(
        f"<tr><td>{html.escape(model.name)}</td>"
        + "".join(f"<td>{model.recall[key]:.1f}</td>" for key in names)
        + "</tr>"
        for model in found.models
    )
    size = f"{len(found.captions):,} captions of {len(found.image_ids):,} images"
    return f"<table><tr><th>{size}, percent</th>{head}</tr>{rows}</table>"


def _section(found: Found, direction: Direction, example: Example) -> str:
    if direction == "text":
        query = _image(found, example.query)
    else:
        query = f"<b>{html.escape(found.captions[example.query])}</b>"
    columns = "".join(
        f'<div class="model"><h3>{html.escape(model.name)}</h3><div class="hits">'
        + "".join(_hit(found, direction, example, hit) for hit in hits)
        + "</div></div>"
        for model, hits in zip(found.models, example.hits, strict=True)
    )
    return f'<section class="{direction}"><div class="query">{query}</div>{columns}</section>'


def _hit(found: Found, direction: Direction, example: Example, hit: Hit) -> str:
    is_text = direction == "text"
    caption, image = (hit.row, example.query) if is_text else (example.query, hit.row)
    words = color_words(found.captions[caption], found.true_captions(image))
    score = f"<small>{'right, ' if hit.is_right else ''}score {hit.score:.2f}</small>"
    kinds = f"hit{'' if is_text else ' picture'}{' right' if hit.is_right else ''}"
    return f'<div class="{kinds}">{"" if is_text else _image(found, image)}{words} {score}</div>'


def _image(found: Found, row: int) -> str:
    picture = found.picture(row).copy()
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    name = html.escape(found.image_ids[row], quote=True)
    return f'<img src="{data_uri(picture, "JPEG")}" alt="{name}" title="{name}">'


def color_words(text: str, others: Iterable[str]) -> str:
    """Mark up a text in HTML: words that occur in one of `others` as `agrees`, the rest as `disagrees`."""
    known = {word for other in others for word in re.findall(r"\w+", other.lower())}

    def color(part: str) -> str:
        word = part.lower()
        if not re.fullmatch(r"\w+", word) or word in FUNCTION_WORDS:
            return html.escape(part)
        return f'<span class="{"agrees" if word in known else "disagrees"}">{html.escape(part)}</span>'

    return "".join(color(part) for part in re.findall(r"\w+|\W+", text))
