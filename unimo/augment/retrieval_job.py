"""`augment_corpus.py retrieve-text | retrieve-images`: related sentences and images (UNIMO, appendix A)."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unimo.augment.corpus import Caption, CaptionCorpus, names_of_image
from unimo.augment.embedding import embed_index, open_embedder, unit_rows
from unimo.augment.index import Entry, Hit, TfidfIndex, build_index
from unimo.augment.output import Job, Line, describe_files, one_at_a_time
from unimo.augment.parsers import open_parser
from unimo.augment.rewrite_job import index_captions
from unimo.augment.scene_graph import Parser
from unimo.augment.terms import normalise, singular, terms_of
from unimo.config import check_fields
from unimo.data.prepare.broken import MOST, BrokenRecords
from unimo.data.regions.shard import parse_labels
from unimo.data.regions.store import LABELS
from unimo.errors import DataError
from unimo.files import checked_path, read_lines
from unimo.metrics.text import encodable
from unimo.ranges import Size

log = logging.getLogger(__name__)
_PROBED = 1000
"""Number of captions after which a warning tells that a collection has none of their images."""


@dataclass(frozen=True)
class RetrievalSettings:
    """Settings of retrieval.

    Raises:
        ConfigError: a number outside its range.
    """

    candidates: Size = 1000
    """Number of sentences from the inverted index that are reranked by embeddings."""
    keep: Size = 100
    """Number of results for each caption."""
    embedder: str = "lsa"
    """`lsa`, or `package.module:function`."""
    parser: str = "textblob"
    """Parser that finds the labels of images without those of a detector."""
    memory_mb: Size = 1000
    """Memory for caches."""

    def __post_init__(self) -> None:
        check_fields(self)


def retrieve_texts(job: Job, sentences: CaptionCorpus, settings: RetrievalSettings) -> dict[str, int]:
    """Write the `sentences` most related to each caption: TF-IDF first, then embeddings.

    The folder of the job gets index and embeddings. Returns the number of captions and of sentences.

    Raises:
        ConfigError: a file or folder cannot be written.
        DataError: too few readable captions or sentences, the folder has the index of another corpus, or
            the output belongs to another job.
    """
    job.check()
    sentences.check()
    with one_at_a_time(job.folder):
        index = index_captions(sentences, job.folder, settings.memory_mb // 2, job.progress)
    embedder = open_embedder(settings.embedder, index)
    with one_at_a_time(job.folder), job.progress("embedding", len(index)) as bar:
        rows = embed_index(index, embedder, {"embedder": settings.embedder}, bar.update)
    relevant = {name: getattr(settings, name) for name in ("candidates", "keep", "embedder")}
    about = {"command": "retrieve-text", "captions": job.captions.fingerprint(), **index.about, **relevant}

    def lines_of(found: Sequence[Caption]) -> Iterator[Line]:
        for caption in found:
            hits = index.search(
                terms_of(caption.text), settings.candidates, without_texts={normalise(caption.text)}
            )
            query = unit_rows(embedder, [caption.text])[0].astype(np.float32)
            texts = _rank(hits, rows, query)[: settings.keep]
            yield {"id": caption.sample_id, "text": caption.text, "texts": texts}

    job.write(about, "retrieving", lines_of)
    return {"captions": len(job.captions), "sentences": len(index)}


def _rank(hits: list[Hit], rows: np.ndarray, query: np.ndarray) -> list[dict[str, Any]]:
    if not hits:
        return []
    scores = rows[[hit.number for hit in hits]].astype(np.float32) @ query
    order = np.argsort(-scores, kind="stable")
    return [
        {"id": hits[at].sample_id, "text": hits[at].text, "tfidf": hits[at].score,
         "score": round(float(scores[at]), 4)}
        for at in order
    ]  # fmt: skip


def retrieve_images(
    job: Job, collection: CaptionCorpus | Path, settings: RetrievalSettings
) -> dict[str, int]:
    """Write the images most similar in their objects to that of each caption; return how many of both.

    Args:
        job: pairs to augment, and the folder of the index of labels. The labels of an image come from the
            collection if it is there, under its id or its file name, and has any; else they are the objects
            of its caption.
        collection: labels of the images to search: a jsonl file of detected labels, `{"image_id": "...",
            "labels": ["dog", "dog", "grass"]}`, or the folder of `tools/extract_features.py` with such a
            file; or pairs, whose captions are parsed.

    Raises:
        ConfigError: a file or folder cannot be written.
        DataError: too few readable captions, a file of labels of which more than half is broken, or files of
            another job.
    """
    job.check()
    if isinstance(collection, Path):
        if checked_path(collection, DataError, "the collection").is_dir():
            collection = collection / LABELS
            if not collection.is_file():
                raise DataError(
                    f"the collection {collection.parent} is a folder without {LABELS}; expected a jsonl file "
                    'of {"image_id": ..., "labels": [...]}, or a folder written by tools/extract_features.py;'
                    " without a collection the objects of the captions are searched"
                )
    elif collection is not job.captions:
        collection.check()
    parse = open_parser(settings.parser)
    with one_at_a_time(job.folder):
        index = _index_labels(collection, parse, job, settings)
    if isinstance(collection, Path):
        _warn_of_unknown_images(job.captions, index, collection)
    relevant = {"keep": settings.keep, "parser": settings.parser}
    about = {"command": "retrieve-images", "captions": job.captions.fingerprint(), **index.about, **relevant}

    @functools.lru_cache(1)  # the captions of an image usually follow each other
    def images_with(labels: tuple[str, ...], without: str) -> list[dict[str, Any]]:
        hits = index.search(labels, settings.keep, without_image=without)
        return [{"image_id": hit.image_id, "score": hit.score} for hit in hits]

    def lines_of(found: Sequence[Caption]) -> Iterator[Line]:
        for caption in found:
            image = index.image_of(caption.image_names)
            detected = [label for text in index.texts_of_image(image) for label in text.split("\n") if label]
            labels = detected or labels_of(caption.text, parse)
            yield {
                "id": caption.sample_id,
                "image_id": caption.image_id,
                "labels": sorted(set(labels)),
                "images": images_with(tuple(labels), image or caption.image_id),
            }

    job.write(about, "retrieving", lines_of)
    return {"captions": len(job.captions), "images": len(index)}


def _warn_of_unknown_images(captions: CaptionCorpus, index: TfidfIndex, collection: Path) -> None:
    first = list(filter(None, map(captions.get, range(min(_PROBED, len(captions))))))
    if first and not any(index.image_of(caption.image_names) for caption in first):
        log.warning(
            "%s has no image of the first %d captions, e.g. %s, so the objects of captions are used as "
            "labels: does it belong to another corpus?", collection, len(first), first[0].image_id,
        )  # fmt: skip


def labels_of(text: str, parse: Parser) -> list[str]:
    """Return the objects of a caption in the singular, as a detector would name them."""
    return [singular(node.text) if node.form == "NNS" else node.text for node in parse(text).objects]


def _index_labels(
    collection: CaptionCorpus | Path, parse: Parser, job: Job, settings: RetrievalSettings
) -> TfidfIndex:
    with job.progress("indexing", 0 if isinstance(collection, Path) else len(collection)) as bar:
        if isinstance(collection, Path):
            entries = functools.partial(_file_entries, collection, bar.update)
            about = {"labels": describe_files(collection)}
        else:
            entries = functools.partial(_caption_entries, collection, parse, bar.update)
            about = {"corpus": collection.fingerprint(), "parser": settings.parser}
        about["what"] = "labels and names"
        return build_index(entries, job.folder, about, memory_mb=settings.memory_mb // 2)


def _file_entries(path: Path, advance: Callable[[int], object], start: int) -> Iterator[Entry]:
    """Yield detected labels from image `start` on; the first of several lines of an image counts.

    Raises:
        DataError: the file cannot be read, or more than half of its lines are broken.
    """
    seen: set[int] = set()  # hashes need half the memory of ids
    broken = BrokenRecords(path, MOST, "")
    for number, line in enumerate(read_lines(path), start=1):
        advance(1)
        if not line.strip():
            continue
        image, names = "", []
        with broken.skipping():
            image, names = parse_labels(line.decode("utf8", "replace"), f"{path}, line {number}")
        labels = [encodable(" ".join(name.split())) for name in names]
        if image and hash(image) not in seen:
            seen.add(hash(image))
            if len(seen) > start:
                yield _entry(image, labels, names_of_image(image))
    broken.check()


def _caption_entries(
    corpus: CaptionCorpus, parse: Parser, advance: Callable[[int], object], start: int
) -> Iterator[Entry | None]:
    """Yield labels from image `start` on; an object counts once for each caption that names it."""
    for captions in corpus.by_image(start):
        labels = [label for caption in captions for label in labels_of(caption.text, parse)]
        yield _entry(captions[0].image_id, labels, captions[0].image_names) if captions else None
        advance(len(captions))


def _entry(image: str, labels: list[str], names: Sequence[str]) -> Entry:
    return Entry(image, image, "\n".join(labels), labels, [name for name in names if name != image])
