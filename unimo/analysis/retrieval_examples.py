"""Figs. 5 and 6 of UNIMO: retrieval results of one or two models, those on which they differ first."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import paddle
from PIL import Image

from unimo.analysis.grounded_tokens import Progress, open_loader
from unimo.analysis.show import titles_of
from unimo.errors import ConfigError, DataError, RecordError
from unimo.inference.evaluation import processor_changes, run_of
from unimo.inference.zero_shot import open_matcher
from unimo.tasks.retrieval.matching import Gallery, score_pairs

Direction = Literal["text", "image"]
"""Modality of the results."""
MOST_MODELS = 2


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
    if not 1 <= len(directories) <= MOST_MODELS:
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


Samples = tuple[list[str], list[str], list[int], Callable[[int], Image.Image]]
"""Captions, image ids, index of the image of each caption, and a function that opens an image."""


def _rank(
    name: str,
    directory: Path,
    split: str,
    paths: Sequence[str],
    overrides: Sequence[str],
    progress: Progress,
) -> tuple[Ranking, Samples]:
    """Score all captions and images with one model."""
    run = run_of(directory, overrides)
    matcher, processor = open_matcher(directory, processor_changes(run))
    loader = open_loader(run, processor, paths, split)
    count = min(len(loader), run.train.eval_max_batches or len(loader))
    batches = progress(itertools.islice(loader, count), total=count, desc=f"{name}: encoding")
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
