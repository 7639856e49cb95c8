"""An inverted index on disk with exact TF-IDF cosine search, stored in SQLite.

SQLite provides B-trees, cache and transactions in one file. Its own full-text module (FTS5) and Tantivy rank
by BM25 only and cannot compute the cosine; postings are therefore rows of our own table, each with 65,536
sentences of a term, and NumPy sums them up. Weights are those of scikit-learn's TfidfVectorizer: term
frequency times `ln((1 + n) / (1 + df)) + 1`, rows of length one.

    FOLDER/index.sqlite   sentences, postings, document frequencies, origin of the index
    FOLDER/norms.f32      length of each sentence's vector, read through a memory map
    FOLDER/digests.b2     digests of both; those up to 1 GB are checked when the index is opened, and all by
                          `b2sum -c digests.b2`

Building reads the corpus once; a killed build continues with the block of sentences it was working on. A
finished index is opened read-only: it may be on a disk shared by machines, where SQLite's write-ahead log
must not be.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from unimo.augment.terms import normalise
from unimo.digests import DIGESTS, find_damage, seal
from unimo.errors import DataError
from unimo.files import make_folder
from unimo.jobs import check_same

BLOCK = 1 << 16
_FILES = ("index.sqlite", "norms.f32")
_SPARE = 64
"""Additional hits that are fetched because some may be excluded: a second search takes as long again."""
_WIDEST = 32
"""Limit of the widened search for more hits, as a multiple of the first search."""
_COMPLAINT = "the index in {} was built from another corpus or setting"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS sentences (number INTEGER PRIMARY KEY, sample TEXT, image TEXT, text TEXT);
CREATE INDEX IF NOT EXISTS by_image ON sentences (image);
CREATE TABLE IF NOT EXISTS names (name TEXT, image TEXT);
CREATE INDEX IF NOT EXISTS by_name ON names (name);
CREATE TABLE IF NOT EXISTS postings
    (term TEXT, block INTEGER, size INTEGER, places BLOB, counts BLOB, PRIMARY KEY (term, block));
CREATE TABLE IF NOT EXISTS terms (term TEXT PRIMARY KEY, frequency INTEGER) WITHOUT ROWID;
"""


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
        self._base = _connect(address + "&immutable=1" * finished, memory_mb)
        try:
            stored = _read_about(self._base, self.folder)
            if about is not None:
                check_same(stored.get("about") or {}, about, _COMPLAINT.format(self.folder))
            if not stored.get("finished"):
                raise DataError(f"the index in {folder} is not finished; run the same command again to go on")
        except DataError:
            self._base.close()  # an open connection would keep `build_index` from finishing
            raise
        self.about: Mapping[str, Any] = stored["about"]
        self._size = int(stored["size"])
        try:
            self._norms = np.memmap(self.folder / "norms.f32", np.float32, "r", shape=(self._size,))
        except (OSError, ValueError) as error:
            self._base.close()
            raise DataError(
                f"{self.folder}/norms.f32 is missing or cut off ({error}); remove {self.folder} to build "
                "the index anew"
            ) from error

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
        rows = self._base.execute("SELECT text FROM sentences WHERE image = ? ORDER BY number", (image_id,))
        return [text for (text,) in rows]

    def image_of(self, names: Iterable[str]) -> str:
        """Return the image that has one of these names as its id, or alone as a name; empty for none."""
        by_id, by_name = "image FROM sentences WHERE image = ?", "DISTINCT image FROM names WHERE name = ?"
        for name in names:
            if self._base.execute(f"SELECT {by_id} LIMIT 1", (name,)).fetchone():
                return name
            found = self._base.execute(f"SELECT {by_name} LIMIT 2", (name,)).fetchall()
            if len(found) == 1:
                return found[0][0]
        return ""

    def texts(self, start: int, end: int) -> list[str]:
        """Return the texts of the entries `start` to `end - 1`."""
        query = "SELECT text FROM sentences WHERE number >= ? AND number < ? ORDER BY number"
        return [text for (text,) in self._base.execute(query, (start, end))]

    def _score(self, terms: Iterable[str], top: int) -> tuple[np.ndarray, np.ndarray]:
        weights, length = self._weigh(terms)
        places, scores = np.zeros(0, np.int64), np.zeros(0)
        for block in range(0, -(-self._size // BLOCK) if weights else 0):
            start, end = block * BLOCK, min((block + 1) * BLOCK, self._size)
            sums = np.zeros(end - start)
            for term, weight in weights.items():
                row = self._base.execute(
                    "SELECT places, counts FROM postings WHERE term = ? AND block = ?", (term, block)
                ).fetchone()
                if row:
                    sums[np.frombuffer(row[0], np.uint16)] += weight * np.frombuffer(row[1], np.uint16)
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
            row = self._base.execute("SELECT frequency FROM terms WHERE term = ?", (term,)).fetchone()
            if row:
                inverse = _inverse(self._size, row[0])
                weights[term] = count * inverse**2
                square += (count * inverse) ** 2
        return weights, float(np.sqrt(square))

    def _fetch(self, places: np.ndarray, scores: np.ndarray) -> list[Hit]:
        rows: dict[int, tuple[str, str, str]] = {}
        for start in range(0, len(places), 500):
            chunk = [int(place) for place in places[start : start + 500]]
            marks = ",".join("?" * len(chunk))
            query = f"SELECT number, sample, image, text FROM sentences WHERE number IN ({marks})"
            rows.update((row[0], row[1:]) for row in self._base.execute(query, chunk))
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
    with contextlib.closing(_connect(folder / "index.sqlite", memory_mb)) as base:
        base.executescript(_SCHEMA)
        stored = _read_about(base, folder)
        if stored.get("size"):  # an empty one may be replaced
            check_same(stored.get("about") or {}, about, _COMPLAINT.format(folder))
        if not stored.get("finished"):
            base.execute("PRAGMA journal_mode = WAL")
            _remember(base, about=dict(about))
            size = _add_blocks(base, entries, int(stored.get("size", 0)))
            if not size:
                raise DataError(f"nothing to index for {folder}: the corpus has no readable text")
            _finish(base, folder, size)
    seal(folder, _FILES)
    return TfidfIndex(folder, about, memory_mb)


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
        _remember(base, size=size)  # commits the block with its number
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
        frequency = sum(part[2] for part in parts)
        frequencies.append((term, frequency))
        inverse = _inverse(size, frequency)
        for _, block, _, places, counts in parts:
            at = block * BLOCK + np.frombuffer(places, np.uint16).astype(np.int64)
            norms[at] += (np.frombuffer(counts, np.uint16) * inverse) ** 2
        if len(frequencies) >= BLOCK:
            base.executemany("INSERT INTO terms VALUES (?, ?)", frequencies)
            frequencies = []
    reader.close()
    base.executemany("INSERT INTO terms VALUES (?, ?)", frequencies)
    np.sqrt(norms, out=norms)
    file.flush()
    base.commit()
    base.execute("PRAGMA journal_mode = DELETE")
    _remember(base, finished=True)


def _inverse(size: int, frequency: int) -> float:
    return float(np.log((1 + size) / (1 + frequency)) + 1.0)


def _connect(address: Path | str, memory_mb: int) -> sqlite3.Connection:
    base = sqlite3.connect(address, uri=isinstance(address, str))
    base.execute(f"PRAGMA cache_size = {-1024 * max(1, memory_mb)}")
    return base


def _remember(base: sqlite3.Connection, **values: object) -> None:
    base.executemany(
        "INSERT OR REPLACE INTO about VALUES (?, ?)",
        [(key, json.dumps(value)) for key, value in values.items()],
    )
    base.commit()


def _read_about(base: sqlite3.Connection, folder: Path) -> dict[str, Any]:
    try:
        if not base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return {}  # killed before anything was written
        return {key: json.loads(value) for key, value in base.execute("SELECT key, value FROM about")}
    except (sqlite3.DatabaseError, ValueError) as error:
        raise DataError(
            f"{folder}/index.sqlite is no index of ours ({error}); name another folder"
        ) from error
