"""Captions and sentences of any corpus that `open_corpus` reads, and the fingerprint that names it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from unimo.augment.tagging import clip_text, encodable
from unimo.data.readers import Kind, open_corpus
from unimo.data.records import Record
from unimo.errors import DataError, RecordError
from unimo.settings import CorpusConfig, DataConfig

_PROBES = 10_000


@dataclass(frozen=True)
class Caption:
    """A text with the ids of its sample and image; a sentence without an image is its own image."""

    sample_id: str
    image_id: str
    text: str
    image_names: tuple[str, ...] = ()
    """What the image may be kept under: see `names_of_image`."""


def caption_of(record: Record) -> Caption:
    """A record as the jobs write it, and as training looks for it in their files.

    The text is one line of at most `tagging.MAX_CHARACTERS` characters, all of which UTF-8 has.
    """
    text = clip_text(" ".join((record.text or "").split()))
    own = map(encodable, (record.sample_id, record.image_id or record.sample_id, text))
    return Caption(*own, names_of_image(*filter(None, (record.image_id, record.image))))


def names_of_image(*paths: str | Path | bytes) -> tuple[str, ...]:
    """What an image may be kept under: its id and path, each whole, as file name, and without suffix."""
    told = [str(path) for path in paths if not isinstance(path, bytes)]
    names = [name for path in told for name in (path, PurePosixPath(path).name, PurePosixPath(path).stem)]
    return tuple(dict.fromkeys(map(encodable, filter(None, names))))


class CaptionCorpus:
    """Random access to the captions of one split; their images are not read.

    Args:
        path: what `open_corpus` takes: folder, Arrow file, tar, jsonl, or `*.txt`.
        split: name of the split.
        kind: `pairs` or `texts`; `auto` takes plain text files for texts, anything else for pairs.

    Raises:
        DataError: nothing there, or no such split.
    """

    def __init__(self, path: str, split: str = "train", kind: str = "auto") -> None:
        if kind not in ("auto", "pairs", "texts"):
            raise DataError(f"kind {kind!r} of {path} is not one of auto, pairs, texts")
        chosen: Kind = "texts" if kind == "texts" or (kind == "auto" and _is_text(path)) else "pairs"
        self.path = path
        self._dataset = open_corpus(CorpusConfig(path), split, chosen, DataConfig())

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Caption:
        """Read one caption.

        Raises:
            RecordError: this sample is broken or has no text; the others can still be read.
        """
        record = self._dataset[index]
        if not record.text or not record.text.strip():
            raise RecordError(f"sample {record.sample_id}: the text is empty")
        return caption_of(record)

    def readable(self, start: int = 0) -> Iterator[tuple[int, Caption | None]]:
        """Numbers and captions from `start` on, in order; None in the place of a broken sample."""
        for index in range(start, len(self)):
            try:
                yield index, self[index]
            except RecordError:
                yield index, None

    def by_image(self, start: int = 0) -> Iterator[list[Caption]]:
        """Captions of one image together, from image `start` on, images in the order of their first captions.

        Broken ones are left out. Some 50 bytes a caption are kept.
        """
        keys = np.fromiter(map(self._image_key, range(len(self))), np.int64, len(self))
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        first = first[inverse]
        order = np.argsort(first, kind="stable")
        begins = np.append(np.flatnonzero(np.diff(first[order], prepend=-1)), len(self))
        for begin, end in zip(begins[start:-1], begins[start + 1 :], strict=True):
            captions = [next(self.readable(int(number)))[1] for number in order[begin:end]]
            yield list(filter(None, captions))

    def _image_key(self, index: int) -> int:
        try:
            return hash(self._dataset.image_id(index) or index)
        except RecordError:
            return index

    def complaint(self, index: int) -> str:
        """Why a sample cannot be read; empty if it can."""
        try:
            self[index]
        except RecordError as error:
            return str(error)
        return ""

    def fingerprint(self) -> str:
        """Names the content: size, and ids and texts of up to 10,000 samples spread over the corpus."""
        digest = hashlib.sha256(str(len(self)).encode())
        for index in np.unique(np.linspace(0, len(self) - 1, min(_PROBES, len(self))).astype(int)):
            try:
                caption = self[int(index)]
                digest.update(json.dumps([caption.sample_id, caption.image_id, caption.text]).encode())
            except RecordError:
                digest.update(b"broken")
        return digest.hexdigest()[:16]


def _is_text(path: str) -> bool:
    folder = Path(path).expanduser()
    if folder.is_dir():
        endings = {file.suffix for file in folder.iterdir()}
        return ".txt" in endings and not endings & {".arrow", ".tar", ".jsonl"}
    return folder.suffix == ".txt"
