"""Companions of a pair for CMCL: the files of `tools/augment_corpus.py`, read in training.

Each file has one line a caption, found by its sample id: see `docs/reference/augment.md` for the keys.
`scenes` in the place of a file stands for the built-in corpus (`scenes.py`).
"""

from __future__ import annotations

import functools
import glob
import json
import logging
import re
import zlib
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from unimo.augment.corpus import caption_of
from unimo.data.checks import check_id, check_text
from unimo.data.readers.base import read_at
from unimo.data.record import Record
from unimo.errors import DataError, RecordError
from unimo.files import checked_path, located_lines, parse_json, regular, replacing
from unimo.limits import LINE_BYTES
from unimo.models.unimo.scenes import SceneExtras
from unimo.settings import ScenesConfig

log = logging.getLogger(__name__)
_ID = re.compile(rb'\s*\{\s*"id"\s*:\s*("(?:[^"\\]|\\.)*")')
_MISSES = 1000
"""Number of first records, none of them in a file, after which the log says so."""

Texts = tuple[str, ...]
Images = tuple[Record, ...]


@dataclass(frozen=True)
class Extras:
    """Rewritten and retrieved companions of one pair (UNIMO, section 2.1 and appendix A)."""

    positives: Texts = ()
    """X+: rewritten captions that still describe the image."""
    negatives: Texts = ()
    """X-: hard negative captions of sentence, phrase and word level in turns, best first."""
    texts: Texts = ()
    """X^T: related sentences, best first; none of them is one of `negatives`."""
    images: Images = ()
    """X^I: related images, best first. All have an `image_id`; `image` where the source has it."""


class Augmentations(Protocol):
    """Source of the extras of records."""

    def of(self, record: Record) -> Extras:
        """Return the extras of one pair; empty ones for a record that the source does not know.

        Raises:
            RecordError: the record has a line that is broken.
        """

    def files(self) -> dict[str, Callable[[Record], Any]]:
        """Return the parts that are read from files, by name."""


@dataclass(frozen=True)
class Sources:
    """Extras whose parts come from three sources, each of which may be missing."""

    rewrites: Callable[[Record], tuple[Texts, Texts]] = lambda record: ((), ())
    """Positives and negatives."""
    texts: Callable[[Record], Texts] = lambda record: ()
    images: Callable[[Record], Images] = lambda record: ()

    def of(self, record: Record) -> Extras:
        """Return the extras of one pair, see `Augmentations.of`."""
        positives, negatives = self.rewrites(record)
        false = set(negatives)
        # One sentence must not be drawn near and pushed away at once.
        texts = tuple(text for text in self.texts(record) if text not in false)
        return Extras(positives, negatives, texts, self.images(record))

    def files(self) -> dict[str, Callable[[Record], Any]]:
        """Return the parts that are read from files; those of `scenes` follow from its config."""
        return {part: read for part, read in vars(self).items() if isinstance(read, _Lines)}


def open_augmentations(
    rewrites: str = "", texts: str = "", images: str = "", scenes: ScenesConfig | None = None
) -> Sources:
    """Open what CMCL adds to the pairs; each part may be left out.

    Args:
        rewrites: jsonl file of `augment_corpus.py rewrite`, a pattern for the files of several shards,
            `scenes` for those of the built-in corpus, or nothing.
        texts: the same of `retrieve-text`.
        images: the same of `retrieve-images`.
        scenes: size and seed of the built-in corpus.

    Raises:
        DataError: no such file, or the file of another job.
    """
    built_in = SceneExtras(scenes)
    parts = {
        "rewrites": (rewrites, "negatives", _rewrites, ((), ())),
        "texts": (texts, "texts", lambda line: _texts(line["texts"]), ()),
        "images": (images, "images", _images, ()),
    }
    return Sources(
        **{
            part: getattr(built_in, part) if pattern == "scenes" else _Lines(pattern, key, read, none)
            for part, (pattern, key, read, none) in parts.items()
            if pattern
        }
    )


