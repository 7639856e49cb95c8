"""An index of images for texts and images: `build_index` makes it, `Searcher` asks it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from unimo.data.image_list import ImageKind, ImageList, open_images
from unimo.data.processor import Processor
from unimo.data.record import ImageSource, Record
from unimo.digests import digest
from unimo.errors import CapabilityError, ConfigError, RecordError
from unimo.inference.loading import WEIGHTS, find_model, read_model_config
from unimo.inference.search.nearest import MEASURED_AT, Flat, open_nearest, prepare, recall
from unimo.inference.search.store import Store, check_same_maker, model_of, open_store, writing
from unimo.inference.zero_shot import open_matcher
from unimo.progress import Progress
from unimo.registry import task_config
from unimo.tasks.base import to_tensors
from unimo.tasks.retrieval.matching import MatchingTask

logger = logging.getLogger(__name__)
Query = str | ImageSource
"""A text; or an image, as a path or bytes."""
IMAGES_OF_PART = 1024
"""Images that are encoded before they count: what a kill costs at most."""


@dataclass(frozen=True)
class Encoder:
    """The dual encoder of a model directory."""

    task: MatchingTask
    processor: Processor
    made_with: Mapping[str, Any]
    """The directory, and the digest of its weights."""
    width: int
    """E, numbers of a vector."""

    @classmethod
    def open(cls, directory: str | Path, rerank: int = 0) -> Encoder:
        """Open a model that was pre-trained or fine-tuned with image-text contrast.

        Args:
            directory: its directory.
            rerank: results that its fusion encoder is to judge.

        Raises:
            CheckpointError: there is no such model, or it was pre-trained without the matching to re-rank by.
            CapabilityError: it has no dual encoder that was trained.
        """
        folder = find_model(directory)
        content = read_model_config(folder)
        pretrained = content["task"]["name"] == "pretrain"
        config = task_config("retrieval", content["model"]["name"]) if pretrained else None
        if rerank and config and config.loss == "itc":
            config = dataclasses.replace(config, rerank=rerank)
        task, processor = open_matcher(folder, config=config)
        untrained = pretrained and task.config.exhaustive  # see `open_matcher`
        vectors = None if untrained else _text_vectors(task, processor, ["a"])
        if vectors is None:
            raise CapabilityError(
                f"{directory} has no vectors of images and texts to search by; give a model that was "
                "pre-trained with image-text contrast (VLMo, UNIMO-2), or fine-tuned on retrieval with it "
                "(python tools/finetune.py --task retrieval task.loss=itc_itm)"
            )
        made_with = {"directory": str(folder), "model": digest(folder / WEIGHTS)}
        return cls(task, processor, made_with, width=vectors.shape[1])

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Compute unit vectors [N, E], float32, of N texts.

        Raises:
            RecordError: a text is empty.
        """
        return _unit(_text_vectors(self.task, self.processor, texts))

    def images(self, images: Sequence[Any]) -> np.ndarray:
        """Compute unit vectors [N, E], float32, of N images as `Processor.image` gives them."""
        with paddle.no_grad():
            encoded = self.task.model.encode_image(to_tensors(self.processor.join_images(images)))
            return _unit(self.task.image_vectors(encoded))


def _text_vectors(task: MatchingTask, processor: Processor, texts: Sequence[str]) -> paddle.Tensor | None:
    """Compute the vectors [N, E] of texts; None for a task without any."""
    inputs = to_tensors(processor(texts=list(texts)))
    with paddle.no_grad():
        return task.text_vectors(task.model.encode_text(inputs["input_ids"], inputs["attention_mask"]))


def _unit(vectors: paddle.Tensor) -> np.ndarray:
    found = vectors.astype("float32").numpy()
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@dataclass(frozen=True)
class Corpus:
    """Images to index: arguments of `open_images`."""

    path: str
    kind: ImageKind = "images"
    split: str = "all"
    scenes_images: int | None = None

    def open(self) -> ImageList:
        """Open the images; errors are those of `open_images`."""
        return open_images(self.path, self.kind, self.split, self.scenes_images)


@dataclass(frozen=True)
class Counts:
    """Outcome of `build_index`."""

    added: int
    known: int
    """Images that were there before."""
    broken: int
    rows: int
    """Images of the index now."""


def build_index(
    encoder: Encoder, corpus: Corpus, folder: str | Path, batch_size: int = 32, workers: int = 2
) -> Counts:
    """Add the images of a corpus to an index, which is started if there is none.

    Images that are there are passed over, so the same call goes on after it was stopped, and repeated does
    nothing. Every `IMAGES_OF_PART` images count as soon as they are encoded.

    Args:
        encoder: the model.
        corpus: the images. A folder is identified by its absolute path, its images by their names in it.
        folder: folder of the index.
        batch_size: images encoded at once.
        workers: threads that decode.

    Raises:
        ConfigError: see `writing`; or none of the images can be read.
        DataError: the index is damaged, or there are no such images.
    """
    images = corpus.open()
    place = corpus.path if corpus.path == "scenes" else str(Path(corpus.path).resolve())
    origin = {**dataclasses.asdict(corpus), "path": place}
    with writing(folder, encoder.width, encoder.made_with) as store:
        known = {(name["corpus"]["path"], name["id"]) for name in store.names()}
        todo = [n for n in range(len(images)) if (place, images.image_id(n)) not in known]
        added, broken, before = 0, 0, len(images) - len(todo)
        with ThreadPoolExecutor(workers) as pool, Progress("images", len(images), before) as progress:
            for start in range(0, len(todo), IMAGES_OF_PART):
                part, names, vectors = todo[start : start + IMAGES_OF_PART], [], []
                for first in range(0, len(part), batch_size):
                    numbers = part[first : first + batch_size]
                    ready = _decode(encoder.processor, images, numbers, pool)
                    progress.update(len(numbers))
                    if ready:
                        vectors.append(encoder.images(list(ready.values())))
                        names += [{"id": images.image_id(n), "corpus": origin, "number": n} for n in ready]
                    broken += len(numbers) - len(ready)
                if names:
                    store.append(np.concatenate(vectors), names)
                added += len(names)
        if store.state.rows == 0:
            raise ConfigError(f"{corpus.path}: none of {len(images)} images can be read; give other --images")
        prepare(store)
        return Counts(added, before, broken, store.state.rows)


