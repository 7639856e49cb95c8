"""Captions and sentences of any corpus that `open_corpus` reads, and a fingerprint of the corpus."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np

from unimo.data.masking.tagging import clip_text
from unimo.data.readers.base import Kind
from unimo.data.readers.open import open_corpus
from unimo.data.record import Record
from unimo.errors import DataError, RecordError
from unimo.files import checked_path, listed, parse_json, read_lines
from unimo.metrics.text import encodable
from unimo.settings import CorpusConfig, DataConfig


@dataclass(frozen=True)
class Caption:
    """A text with the ids of its sample and image; a sentence without an image is its own image."""

    sample_id: str
    image_id: str
    text: str
    image_names: tuple[str, ...] = ()
    """Names under which the image may be stored, see `names_of_image`."""


def caption_of(record: Record) -> Caption:
    """Convert a record to the form in which jobs write it and training looks it up.

    The text is one line of at most `tagging.MAX_CHARACTERS` characters that UTF-8 can encode.
    """
    text = clip_text(" ".join((record.text or "").split()))
    own = map(encodable, (record.sample_id, record.image_id or record.sample_id, text))
    return Caption(*own, names_of_image(*filter(None, (record.image_id, record.image))))


def names_of_image(*paths: str | Path | bytes) -> tuple[str, ...]:
    """Return the names under which an image may be stored: id and path in full, as file name and as stem."""
    texts = [str(path) for path in paths if not isinstance(path, bytes)]
    names = [name for path in texts for name in (path, PurePosixPath(path).name, PurePosixPath(path).stem)]
    return tuple(dict.fromkeys(map(encodable, filter(None, names))))


class CaptionCorpus:
    """Random access to the captions of one split, without reading their images.

    Args:
        path: corpus for `open_corpus`: folder, Arrow file, tar, jsonl, or `*.txt`.
        kind: `pairs` or `texts`; with `auto`, plain text files, and jsonl whose first record has a text and
            no image, are texts, and anything else is pairs.
        option: name of `kind` in messages.

    Raises:
        DataError: no such corpus or split, or files that do not fit the kind.
    """

    def __init__(self, path: str, split: str = "train", kind: str = "auto", option: str = "kind") -> None:
        if kind not in ("auto", "pairs", "texts"):
            raise DataError(f"{option} {kind!r} of {path} is not one of auto, pairs, texts")
        likely = _likely_kind(path)
        self.path, self._option = path, option
        texts = kind == "texts" or (kind == "auto" and likely == "texts")
        self.kind: Kind = "texts" if texts else "pairs"
        try:
            self._dataset = open_corpus(CorpusConfig(path), split, self.kind, DataConfig())
        except DataError as error:
            if likely in (None, self.kind):
                raise
            raise DataError(
                f"{error}; it was opened as {self.kind} and looks like {likely}: give {option} {likely}"
            ) from error

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

    def get(self, index: int) -> Caption | None:
        """Read one caption; None if the sample is broken or has no text."""
        with suppress(RecordError):
            return self[index]
        return None

    def by_image(self, start: int = 0) -> Iterator[list[Caption]]:
        """Yield the captions of each image from image `start` on, in the order of their first captions.

        Broken captions are skipped. Needs about 50 bytes of memory for each caption.
        """
        keys = np.fromiter(map(self._image_key, range(len(self))), np.int64, len(self))
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        first = first[inverse]
        order = np.argsort(first, kind="stable")
        begins = np.append(np.flatnonzero(np.diff(first[order], prepend=-1)), len(self))
        for begin, end in zip(begins[start:-1], begins[start + 1 :], strict=True):
            yield list(filter(None, map(self.get, order[begin:end].tolist())))

    def _image_key(self, index: int) -> int:
        try:
            return hash(self._dataset.image_id(index) or index)
        except RecordError:
            return index

    def sample_id(self, index: int) -> str:
        """Return the id of a sample, also of a broken one; its number behind `#` if nothing else tells it."""
        try:
            return encodable(self._dataset.sample_id(index))
        except RecordError:
            return f"#{index}"

    def complaint(self, index: int) -> str:
        """Return why a sample cannot be read; empty if it can."""
        try:
            self[index]
        except RecordError as error:
            return str(error)
        return ""

    def check(self) -> None:
        """Read up to 1,000 samples from all over the corpus, before a job writes anything about it.

        Raises:
            DataError: more than half of them are broken.
        """
        numbers = self._spread(1_000)
        broken = [number for number in numbers if not self.get(number)]
        if 2 * len(broken) <= len(numbers):
            return
        hint = f"it was opened as pairs: for texts without images give {self._option} texts"
        raise DataError(
            f"{self.path}: {len(broken)} of {len(numbers)} samples checked have no readable caption; the "
            f"first: {self.complaint(broken[0])}" + f"; {hint}" * (self.kind == "pairs")
        )

    def _spread(self, most: int) -> list[int]:
        return np.unique(np.linspace(0, len(self) - 1, min(most, len(self))).astype(int)).tolist()

    def fingerprint(self) -> str:
        """Return a hash of the content: size, and ids and texts of up to 10,000 samples from all over it."""
        digest = hashlib.sha256(str(len(self)).encode())
        for caption in map(self.get, self._spread(10_000)):
            known = caption and json.dumps([caption.sample_id, caption.image_id, caption.text])
            digest.update((known or "broken").encode())
        return digest.hexdigest()[:16]


def _likely_kind(path: str) -> Kind | None:
    """Guess the kind of a corpus from its files; None if there are none of a known format."""
    source = checked_path(path, DataError, "data at")
    if source.is_dir():
        files = listed(source)
    elif "*" in source.name:
        files = listed(source.parent, source.name)
    else:
        files = [source] if source.is_file() else []
    for suffix in (".arrow", ".tar", ".jsonl", ".txt"):  # in the order of `open_corpus`
        found = [file for file in files if file.suffix.lower() == suffix]
        if found:
            texts = suffix == ".txt" or (suffix == ".jsonl" and all(map(_begins_without_image, found)))
            return "texts" if texts else "pairs"
    return None


def _begins_without_image(file: Path) -> bool:
    """Return whether the first record in 100 lines of a jsonl file has a text and names no image."""
    # `open_corpus` reports a file that cannot be read.
    with suppress(DataError):
        for line in islice(read_lines(file), 100):
            try:
                item = parse_json(line, file, RecordError)
            except RecordError:  # a broken or an empty line: try the next one
                continue
            if isinstance(item, dict):
                named = any(map(item.get, ("image", "image_id")))
                return not named and any(key in item for key in ("text", "texts", "caption", "captions"))
    return False