class LineTable:
    """Lines of a jsonl file by their `id`, found through an index on disk; nothing is kept in memory.

    The index, 24 bytes a line, lies beside the file as `.NAME.index.npy` and is made anew when its checksum,
    or size or time of the file, differ. Where the folder cannot be written it stays in memory. Threads may
    share a table.

    Args:
        path: the file.

    Raises:
        DataError: the file cannot be read, or no line of it has an id.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._index = self.path.with_name(f".{self.path.name}.index.npy")
        try:
            state = self.path.stat()
            stamp = state.st_size, state.st_mtime_ns
            table = self._stored(stamp)
            if table is None:
                scanned = self._scan()
                first = np.array([*stamp, _sum(scanned)], np.uint64)
                table = self._keep(np.column_stack([first, scanned]))
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}") from error
        self._hashes, self._begins, self._sizes = np.asarray(table)[:, 1:]
        if not len(self):
            raise DataError(f'{self.path} has no line with an "id"; expected a file of augment_corpus.py')

    def __len__(self) -> int:
        """Return the number of lines that have an id."""
        return len(self._hashes)

    def find(
        self, key: str, fits: Callable[[Mapping[str, Any]], bool] = lambda line: True
    ) -> Mapping[str, Any] | None:
        """Return the first line of an id that fits; None if there is none.

        Raises:
            RecordError: the line is broken.
        """
        wanted = np.uint64(_hash(json.dumps(key).encode()))
        at = int(np.searchsorted(self._hashes, wanted))
        while at < len(self) and self._hashes[at] == wanted:
            item = parse_json(self._line(at), f"{self.path}, line of {key}", RecordError)
            if isinstance(item, dict) and item.get("id") == key and fits(item):
                return item
            at += 1
        return None

    def first(self) -> Mapping[str, Any] | None:
        """Return the first line that is not broken and that the job did not skip, if one of 100 is so."""
        for at in np.argsort(self._begins)[:100]:
            try:
                item = parse_json(self._line(at), self.path, RecordError)
            except RecordError:
                continue
            if isinstance(item, dict) and "skipped" not in item:
                return item
        return None

    def _line(self, at: int) -> bytes:
        return read_at(self.path, int(self._begins[at]), int(self._sizes[at]), LINE_BYTES)

    def _scan(self) -> np.ndarray:
        """Return hash, first byte and size of every line with an id, sorted by hash; [3, lines] uint64."""
        rows, strange = array("Q"), 0
        for number, (begin, line) in enumerate(located_lines(self.path), start=1):
            key = _key(line)
            if key is not None:
                rows.extend((_hash(key), begin, len(line)))
            elif line.strip():
                strange = strange or number
        if strange:
            log.warning('%s: lines without an "id" are skipped, the first is line %d', self.path, strange)
        table = np.frombuffer(rows, np.uint64).reshape(-1, 3)
        return table[np.argsort(table[:, 0], kind="stable")].T

    def _stored(self, stamp: tuple[int, int]) -> np.ndarray | None:
        """Return the index beside the file; None if there is none, or it is damaged or of another file."""
        try:
            table = np.load(regular(self._index), mmap_mode="r")
        except Exception:  # NumPy raises nearly anything about damaged headers
            return None
        if not isinstance(table, np.ndarray):  # a zip file
            return None
        fits = table.dtype == np.uint64 and table.ndim == 2 and len(table) == 3 and table.shape[1] > 0
        return table if fits and table[:, 0].tolist() == [*stamp, _sum(table[:, 1:])] else None

    def _keep(self, table: np.ndarray) -> np.ndarray:
        table = np.ascontiguousarray(table)
        try:  # ranks and threads may do so at the same time
            with replacing(self._index) as temporary, open(temporary, "wb") as stream:
                np.save(stream, table)
            return np.load(self._index, mmap_mode="r")
        except OSError:
            log.info("the index of %s stays in memory: its folder cannot be written", self.path)
            return table


def _key(line: bytes) -> bytes | None:
    """Return the id of a line as `json.dumps` writes it, without parsing the rest; None if it has none."""
    match = _ID.match(line)
    try:
        key = parse_json(match[1] if match else line, "", RecordError)
    except RecordError:
        return None
    key = key.get("id") if isinstance(key, dict) else key
    return json.dumps(key).encode() if isinstance(key, str) else None


def _sum(table: np.ndarray) -> int:
    """Return a checksum of a table, [3, lines]."""
    return functools.reduce(lambda found, row: zlib.crc32(np.ascontiguousarray(row), found), table, 0)


def _hash(key: bytes) -> int:
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "little")


class _Lines:
    """One part of the extras, from the lines of the files that a pattern names."""

    def __init__(self, pattern: str, key: str, read: Callable[[Mapping[str, Any]], Any], none: Any) -> None:
        is_file = checked_path(pattern, DataError, "the file").is_file()
        paths = [pattern] if is_file else sorted(glob.glob(pattern))
        if not paths:
            raise DataError(f"no file {pattern}; tools/augment_corpus.py writes it")
        self._tables = [LineTable(path) for path in paths]
        self._pattern, self._read, self._none = pattern, read, none
        self._asked, self._found = 0, False
        for table in self._tables:
            line = table.first()
            if line is not None and key not in line:
                raise DataError(
                    f"{table.path} has {', '.join(line)} in a line and no {key!r}, so it is of another job; "
                    "take rewrites from `augment_corpus.py rewrite`, texts from `retrieve-text`, images from "
                    "`retrieve-images`"
                )

    def __call__(self, record: Record) -> Any:
        caption = caption_of(record)

        def fits(line: Mapping[str, Any]) -> bool:
            # Corpora of one run may share ids (`train:1#0`).
            return line.get("text", caption.text) == caption.text and (
                line.get("image_id", caption.image_id) == caption.image_id
            )

        found = (table.find(caption.sample_id, fits) for table in self._tables)
        line = next(filter(None, found), None)
        # Threads may lose counts here, which does not matter.
        self._found = self._found or line is not None
        self._asked += 1
        if self._asked == _MISSES and not self._found:
            log.warning(
                "%s has no line for any of the first %d samples, e.g. %s: is it of another corpus or split?",
                self._pattern, _MISSES, record.sample_id,
            )  # fmt: skip
        if line is None or "skipped" in line:
            return self._none
        try:
            return self._read(line)
        except (RecordError, KeyError, TypeError, AttributeError) as error:
            raise RecordError(
                f"{self._pattern}, line of {record.sample_id}: not what augment_corpus.py writes "
                f"({type(error).__name__}: {error})"
            ) from error


def _rewrites(line: Mapping[str, Any]) -> tuple[Texts, Texts]:
    levels = [_texts(line["negatives"].get(level, ())) for level in ("sentence", "phrase", "word")]
    turns = chain.from_iterable(zip_longest(*levels))
    positives = _texts(line.get("positives", ()))
    return tuple(dict.fromkeys(positives)), tuple(dict.fromkeys(text for text in turns if text))


def _images(line: Mapping[str, Any]) -> Images:
    return tuple(_image(str(check_id(row["image_id"], "image_id"))) for row in line["images"])


@functools.lru_cache(100_000)  # a hundred a line, and making one costs more than reading its name
def _image(name: str) -> Record:
    return Record(sample_id=name, corpus="", image_id=name)


def _texts(rows: Any) -> Texts:
    return tuple(check_text(row["text"]) for row in rows)