def _decode(
    processor: Processor, images: ImageList, numbers: Sequence[int], pool: ThreadPoolExecutor
) -> dict[int, Any]:
    """Return what the model reads of each image that can be read, by number."""

    def read(number: int) -> Any:
        try:
            image_id = images.image_id(number)
            return processor.image(
                Record(image_id, images.name, images=(images.source(number),), image_id=image_id)
            )
        except RecordError as error:
            return error

    found = dict(zip(numbers, pool.map(read, numbers), strict=True))
    for number, value in found.items():
        if isinstance(value, RecordError):
            logger.warning("skipped %s: %s", images.image_id(number), value)
    return {number: value for number, value in found.items() if not isinstance(value, RecordError)}


def _record(image_id: str, source: ImageSource) -> Record:
    return Record(image_id, "images", images=(source,), image_id=image_id)


@dataclass(frozen=True)
class Hit:
    """One result."""

    id: str
    """Name of the image in its corpus."""
    path: str
    """File, or the corpus it lies in."""
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
        within = "" if self.id in self.path else f"  {self.id}"
        return f"{self.cosine:6.3f}{match}  {self.path}{within}"


class Searcher:
    """Answers texts and images from one state of an index.

    Args:
        folder: folder of the index.
        encoder: the model; None for the one that the index was made with.

    Raises:
        ConfigError: there is no index, it was made with another model, or faiss is not installed.
        DataError: it is damaged.
        CheckpointError: its model is no longer where it was.
    """

    def __init__(self, folder: str | Path, encoder: Encoder | None = None) -> None:
        self.store: Store = open_store(folder)
        if self.store.state.rows == 0:
            raise ConfigError(
                f"the index {folder} has no images yet; add some: python tools/index.py add {folder}"
            )
        self.encoder = encoder or Encoder.open(model_of(folder))
        check_same_maker(self.store, self.encoder.width, self.encoder.made_with)
        self._names = self.store.names()
        self.nearest = open_nearest(self.store)

    def vectors(self, queries: Sequence[Query]) -> np.ndarray:
        """Compute the vectors [Q, E] of queries: strings are texts, all else is images.

        Raises:
            ConfigError: there is no query, or a text is empty.
            RecordError: an image cannot be read.
        """
        if not queries or any(isinstance(query, str) and not query.strip() for query in queries):
            raise ConfigError('expected a query, found an empty one; try "a red circle" or --image FILE')
        return np.concatenate([self._vector(query) for query in queries])

    def _vector(self, query: Query) -> np.ndarray:
        if isinstance(query, str):
            return self.encoder.texts([query])
        processor = self.encoder.processor
        return self.encoder.images([processor.image(_record("query", query))])

    def search(self, queries: Sequence[Query], count: int = 10, rerank: int = 0) -> list[list[Hit]]:
        """Return the best images for each query, best first.

        Args:
            queries: texts and images.
            count: results of a query.
            rerank: best ones by cosine that the fusion encoder puts into its own order; texts only.

        Raises:
            ConfigError: an empty query, or `rerank` for an image or a model that has not learned to match.
            RecordError: an image cannot be read.
        """
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
        return recall(self.nearest.search(vectors, count), Flat(self.store).search(vectors, count))

    def source(self, hit: Hit) -> ImageSource:
        """Return the file or the bytes of the image of a result.

        Raises:
            DataError, RecordError: it is no longer there.
        """
        images = _opened(Corpus(**hit.name["corpus"]))
        number = hit.name["number"]
        if number >= len(images) or images.image_id(number) != hit.id:
            number = next((n for n in range(len(images)) if images.image_id(n) == hit.id), -1)
        if number < 0:
            raise RecordError(f"{hit.id} is no longer in {hit.name['corpus']['path']}")
        return images.source(number)

    def _hit(self, row: int, cosine: float) -> Hit:
        name = self._names[row]
        path = Path(name["corpus"]["path"])
        return Hit(name["id"], str(path / name["id"] if path.is_dir() else path), cosine, None, name)

    def _reranked(self, query: Query, hits: Sequence[Hit]) -> list[Hit]:
        task, processor = self.encoder.task, self.encoder.processor
        if not isinstance(query, str) or not task.config.has_matching:
            what = "the model learned no matching" if isinstance(query, str) else "one query is an image"
            raise ConfigError(f"--rerank: texts are matched with images, and {what}; leave it out")
        scores: list[float] = []
        for part in _parts(hits, task.config.fusion_batch_size):
            ready = [processor.image(_record(hit.id, self.source(hit))) for hit in part]
            images = to_tensors(processor.join_images(ready))
            inputs = to_tensors(processor(texts=[query] * len(part)))
            with paddle.no_grad():
                text = task.model.encode_text(inputs["input_ids"], inputs["attention_mask"])
                scores += task.match_scores(text, task.model.encode_image(images)).tolist()
        order = sorted(range(len(hits)), key=lambda i: -scores[i])
        return [dataclasses.replace(hits[i], match=1 / (1 + float(np.exp(-scores[i])))) for i in order]


@lru_cache(maxsize=8)
def _opened(corpus: Corpus) -> ImageList:
    return corpus.open()


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
