"""Searches of an index: `Searcher` answers texts and images with what is nearest to them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from unimo.data.image_list import ImageKind, ImageList, open_images
from unimo.data.record import ImageSource
from unimo.errors import ConfigError, DataError, RecordError
from unimo.inference.search.build import image_record
from unimo.inference.search.encoder import Encoder, encode_images, encode_texts
from unimo.inference.search.nearest import MEASURED_AT, Flat, open_newest, recall
from unimo.inference.search.store import check_same_maker, model_of
from unimo.nn.outputs import Encoded

logger = logging.getLogger(__name__)
Query = str | ImageSource
"""A text; or an image, as a path or bytes."""
QUERIES_AT_ONCE = 32


@dataclass(frozen=True)
class Hit:
    """One result."""

    id: str
    """Name of the image in its corpus; or the text."""
    path: str
    """File of the image, or the corpus that it or the text lies in."""
    cosine: float
    match: float | None
    """Probability of a match by the fusion encoder, where it re-ranked."""
    name: Mapping[str, Any]
    """Its name in the index: id, corpus, and number in the corpus."""

    def as_dict(self) -> dict[str, Any]:
        """Return what a program wants to know."""
        return {"id": self.id, "path": self.path, "cosine": self.cosine, "match": self.match}

    def __str__(self) -> str:
        match = "" if self.match is None else f"  match {self.match:.3f}"
        what = self.path if self.id in self.path else f"{self.path}  {self.id}"
        return f"{self.cosine:6.3f}{match}  {self.id if self.name['corpus']['holds'] == 'texts' else what}"


class Searcher:
    """Answers texts and images from one state of an index of images, or of texts.

    Args:
        folder: folder of the index.
        encoder: the model; None for the one that the index was made with.

    Raises:
        ConfigError: there is no index, it was made with another model, or faiss is not installed.
        DataError: it is damaged.
        CheckpointError: its model is no longer where it was.
    """

    def __init__(self, folder: str | Path, encoder: Encoder | None = None) -> None:
        self.encoder = encoder or Encoder.open(model_of(folder))
        self.store, self.nearest = open_newest(folder)
        if self.store.state.rows == 0:
            raise ConfigError(f"the index {folder} is empty; add to it: python tools/index.py add {folder}")
        check_same_maker(self.store, self.encoder.width, self.encoder.made_with)
        self.holds: str = str(self.store.state.made_with.get("holds"))
        """`images` or `texts`."""

    def vectors(self, queries: Sequence[Query]) -> np.ndarray:
        """Compute the vectors [Q, E] of queries: strings are texts, all else is images.

        Raises:
            ConfigError: there is no query, or a text is empty.
            RecordError: an image cannot be read.
        """
        if not queries or any(isinstance(query, str) and not query.strip() for query in queries):
            raise ConfigError('expected a query, found an empty one; try "a red circle" or --image FILE')
        found = np.empty((len(queries), self.encoder.width), np.float32)
        for is_text, compute in ((True, self.encoder.texts), (False, self.encoder.images)):
            numbers = [n for n, query in enumerate(queries) if isinstance(query, str) == is_text]
            for part in _parts(numbers, QUERIES_AT_ONCE):
                asked = [queries[n] for n in part]
                found[part] = compute(asked if is_text else [self._ready("query", each) for each in asked])
        return found

    def search(self, queries: Sequence[Query], count: int = 10, rerank: int = 0) -> list[list[Hit]]:
        """Return the best images or texts for each query, best first.

        Args:
            queries: texts and images.
            count: results of a query.
            rerank: best ones by cosine that the fusion encoder puts into its own order: images for a text, or
                texts for an image.

        Raises:
            ConfigError: an empty query; or `rerank` of what the query is itself, or for a model that has not
                learned to match.
            RecordError: an image cannot be read.
        """
        if rerank:
            self._check_rerank(queries)
        found = self.nearest.search(self.vectors(queries), max(count, rerank))
        hits = []
        for query, rows, scores in zip(queries, found.rows, found.scores, strict=True):
            best = [
                self._hit(int(row), float(score)) for row, score in zip(rows, scores, strict=True) if row >= 0
            ]
            hits.append((self._reranked(query, best[:rerank]) + best[rerank:] if rerank else best)[:count])
        return hits

    def recall(self, queries: Sequence[Query], count: int = MEASURED_AT) -> float:
        """Compare the results with those of a search of all vectors: the share that is found."""
        vectors = self.vectors(queries)
        exact = Flat(self.store).search(vectors, count).rows
        return recall(self.nearest.search(vectors, count).rows, exact)

    def source(self, hit: Hit) -> ImageSource:
        """Return the file or the bytes of the image of a result.

        Raises:
            DataError, RecordError: it is no longer there.
        """
        corpus = hit.name["corpus"]
        images = _opened(corpus["path"], corpus["kind"], corpus["split"], corpus["scenes_images"])
        number = hit.name["number"]
        if number >= len(images) or images.image_id(number) != hit.id:
            number = next((n for n in range(len(images)) if images.image_id(n) == hit.id), -1)
        if number < 0:
            raise RecordError(f"{hit.id} is no longer in {corpus['path']}")
        return images.source(number)

    def _hit(self, row: int, cosine: float) -> Hit:
        name = self.store.name(row)
        path = Path(name["corpus"]["path"])
        is_file = self.holds == "images" and path.is_dir()
        return Hit(name["id"], str(path / name["id"] if is_file else path), cosine, None, name)

    def _check_rerank(self, queries: Sequence[Query]) -> None:
        if not self.encoder.task.config.has_matching:
            raise ConfigError(
                "--rerank: the model learned no matching, or was opened without `rerank`; leave it out"
            )
        if any(isinstance(query, str) == (self.holds == "texts") for query in queries):
            kinds = ("texts", "images")[:: 1 if self.holds == "texts" else -1]
            what = "this index holds {}, which are matched with {}, and one query is none of these"
            raise ConfigError(f"--rerank: {what.format(*kinds)}; leave it out")

    def _reranked(self, query: Query, hits: Sequence[Hit]) -> list[Hit]:
        """Put hits into the order of the fusion encoder; images that are gone come last."""
        task, is_text = self.encoder.task, isinstance(query, str)
        entries = [self._read(hit) for hit in hits]
        readable = [number for number, entry in enumerate(entries) if entry is not None]
        scores: list[float] = []
        with paddle.no_grad():
            asked = self._encode([query if is_text else self._ready("query", query)], is_text)
            for part in _parts(readable, task.config.fusion_batch_size):
                repeated = asked.select(paddle.zeros([len(part)], "int64"))
                found = self._encode([entries[number] for number in part], not is_text)
                text, image = (repeated, found) if is_text else (found, repeated)
                scores += task.match_scores(text, image).tolist()
        order = sorted(zip(scores, readable, strict=True), key=lambda pair: -pair[0])
        best = [dataclasses.replace(hits[n], match=float(1 / (1 + np.exp(-score)))) for score, n in order]
        return best + [hit for hit, entry in zip(hits, entries, strict=True) if entry is None]

    def _read(self, hit: Hit) -> Any:
        """Return what the model reads of a result; None for an image that is gone."""
        if self.holds == "texts":
            return hit.id
        try:
            return self._ready(hit.id, self.source(hit))
        except DataError as error:
            logger.warning("--rerank leaves out %s: %s", hit.id, error)
            return None

    def _ready(self, image_id: str, source: ImageSource) -> Any:
        return self.encoder.processor.image(image_record(image_id, source))

    def _encode(self, entries: Sequence[Any], is_text: bool) -> Encoded:
        encode = encode_texts if is_text else encode_images
        return encode(self.encoder.task, self.encoder.processor, entries)


@lru_cache(maxsize=8)
def _opened(path: str, kind: ImageKind, split: str, scenes_images: int | None) -> ImageList:
    return open_images(path, kind, split, scenes_images)


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
