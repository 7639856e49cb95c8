"""Indexes of images, or of texts, that grow: `build_index` makes one, goes on with it, and adds to it."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from unimo.data.checks import check_text
from unimo.data.image_list import ImageKind, open_images
from unimo.data.readers.open import open_all_splits, open_corpus
from unimo.data.record import Record
from unimo.errors import ConfigError, RecordError
from unimo.inference.search.encoder import Encoder
from unimo.inference.search.nearest import prepare
from unimo.inference.search.store import ROWS_OF_PART, writing
from unimo.progress import Progress
from unimo.settings import CorpusConfig, DataConfig, ScenesConfig

logger = logging.getLogger(__name__)
Holds = Literal["images", "texts"]
SECONDS_OF_PART = 30.0
"""Work that is done before it counts: what a kill costs at most."""


@dataclass(frozen=True)
class Corpus:
    """Images or texts to index."""

    path: str
    kind: ImageKind | Literal["texts"] = "images"
    """Images: as of `open_images`. Texts: `texts`, or `pairs` for captions."""
    split: str = "all"
    scenes_images: int | None = None
    holds: Holds = "images"
    """Whether its images or its texts are indexed."""

    def open(self, encoder: Encoder) -> Entries:
        """Open the images or the texts.

        Raises:
            ConfigError: a kind without such entries, or labelled images without a split.
            DataError: no such corpus or split.
        """
        if self.holds == "texts":
            return _Texts(encoder, self)
        if self.kind == "texts":
            raise ConfigError("--kind texts: texts have no images; give them as --texts")
        return _Images(encoder, self)


class Entries(Protocol):
    """Numbered images or texts of a corpus, each once."""

    broken: int
    """Those that were left out of the numbers because they cannot be read."""
    encode: Callable[[Sequence[Any]], np.ndarray]
    """Compute unit vectors [N, E] of what `read` returns of N entries."""

    def __len__(self) -> int: ...

    def id(self, number: int) -> str:
        """Return what identifies an entry in its corpus."""

    def read(self, number: int) -> Any:
        """Return what the model reads of an entry; raises RecordError for a broken one."""


class _Images:
    """Images, identified by their names."""

    broken = 0

    def __init__(self, encoder: Encoder, corpus: Corpus) -> None:
        self._images = open_images(corpus.path, corpus.kind, corpus.split, corpus.scenes_images)
        self._processor, self.encode = encoder.processor, encoder.images
        self.id = self._images.image_id

    def __len__(self) -> int:
        return len(self._images)

    def read(self, number: int) -> Any:
        return self._processor.image(image_record(self.id(number), self._images.source(number)))


class _Texts:
    """Texts, which identify themselves."""

    def __init__(self, encoder: Encoder, corpus: Corpus) -> None:
        if corpus.kind not in ("texts", "pairs"):
            raise ConfigError(f"--kind {corpus.kind}: expected texts, or pairs for captions, with --texts")
        sizes = () if corpus.scenes_images is None else (corpus.scenes_images, corpus.scenes_images)
        source, data = CorpusConfig(corpus.path), DataConfig(scenes=ScenesConfig(*sizes))
        if corpus.split == "all":
            dataset = open_all_splits(source, corpus.kind, data)
        else:
            dataset = open_corpus(source, corpus.split, corpus.kind, data)
        found, self.broken, self.encode = {}, 0, encoder.texts
        for number in range(len(dataset)):
            try:
                found[check_text(dataset[number].text, f"{dataset.name}[{number}]")] = None
            except RecordError as error:
                self.broken += 1
                logger.warning("skipped a text: %s", error)
        self._texts = list(found)

    def __len__(self) -> int:
        return len(self._texts)

    def id(self, number: int) -> str:
        return self._texts[number]

    read = id


def image_record(image_id: str, source: Any) -> Record:
    """Return the record of an image alone."""
    return Record(image_id, "images", images=(source,), image_id=image_id)


@dataclass(frozen=True)
class Counts:
    """Outcome of `build_index`."""

    added: int
    known: int
    """Entries that were there before."""
    broken: int
    rows: int
    """Entries of the index now."""


def build_index(
    encoder: Encoder, corpus: Corpus, folder: str | Path, batch_size: int = 32, workers: int = 2
) -> Counts:
    """Add a corpus to an index, which is started if there is none.

    What is there is passed over, so the same call goes on after it was stopped, and repeated does nothing.
    What was encoded counts every `SECONDS_OF_PART`.

    Args:
        encoder: the model.
        corpus: the images or texts. A corpus is identified by its absolute path, its entries by their ids.
        folder: folder of the index.
        batch_size: entries encoded at once.
        workers: threads that read a batch while another one is encoded.

    Raises:
        ConfigError: see `writing` and `Corpus.open`; or no entry can be read.
        DataError: the index is damaged, or there is no such corpus.
    """
    entries = corpus.open(encoder)
    place = corpus.path if corpus.path == "scenes" else str(Path(corpus.path).resolve())
    origin = {**dataclasses.asdict(corpus), "path": place}
    made_with = {**encoder.made_with, "holds": corpus.holds}
    with writing(folder, encoder.width, made_with) as store:
        known = {name["id"] for name in store.names() if name["corpus"]["path"] == place}
        todo = [n for n in range(len(entries)) if entries.id(n) not in known]
        added, broken, before = 0, entries.broken, len(entries) - len(todo)
        names: list[dict[str, Any]] = []
        vectors: list[np.ndarray] = []
        begun = time.monotonic()
        with ThreadPoolExecutor(workers) as pool, Progress(corpus.holds, len(entries), before) as progress:
            for numbers, ready in _read_ahead(entries, todo, batch_size, pool):
                if ready:
                    vectors.append(entries.encode(list(ready.values())))
                    names += [{"id": entries.id(n), "corpus": origin, "number": n} for n in ready]
                added, broken = added + len(ready), broken + len(numbers) - len(ready)
                progress.update(len(numbers))
                is_due = time.monotonic() - begun >= SECONDS_OF_PART or len(names) >= ROWS_OF_PART
                if names and (is_due or numbers[-1] == todo[-1]):
                    store.append(np.concatenate(vectors), names)
                    names, vectors, begun = [], [], time.monotonic()
        if store.state.rows == 0:
            total = len(entries) + entries.broken
            what = f"none of {total} {corpus.holds} can be read; give other --{corpus.holds}"
            raise ConfigError(f"{corpus.path}: {what}")
        prepare(store)
        return Counts(added, before, broken, store.state.rows)


def _read_ahead(
    entries: Entries, todo: Sequence[int], batch_size: int, pool: ThreadPoolExecutor
) -> Iterator[tuple[Sequence[int], dict[int, Any]]]:
    """Yield the numbers of each batch, with what can be read; the next batch is read meanwhile."""

    def finished(numbers: Sequence[int], reading: Sequence[Future[Any]]) -> dict[int, Any]:
        ready = {}
        for number, future in zip(numbers, reading, strict=True):
            try:
                ready[number] = future.result()
            except RecordError as error:
                logger.warning("skipped %s: %s", entries.id(number), error)
        return ready

    waiting: deque[tuple[Sequence[int], list[Future[Any]]]] = deque()
    for start in range(0, len(todo), batch_size):
        numbers = todo[start : start + batch_size]
        waiting.append((numbers, [pool.submit(entries.read, number) for number in numbers]))
        if len(waiting) > 1:
            numbers, reading = waiting.popleft()
            yield numbers, finished(numbers, reading)
    for numbers, reading in waiting:
        yield numbers, finished(numbers, reading)
