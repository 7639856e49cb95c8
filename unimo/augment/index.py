"""An inverted index on disk with exact TF-IDF cosine search, stored in SQLite.

SQLite provides B-trees, cache and transactions in one file. Its own full-text module (FTS5) and Tantivy rank
by BM25 only and cannot compute the cosine; postings are therefore rows of our own table, each with 65,536
sentences of a term, and NumPy sums them up. Weights are those of scikit-learn's TfidfVectorizer: term
frequency times `ln((1 + n) / (1 + df)) + 1`, rows of length one.

    FOLDER/index.sqlite   sentences, postings, document frequencies, origin of the index
    FOLDER/norms.f32      length of each sentence's vector, read through a memory map
    FOLDER/digests.sha256 digests of both; those up to 1 GB are checked when the index is opened, and all by
                          `sha256sum -c digests.sha256`

Building reads the corpus once; a killed build continues with the block of sentences it was working on. A
finished index is opened read-only: it may be on a disk shared by machines, where SQLite's write-ahead log
must not be.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from unimo.augment.index_base import SCHEMA, connect, damaged, occurrences, read_about, remember
from unimo.augment.terms import normalise
from unimo.digests import DIGESTS, find_damage, seal
from unimo.errors import DataError, shown
from unimo.files import make_folder
from unimo.jobs import check_same

BLOCK = 1 << 16
_FILES = ("index.sqlite", "norms.f32")
_SPARE = 64
"""Additional hits that are fetched because some may be excluded: a second search takes as long again."""
_WIDEST = 32
"""Limit of the widened search for more hits, as a multiple of the first search."""
_COMPLAINT = "the index in {} was built from another corpus or setting"


@dataclass(frozen=True)
class Entry:
    """An entry to index."""

    sample_id: str
    image_id: str
    text: str
    """Text that a search returns."""
    terms: Sequence[str]
    """Terms by which the entry is found."""
    names: Sequence[str] = ()
    """Further names of the image."""


@dataclass(frozen=True)
class Hit:
    """A found entry."""

    number: int
    sample_id: str
    image_id: str
    text: str
    score: float
    """Cosine of query and entry."""


class TfidfIndex:
    """A finished index, opened for searching.

    `about` is its required origin, as passed to `build_index` (None accepts any), `memory_mb` the size of
    SQLite's page cache.

    Raises:
        DataError: no index, an unfinished one, or one of another origin.
    """

    def __init__(
        self, folder: str | Path, about: Mapping[str, Any] | None = None, memory_mb: int = 256
    ) -> None:
        self.folder = Path(folder)
        if not (self.folder / "index.sqlite").is_file():
            raise DataError(f"no index in {folder}; it is built by tools/augment_corpus.py")
        there = [name for name in _FILES if (self.folder / name).exists()]
        if damage := find_damage(self.folder, there):
            raise DataError(f"{damage}; remove {self.folder} to build the index anew")
        # An index with a log is unfinished; it is opened to report that.
        finished = not (self.folder / "index.sqlite-wal").exists()
        address = (self.folder / "index.sqlite").resolve().as_uri() + "?mode=ro"
        self._base = connect(address + "&immutable=1" * finished, self.folder, memory_mb)
        try:
            stored = read_about(self._base, self.folder)
            if about is not None:
                check_same(stored.get("about") or {}, about, _COMPLAINT.format(self.folder))
            if not stored.get("finished"):
                raise DataError(f"the index in {folder} is not finished; run the same command again to go on")
            self.about: Mapping[str, Any] = stored.get("about") or {}
            self._size = stored["size"]
            if (self.folder / "norms.f32").stat().st_size != 4 * self._size:
                raise ValueError(f"expected {self._size:,} lengths")
            self._norms = np.memmap(self.folder / "norms.f32", np.float32, "r", shape=(self._size,))
        except (OSError, ValueError) as error:
            self._base.close()
            raise DataError(
                f"{self.folder}/norms.f32 is missing or cut off ({error}); remove {self.folder} to build "
                "the index anew"
            ) from error
        except DataError:
            self._base.close()  # an open connection would keep `build_index` from finishing
            raise

    def __len__(self) -> int:
        return self._size

    def search(
        self,
        terms: Sequence[str],
        top: int,
        *,
        without_image: str | None = None,
        without_texts: Collection[str] | None = None,
    ) -> list[Hit]:
        """Return the entries with the highest cosine, best first; those that share no term are never found.

        Excluded are entries of an image, entries with these texts, as returned by `normalise`, and all but
        the best of equal texts (None excludes none). Others replace them, within a search that is up to 32
        times as wide.
        """
        wanted = top + _SPARE
        while True:
            hits = self._fetch(*self._score(terms, wanted))
            kept = [hit for hit in hits if without_image is None or hit.image_id != without_image]
            if without_texts is not None:
                best: dict[str, Hit] = {}
                for hit in kept:
                    best.setdefault(normalise(hit.text), hit)
                kept = [hit for text, hit in best.items() if text not in without_texts]
            if len(kept) >= top or len(hits) < wanted or wanted >= _WIDEST * (top + _SPARE):
                return kept[:top]
            wanted *= 2

    def texts_of_image(self, image_id: str) -> list[str]:
        """Return the texts of all entries of one image, in order."""
        rows = self._rows(
            "SELECT text FROM sentences WHERE image = ? ORDER BY number", image_id, kinds=(str,)
        )
        return [text for (text,) in rows]

    def image_of(self, names: Iterable[str]) -> str:
        """Return the image that has one of these names as its id, or alone as a name; empty for none."""
        by_id, by_name = "image FROM sentences WHERE image = ?", "DISTINCT image FROM names WHERE name = ?"
        for name in names:
            if self._rows(f"SELECT {by_id} LIMIT 1", name, kinds=(str,)):
                return name
            found = self._rows(f"SELECT {by_name} LIMIT 2", name, kinds=(str,))
            if len(found) == 1:
                return found[0][0]
        return ""

    def texts(self, start: int, end: int) -> list[str]:
        """Return the texts of the entries `start` to `end - 1`."""
        query = "SELECT text FROM sentences WHERE number >= ? AND number < ? ORDER BY number"
        return [text for (text,) in self._rows(query, start, end, kinds=(str,))]

    def _rows(self, query: str, *values: object, kinds: tuple[type, ...]) -> list[tuple[Any, ...]]:
        """Return the rows of a query, whose columns are of these types.

        Raises:
            DataError: the database is damaged.
        """
        try:
            rows = self._base.execute(query, values).fetchall()
        except (sqlite3.Error, OverflowError) as error:  # the second: blobs of impossible sizes
            raise damaged(self.folder, error) from error
        if not all(isinstance(value, kind) for row in rows for value, kind in zip(row, kinds, strict=True)):
            raise damaged(self.folder, "a value of another type")
        return rows

    def _score(self, terms: Iterable[str], top: int) -> tuple[np.ndarray, np.ndarray]:
        weights, length = self._weigh(terms)
        places, scores = np.zeros(0, np.int64), np.zeros(0)
        for block in range(0, -(-self._size // BLOCK) if weights else 0):
            start, end = block * BLOCK, min((block + 1) * BLOCK, self._size)
            sums = np.zeros(end - start)
            for term, weight in weights.items():
                found = self._rows(
                    "SELECT places, counts FROM postings WHERE term = ? AND block = ?",
                    *(term, block),
                    kinds=(bytes, bytes),
                )
                for columns in found:
                    within, counts = occurrences(*columns, len(sums), term, self.folder)
                    sums[within] += weight * counts
            # Once the list of candidates is full, one comparison excludes most of the block.
            floor = scores.min() if len(scores) >= top else 0.0
            sums /= np.maximum(self._norms[start:end], 1e-12) * length
            new = np.flatnonzero(sums > floor)
            places, scores = np.concatenate([places, new + start]), np.concatenate([scores, sums[new]])
            if len(scores) > top:
                best = np.argpartition(-scores, top - 1)[:top]
                places, scores = places[best], scores[best]
        order = np.lexsort((places, -scores))
        return places[order], scores[order]

    def _weigh(self, terms: Iterable[str]) -> tuple[dict[str, float], float]:
        """Return the weight of each term (query weight times inverse document frequency) and the norm."""
        weights, square = {}, 0.0
        for term, count in Counter(terms).items():
            for (frequency,) in self._rows("SELECT frequency FROM terms WHERE term = ?", term, kinds=(int,)):
                if not 0 < frequency <= self._size:
                    raise damaged(self.folder, f"{shown(term)} occurs in {frequency} sentences")
                inverse = _inverse(self._size, frequency)
                weights[term] = count * inverse**2
                square += (count * inverse) ** 2
        return weights, float(np.sqrt(square))

    def _fetch(self, places: np.ndarray, scores: np.ndarray) -> list[Hit]:
        rows: dict[int, list[str]] = {}
        for start in range(0, len(places), 500):
            chunk = [int(place) for place in places[start : start + 500]]
            marks = ",".join("?" * len(chunk))
            query = f"SELECT number, sample, image, text FROM sentences WHERE number IN ({marks})"
            found = self._rows(query, *chunk, kinds=(int, str, str, str))
            rows.update((number, texts) for number, *texts in found)
        if len(rows) < len(places):
            raise damaged(self.folder, "sentences are missing")
        return [Hit(int(p), *rows[int(p)], round(float(s), 6)) for p, s in zip(places, scores, strict=True)]


def build_index(
    entries: Callable[[int], Iterable[Entry | None]],
    folder: str | Path,
    about: Mapping[str, Any],
    *,
    memory_mb: int = 256,
) -> TfidfIndex:
    """Build an index, continue a killed build, or open a finished index.

    Args:
        entries: returns the entries from an index on; None for an entry that cannot be read.
        about: fingerprint and settings that determine the entries; stored and compared.
        memory_mb: size of SQLite's page cache; one block of sentences and its postings come on top.

    Raises:
        ConfigError: the folder cannot be created.
        DataError: the folder has an index of another origin, or there is nothing to index.
    """
    folder = Path(folder)
    make_folder(folder)
    if (folder / DIGESTS).exists() and (folder / _FILES[0]).exists():  # finished, and only read from now on
        return TfidfIndex(folder, about, memory_mb)
    (folder / DIGESTS).unlink(missing_ok=True)
    try:
        with contextlib.closing(connect(folder / "index.sqlite", folder, memory_mb)) as base:
            _build(base, entries, folder, about)
    except sqlite3.Error as error:
        raise DataError(
            f"the index in {folder} cannot be built ({error}); free some space, or remove the folder, and "
            "run the same command again"
        ) from error
    seal(folder, _FILES)
    return TfidfIndex(folder, about, memory_mb)


def _build(
    base: sqlite3.Connection,
    entries: Callable[[int], Iterable[Entry | None]],
    folder: Path,
    about: Mapping[str, Any],
) -> None:
    base.executescript(SCHEMA)
    stored = read_about(base, folder)
    if stored.get("size"):  # an empty one may be replaced
        check_same(stored.get("about") or {}, about, _COMPLAINT.format(folder))
    if stored.get("finished"):
        return
    base.execute("PRAGMA journal_mode = WAL")
    remember(base, about=dict(about))
    size = _add_blocks(base, entries, stored.get("size", 0))
    if not size:
        raise DataError(f"nothing to index for {folder}: the corpus has no readable text")
    if base.execute("SELECT count(*) FROM sentences").fetchone() != (size,):
        raise damaged(folder, f"it has not {size:,} sentences")
    _finish(base, folder, size)


def _add_blocks(base: sqlite3.Connection, entries: Callable[[int], Iterable[Entry | None]], size: int) -> int:
    stream = iter(entries(size))
    while chunk := list(islice(stream, BLOCK)):
        postings: dict[str, tuple[list[int], list[int]]] = {}
        rows, names = [], []
        for place, entry in enumerate(chunk):
            if entry is None:
                rows.append((size + place, "", "", ""))
                continue
            rows.append((size + place, entry.sample_id, entry.image_id, entry.text))
            names += [(name, entry.image_id) for name in entry.names]
            for term, count in Counter(entry.terms).items():
                places, counts = postings.setdefault(term, ([], []))
                places.append(place)
                counts.append(min(count, 65535))
        base.executemany("INSERT INTO sentences VALUES (?, ?, ?, ?)", rows)
        base.executemany("INSERT INTO names VALUES (?, ?)", names)
        packed = (
            (term, size // BLOCK, len(columns[0]), *(np.array(c, np.uint16).tobytes() for c in columns))
            for term, columns in sorted(postings.items())
        )
        base.executemany("INSERT INTO postings VALUES (?, ?, ?, ?, ?)", packed)
        size += len(chunk)
        remember(base, size=size)  # commits the block with its number
    return size


def _finish(base: sqlite3.Connection, folder: Path, size: int) -> None:
    """Compute document frequencies and the lengths of all vectors in one pass over the postings."""
    file = np.memmap(folder / "norms.f32", np.float32, "w+", shape=(size,))
    norms = np.asarray(file)  # the same memory, but indexing a memmap takes three times as long
    base.execute("DELETE FROM terms")
    reader = sqlite3.connect(folder / "index.sqlite")
    rows = reader.execute("SELECT term, block, size, places, counts FROM postings ORDER BY term, block")
    frequencies = []
    for term, group in groupby(rows, key=lambda row: row[0]):
        parts = list(group)
        if not all(type(number) is int and number >= 0 for part in parts for number in part[1:3]):
            raise damaged(folder, f"numbers of {shown(term)} are none")
        frequency = sum(part[2] for part in parts)
        frequencies.append((term, frequency))
        inverse = _inverse(size, frequency)
        for _, block, _, places, counts in parts:
            within, times = occurrences(places, counts, size - block * BLOCK, term, folder)
            norms[block * BLOCK + within.astype(np.int64)] += (times * inverse) ** 2
        if len(frequencies) >= BLOCK:
            base.executemany("INSERT INTO terms VALUES (?, ?)", frequencies)
            frequencies = []
    reader.close()
    base.executemany("INSERT INTO terms VALUES (?, ?)", frequencies)
    np.sqrt(norms, out=norms)
    file.flush()
    base.commit()
    base.execute("PRAGMA journal_mode = DELETE")
    remember(base, finished=True)


def _inverse(size: int, frequency: int) -> float:
    return float(np.log((1 + size) / (1 + frequency)) + 1.0)
