"""Figs. 5 and 6 of UNIMO: what one or two models find for images and texts, where they differ first."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import paddle
from PIL import Image

from unimo.analysis.grounded_tokens import open_loader
from unimo.analysis.show import titles_of
from unimo.data.readers.base import Dataset
from unimo.errors import ConfigError, DataError, RecordError
from unimo.inference.evaluation import processor_changes, run_of
from unimo.inference.zero_shot import open_matcher
from unimo.tasks.retrieval.scores import Gallery, score_pairs

Progress = Callable[..., Iterable[Any]]
"""Wraps an iterable as tqdm does."""
Direction = Literal["text", "image"]
"""What is looked for."""
MOST_MODELS = 2


@dataclass(frozen=True)
class Hit:
    """One result."""

    row: int
    """Of `Found.captions` in text retrieval, of `Found.image_ids` in image retrieval."""
    score: float
    is_right: bool


@dataclass(frozen=True)
class Example:
    """What the models find for one query."""

    query: int
    """Row of `Found.image_ids` in text retrieval, of `Found.captions` in image retrieval."""
    hits: tuple[tuple[Hit, ...], ...]
    """Of each model, best first."""


@dataclass(frozen=True)
class Ranking:
    """All scores of one model."""

    name: str
    scores: np.ndarray
    """[texts, images]."""
    recall: dict[str, float]
    """Percent, see `retrieval_recall`."""


@dataclass(frozen=True)
class Found:
    """The examples and what they are examples of."""

    models: tuple[Ranking, ...]
    captions: tuple[str, ...]
    image_ids: tuple[str, ...]
    image_of_text: np.ndarray
    """Row of the image of each caption."""
    examples: dict[Direction, tuple[Example, ...]]
    picture: Callable[[int], Image.Image]
    """Opens the image of a row; grey where the data hold no picture."""

    def true_captions(self, image: int) -> list[str]:
        """The captions of an image."""
        return [self.captions[row] for row in np.flatnonzero(self.image_of_text == image)]


def headline(model: Ranking) -> str:
    """The recalls at 1 of a model, in one line."""
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
    """Let one or two models rank the images and the captions of a split, and choose examples.

    Args:
        directories: model directories of pre-training (their matching head judges) or of retrieval.
        split: of the data.
        paths: corpora, as for `data.pairs`; empty: those of the first model's run.
        overrides: words over the runs, e.g. `train.eval_max_batches=4`.
        queries: examples of each direction.
        top: results of each.
        progress: wraps the batches.

    Raises:
        ConfigError: too many models, a number below 1, or a wrong override.
        CheckpointError, CapabilityError: a model that cannot match images and texts.
        DataError: no such data, or not the same for both models.
    """
    if not 1 <= len(directories) <= MOST_MODELS:
        raise ConfigError(f"{len(directories)} models; expected one, or two to compare")
    for name, value in (("queries", queries), ("top", top)):
        if value < 1:
            raise ConfigError(f"{name} is {value}, expected 1 or more")
    models, known = [], None
    for name, directory in zip(titles_of(directories), directories, strict=True):
        ranking, samples = _rank(name, directory, split, paths, overrides, progress)
        if known is None:
            known = samples
        elif samples[:3] != known[:3]:
            raise DataError(
                f"{models[0].name} and {ranking.name} read different images or texts; name the corpus with "
                "--data, or give only one model"
            )
        models.append(ranking)
    captions, image_ids, owners, picture = known
    image_of_text = np.array(owners)
    scores = [model.scores for model in models]
    images = np.arange(len(image_ids))
    return Found(
        models=tuple(models),
        captions=tuple(captions),
        image_ids=tuple(image_ids),
        image_of_text=image_of_text,
        examples={
            "text": choose([table.T for table in scores], images, image_of_text, queries, top),
            "image": choose(scores, image_of_text, images, queries, top),
        },
        picture=picture,
    )


def choose(
    scores: Sequence[np.ndarray], queries: np.ndarray, candidates: np.ndarray, number: int, top: int
) -> tuple[Example, ...]:
    """Examples of one direction.

    With two models: queries whose first result is right in one of them only, then those with different first
    results, then others. Within these, and with one model, evenly spread over the data.

    Args:
        scores: of each model, [queries, candidates].
        queries, candidates: image of each; a result is right if it has the query's.
        number: of examples.
        top: results of each.
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
    return tuple(
        Example(
            row,
            tuple(
                tuple(
                    Hit(int(hit), float(table[row, hit]), bool(candidates[hit] == queries[row]))
                    for hit in order[row]
                )
                for table, order in zip(scores, orders, strict=True)
            ),
        )
        for row in chosen
    )


Samples = tuple[list[str], list[str], list[int], Callable[[int], Image.Image]]


def _rank(
    name: str,
    directory: Path,
    split: str,
    paths: Sequence[str],
    overrides: Sequence[str],
    progress: Progress,
) -> tuple[Ranking, Samples]:
    """The scores of one model; captions, image ids, the image of each caption, and what opens images."""
    run = run_of(directory, overrides)
    size, changes = processor_changes(run, blank_images=False)
    matcher, processor = open_matcher(directory, size, changes)
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
        return _picture(dataset, first[row], processor)

    ranking = Ranking(name, scores, gallery.recall(scores))
    return ranking, (captions, gallery.image_ids, owners, picture)


def _picture(dataset: Dataset, number: int, processor: Any) -> Image.Image:
    try:
        return processor.open(dataset.image_source(number))
    except RecordError:  # stored regions need no picture
        return Image.new("RGB", (160, 120), "lightgrey")
