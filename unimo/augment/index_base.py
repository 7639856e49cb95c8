"""The SQLite file of an index: its tables, what is noted about it, and checks of what is read from it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np

from unimo.errors import DataError, shown
from unimo.files import parse_json

SCHEMA = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS sentences (number INTEGER PRIMARY KEY, sample TEXT, image TEXT, text TEXT);
CREATE INDEX IF NOT EXISTS by_image ON sentences (image);
CREATE TABLE IF NOT EXISTS names (name TEXT, image TEXT);
CREATE INDEX IF NOT EXISTS by_name ON names (name);
CREATE TABLE IF NOT EXISTS postings
    (term TEXT, block INTEGER, size INTEGER, places BLOB, counts BLOB, PRIMARY KEY (term, block));
CREATE TABLE IF NOT EXISTS terms (term TEXT PRIMARY KEY, frequency INTEGER) WITHOUT ROWID;
"""


def connect(address: Path | str, folder: Path, memory_mb: int) -> sqlite3.Connection:
    """Open a database by its path or address, with a page cache of that size.

    Raises:
        DataError: it is damaged.
    """
    base = sqlite3.connect(address, uri=isinstance(address, str))
    try:
        base.execute(f"PRAGMA cache_size = {-1024 * max(1, memory_mb)}")
    except sqlite3.DatabaseError as error:  # reads the schema
        base.close()
        raise damaged(folder, error) from error
    return base


def damaged(folder: Path, reason: object) -> DataError:
    """Return the error of an index whose content contradicts itself."""
    return DataError(f"the index in {folder} is damaged ({reason}); remove the folder to build it anew")


def occurrences(
    places: bytes, counts: bytes, size: int, term: str, folder: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sentences of a term within a block of `size`, and how often each has it.

    Raises:
        DataError: the stored columns contradict each other or the size.
    """
    if not isinstance(places, bytes) or not isinstance(counts, bytes) or len(places) % 2:
        raise damaged(folder, f"no list of the sentences with {shown(term)}")
    within = np.frombuffer(places, np.uint16)
    if len(counts) != len(places) or within.max(initial=0) >= size:
        raise damaged(folder, f"{shown(term)} occurs in sentences that do not exist")
    return within, np.frombuffer(counts, np.uint16)


def remember(base: sqlite3.Connection, **values: object) -> None:
    """Note values about an index, and commit."""
    base.executemany(
        "INSERT OR REPLACE INTO about VALUES (?, ?)",
        [(key, json.dumps(value)) for key, value in values.items()],
    )
    base.commit()


def read_about(base: sqlite3.Connection, folder: Path) -> dict[str, Any]:
    """Return what was noted about an index: `about`, its `size`, and whether it is `finished`.

    Nothing is noted about a new one.

    Raises:
        DataError: it is damaged, or no index.
    """
    try:
        if not base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return {}  # killed before anything was written
        rows = base.execute("SELECT key, value FROM about").fetchall()
    except sqlite3.Error as error:
        raise DataError(
            f"{folder}/index.sqlite is no index of ours ({error}); name another folder"
        ) from error
    if not all(isinstance(text, str) for row in rows for text in row):
        raise damaged(folder, "a note about it is no text")
    stored = {key: parse_json(value, f"{folder}/index.sqlite: {key}", DataError) for key, value in rows}
    size, about = stored.get("size", 0), stored.get("about") or {}
    known = type(size) is int and 0 <= size < 2**62 and isinstance(about, dict)
    if not known or (stored.get("finished") and "size" not in stored):
        raise damaged(folder, f"it notes {shown(stored)} about itself")
    return stored
