"""`augment_corpus.py retrieve-text | retrieve-images`: related sentences and pictures (UNIMO, appendix A)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unimo.augment.corpus import Caption, CaptionCorpus
from unimo.augment.embedding import embed_index, open_embedder, unit_rows
from unimo.augment.index import Entry, Hit, TfidfIndex, build_index
from unimo.augment.lines import Line, write_lines
from unimo.augment.progress import Progress, Shard, one_at_a_time
from unimo.augment.rewrite_job import index_captions
from unimo.augment.scene_graph import Parser, open_parser
from unimo.augment.tagging import encodable
from unimo.augment.terms import normalise, singular, terms_of
from unimo.errors import DataError


@dataclass(frozen=True)
class RetrievalSettings:
    """What decides about the retrieved texts or images of a corpus."""

    candidates: int = 1000
    """Sentences that the inverted index hands on to the embeddings."""
    keep: int = 100
    embedder: str = "lsa"
    """`lsa`, or `package.module:function`."""
    parser: str = "textblob"
    """Gives the labels of images that have none from a detector."""
    memory_mb: int = 1000


def retrieve_texts(
    captions: CaptionCorpus,
    sentences: CaptionCorpus,
    out: Path,
    folder: Path,
    settings: RetrievalSettings,
    shard: Shard,
    progress: Progress,
) -> dict[str, int]:
    """Write the sentences most related to each caption: TF-IDF first, then embeddings.

    Args:
        captions: the captions to augment.
        sentences: the corpus to search.
        out: the jsonl file.
        folder: index and embeddings of `sentences`; made here if they are not there.
        settings: see there.
        shard: which captions.
        progress: makes progress bars.

    Returns:
        Number of captions and of sentences.

    Raises:
        DataError: the folder has the index of another corpus, or `out` is of another job.
    """
    with one_at_a_time(folder):
        index = index_captions(sentences, folder, settings.memory_mb // 2, progress)
    embedder = open_embedder(settings.embedder, index)
    with one_at_a_time(folder), progress("embedding", len(index)) as bar:
        rows = embed_index(index, embedder, {"embedder": settings.embedder}, bar.update)
    job = {"command": "retrieve-text", "captions": captions.fingerprint(), **index.about, **asdict(settings)}

    def lines_of(found: Sequence[Caption]) -> Iterator[Line]:
        for caption in found:
            hits = _related(caption, index, settings.candidates)
            query = unit_rows(embedder, [caption.text])[0].astype(np.float32)
            texts = _rank(hits, rows, query)[: settings.keep]
            yield {"id": caption.sample_id, "text": caption.text, "texts": texts}

    write_lines(captions, out, job, shard, progress, "retrieving", lines_of)
    return {"captions": len(captions), "sentences": len(index)}


def _related(caption: Caption, index: TfidfIndex, top: int) -> list[Hit]:
    """What the inverted index finds, without the caption itself and without repetitions."""
    seen, kept = {normalise(caption.text)}, []
    for hit in index.search(terms_of(caption.text), top):
        key = normalise(hit.text)
        if key not in seen:
            seen.add(key)
            kept.append(hit)
    return kept


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
    captions: CaptionCorpus,
    collection: CaptionCorpus | Path,
    out: Path,
    folder: Path,
    settings: RetrievalSettings,
    shard: Shard,
    progress: Progress,
) -> dict[str, int]:
    """Write the images whose objects are most alike those of each caption's image.

    Args:
        captions: pairs to augment. An image that is in the collection has the labels it has there; those
            of any other are the objects of its caption.
        collection: labels of the images to search: a jsonl file of detected ones, `{"image_id": "...",
            "labels": ["dog", "dog", "grass"]}`; or pairs, whose captions are parsed.
        out: the jsonl file.
        folder: index of the labels; made here if it is not there.
        settings: see there.
        shard: which captions.
        progress: makes progress bars.

    Returns:
        Number of captions and of images.

    Raises:
        DataError: a label file that cannot be read (the line is named), or files of another job.
    """
    parse = open_parser(settings.parser)
    with one_at_a_time(folder):
        index = _index_labels(collection, parse, folder, settings, progress)
    job = {
        "command": "retrieve-images",
        "captions": captions.fingerprint(),
        **index.about,
        **asdict(settings),
    }
    last: tuple[str, list[str], list[dict[str, Any]]] = ("", [], [])

    def lines_of(found: Sequence[Caption]) -> Iterator[Line]:
        nonlocal last
        for caption in found:
            known = [label for text in index.texts_of_image(caption.image_id) for label in text.split("\n")]
            labels = known or labels_of(caption.text, parse)
            if last[:2] != (caption.image_id, labels):
                hits = index.search(labels, settings.keep, without_image=caption.image_id)
                images = [{"image_id": hit.image_id, "score": hit.score} for hit in hits]
                last = (caption.image_id, labels, images)
            yield {
                "id": caption.sample_id,
                "image_id": caption.image_id,
                "labels": sorted(set(labels)),
                "images": last[2],
            }

    write_lines(captions, out, job, shard, progress, "retrieving", lines_of)
    return {"captions": len(captions), "images": len(index)}


def labels_of(text: str, parse: Parser) -> list[str]:
    """Objects of a caption in the singular, as a detector would name them."""
    return [singular(node.text) if node.form == "NNS" else node.text for node in parse(text).objects]


def _index_labels(
    collection: CaptionCorpus | Path,
    parse: Parser,
    folder: Path,
    settings: RetrievalSettings,
    progress: Progress,
) -> TfidfIndex:
    with progress("indexing", 0 if isinstance(collection, Path) else len(collection)) as bar:

        def entries(start: int) -> Iterator[Entry]:
            images = _of_file(collection) if isinstance(collection, Path) else _of_captions(collection, parse)
            for number, (image, labels) in enumerate(images):
                bar.update(1)
                if number >= start:
                    yield Entry(image, image, "\n".join(labels), labels)

        if isinstance(collection, Path):
            try:
                state = collection.stat()
            except OSError as error:
                raise DataError(f"cannot read the labels {collection}: {error.strerror}") from error
            about = {"labels": f"{collection.name}, {state.st_size} bytes, {state.st_mtime_ns}"}
        else:
            about = {"corpus": collection.fingerprint(), "parser": settings.parser}
        return build_index(entries, folder, {**about, "what": "labels"}, memory_mb=settings.memory_mb // 2)


def _of_file(path: Path) -> Iterator[tuple[str, list[str]]]:
    with open(path, encoding="utf8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                item = json.loads(line)
                image, labels = str(item["image_id"]), item["labels"]
                if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
                    raise ValueError(f"labels are {labels!r}")
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f'{path}, line {number}: expected {{"image_id": ..., "labels": [...]}}: {error}'
                ) from error
            yield encodable(image), [encodable(" ".join(label.split())) for label in labels]


def _of_captions(corpus: CaptionCorpus, parse: Parser) -> Iterator[tuple[str, list[str]]]:
    """Labels by image: an object counts once for each caption of the image that names it.

    Readers give the captions of an image one after the other; where they do not, the image comes twice.
    """
    image, labels = "", []
    for _, caption in corpus.readable():
        if caption is None:
            continue
        if caption.image_id != image and image:
            yield image, labels
            labels = []
        image = caption.image_id
        labels += labels_of(caption.text, parse)
    if image:
        yield image, labels
