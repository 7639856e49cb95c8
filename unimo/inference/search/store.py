"""Vectors with names in a folder that grows, and is whole at any moment.

    index.json              the parts, and what they were made with; the only file that is ever replaced
    vectors-000000.npy      float32 [N, E], unit vectors
    names-000000.jsonl      N names, a JSON object a line; read for the vectors that were found
    lists-000003.faiss      inverted lists over the first 3 parts, for many vectors (`nearest.py`)
    .lock                   held by the one process that writes

A part counts when index.json lists it. It is written before, and never changed, so whoever reads index.json
once sees one state, whatever is appended meanwhile; a writer that is killed leaves at most a file that is
not listed, which the next one removes. Needs no Paddle.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from unimo.digests import digest
from unimo.errors import ConfigError, DataError
from unimo.files import (
    checked_path,
    listed,
    make_folder,
    parse_json,
    read_json_object,
    read_lines,
    replacing,
    write_text,
)

INDEX = "index.json"
FORMAT = 2
ROWS_OF_PART = 65_536
"""Most vectors of a part; those of E = 768 have 201 MB."""
_OWN = re.compile(r"vectors-\d{6}\.npy|names-\d{6}\.jsonl|lists-\d{6}\.faiss")
Name = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """Vectors that were written together."""

    rows: int
    vectors: str
    """SHA-256 of their file."""
    names: str
    """SHA-256 of the file of their names."""


@dataclass(frozen=True)
class Lists:
    """Inverted lists over the first parts; see `nearest.InvertedLists`."""

    parts: int
    rows: int
    sha256: str
    trained_on: int
    """Rows that there were when the lists were trained."""
    probes: int
    """Lists that a query looks into."""
    candidates: int
    """Vectors of these lists, nearest by their codes, that are compared exactly."""
    recall: float
    """Share of the ten nearest vectors that is found, measured when the two numbers were chosen."""
    chosen_for: int = 0
    """Rows that there were then."""


@dataclass(frozen=True)
class State:
    """Content of index.json."""

    width: int
    """E."""
    made_with: Mapping[str, Any]
    parts: tuple[Part, ...] = ()
    lists: Lists | None = None
    format: int = FORMAT

    @property
    def rows(self) -> int:
        """Number of vectors."""
        return sum(part.rows for part in self.parts)


@dataclass
class Store:
    """One state of a folder of vectors. `open_store` reads it; `writing` gives one that can grow."""

    folder: Path
    state: State
    _parts: dict[int, np.ndarray] = field(default_factory=dict, repr=False)
    _names: dict[int, list[Name]] = field(default_factory=dict, repr=False)

    def vectors(self, part: int) -> np.ndarray:
        """Return the vectors [N, E] of a part, mapped into memory.

        Raises:
            DataError: the file is missing or has another size than it was written with.
        """
        if part not in self._parts:
            path, rows = self.folder / vectors_file(part), self.state.parts[part].rows
            try:
                found = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise _damaged(self.folder, f"{path.name} cannot be read ({error})") from error
            if found.shape != (rows, self.state.width) or found.dtype != np.float32:
                expected = f"float32 {[rows, self.state.width]}"
                what = f"{path.name} has {found.dtype} {list(found.shape)}, not {expected}"
                raise _damaged(self.folder, what)
            self._parts[part] = found
        return self._parts[part]

    def name(self, row: int) -> Name:
        """Return the name of a row number; its part is read the first time, with the errors of `names`."""
        part, place = self._locate(np.asarray(row))
        if int(part) not in self._names:
            self._names[int(part)] = self._names_of(int(part))
        return self._names[int(part)][int(place)]

    def names(self) -> Iterator[Name]:
        """Read the names of all vectors, in order.

        Raises:
            DataError: a file changed after being written.
        """
        return (name for part in range(len(self.state.parts)) for name in self._names_of(part))

    def _names_of(self, number: int) -> list[Name]:
        path, part = self.folder / names_file(number), self.state.parts[number]
        self.check(path, part.names)
        found = [parse_json(line, path, DataError) for line in read_lines(path)]
        if len(found) != part.rows:
            raise _damaged(self.folder, f"{path.name} has {len(found)} names of {part.rows} vectors")
        return found

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return the vectors [..., E] of row numbers [...]."""
        part_of, place = self._locate(rows)
        found = np.empty((*rows.shape, self.state.width), np.float32)
        for part in np.unique(part_of):
            here = part_of == part
            found[here] = self.vectors(int(part))[place[here]]
        return found

    def _locate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the parts that rows lie in, and their places there."""
        starts = np.cumsum([0, *(part.rows for part in self.state.parts)])
        part_of = np.searchsorted(starts, rows, side="right") - 1
        return part_of, rows - starts[part_of]

    def check(self, path: Path, sha256: str) -> None:
        """Compare a file with its SHA-256.

        Raises:
            DataError: it is missing, or changed after being written.
        """
        try:
            same = digest(path) == sha256
        except OSError as error:
            raise _damaged(self.folder, f"{path.name} cannot be read ({error.strerror})") from error
        if not same:
            raise _damaged(self.folder, f"{path.name} changed after being written")

    def check_all(self) -> None:
        """Compare every listed file with its SHA-256; errors are those of `check`."""
        for number, part in enumerate(self.state.parts):
            self.check(self.folder / vectors_file(number), part.vectors)
            self.check(self.folder / names_file(number), part.names)
        if self.state.lists:
            self.check(self.folder / lists_file(self.state.lists), self.state.lists.sha256)

    def append(self, vectors: np.ndarray, names: Sequence[Name]) -> None:
        """Add unit vectors [N, E] with N names; they count when this returns.

        Raises:
            ConfigError: numbers or widths differ.
        """
        if vectors.shape != (len(names), self.state.width):
            given = f"vectors {list(vectors.shape)} of {len(names)} names"
            raise ConfigError(f"{given}: expected [{len(names)}, {self.state.width}]")
        for start in range(0, len(names), ROWS_OF_PART):
            rows = slice(start, start + ROWS_OF_PART)
            self._append_part(np.ascontiguousarray(vectors[rows], np.float32), names[rows])

    def _append_part(self, vectors: np.ndarray, names: Sequence[Name]) -> None:
        number = len(self.state.parts)
        vectors_path, names_path = self.folder / vectors_file(number), self.folder / names_file(number)
        with replacing(vectors_path) as temporary, open(temporary, "wb") as file:
            header = np.lib.format.header_data_from_array_1_0(vectors)
            np.lib.format.write_array_header_1_0(file, header)
            file.write(vectors.data)  # unlike np.save it says when the disk is full
        write_text(names_path, "".join(json.dumps(name) + "\n" for name in names))
        part = Part(len(names), digest(vectors_path), digest(names_path))
        self.write(parts=(*self.state.parts, part))

    def write(self, **changes: Any) -> None:
        """Replace fields of the state, on disk first."""
        state = replace(self.state, **changes)
        content = asdict(state)
        content["sha256"] = _checksum(content)
        write_text(self.folder / INDEX, json.dumps(content, indent=1) + "\n")
        self.state = state

    def remove_unlisted(self) -> None:
        """Remove the files of writers that were killed, and lists that were replaced."""
        own = {name(number) for name in (vectors_file, names_file) for number in range(len(self.state.parts))}
        if self.state.lists:
            own.add(lists_file(self.state.lists))
        for path in self.folder.iterdir():
            if _OWN.fullmatch(path.name) and path.name not in own:
                path.unlink(missing_ok=True)


def vectors_file(part: int) -> str:
    """Return the name of the file of the vectors of a part."""
    return f"vectors-{part:06d}.npy"


def names_file(part: int) -> str:
    """Return the name of the file of the names of a part."""
    return f"names-{part:06d}.jsonl"


def lists_file(lists: Lists) -> str:
    """Return the name of the file of inverted lists."""
    return f"lists-{lists.parts:06d}.faiss"


def open_store(folder: str | Path) -> Store:
    """Open the present state of a folder.

    Raises:
        ConfigError: there is no index.
        DataError: its index.json is damaged, or of a later version.
    """
    folder = checked_path(folder, ConfigError, "no index at")
    if not (folder / INDEX).is_file():
        raise ConfigError(f"no index at {folder}; make it with python tools/index.py build --out {folder}")
    content = read_json_object(folder / INDEX, DataError)
    if content.get("format") != FORMAT:
        raise DataError(
            f"{folder / INDEX} has format {content.get('format')!r}, expected {FORMAT}; build it anew"
        )
    if content.pop("sha256", None) != _checksum(content):
        raise _damaged(folder, f"{INDEX} changed after being written")
    try:
        lists = content["lists"] and Lists(**content["lists"])
        parts = tuple(Part(**part) for part in content["parts"])
        state = State(content["width"], content["made_with"], parts, lists)
        sound = isinstance(state.made_with, dict) and state.width > 0 and all(p.rows > 0 for p in parts)
    except (KeyError, TypeError) as error:
        raise _damaged(folder, f"{INDEX}: {error}") from error
    if not sound:
        raise _damaged(folder, f"{INDEX} has impossible numbers")
    return Store(folder, state)


def model_of(folder: str | Path) -> str:
    """Return the directory of the model that an index was made with; errors are those of `open_store`."""
    return str(open_store(folder).state.made_with.get("directory", ""))


@contextlib.contextmanager
def writing(folder: str | Path, width: int, made_with: Mapping[str, Any]) -> Iterator[Store]:
    """Open a folder to append to it, alone; an empty one is started.

    Args:
        width: E of the vectors to come.
        made_with: facts that all vectors of a folder share, such as their model.

    Raises:
        ConfigError: another process writes to it, its vectors were made with something else, or it holds
            other files and no index.
        DataError: it is damaged.
    """
    folder = make_folder(folder, "--out")
    try:
        with FileLock(folder / ".lock", timeout=0):
            if not (folder / INDEX).exists():
                if others := listed(folder):
                    raise ConfigError(
                        f"{folder} is no index, it holds {others[0].name}; give --out a new or empty folder"
                    )
                Store(folder, State(width, {})).write(made_with=dict(made_with))
            store = open_store(folder)
            check_same_maker(store, width, made_with)
            store.remove_unlisted()
            yield store
    except Timeout as error:
        raise ConfigError(f"another process is writing to {folder}; wait for it, or stop it") from error


def check_same_maker(store: Store, width: int, made_with: Mapping[str, Any]) -> None:
    """Compare what an index was made with to what is at hand.

    Raises:
        ConfigError: they differ.
    """
    state = store.state
    compared = made_with.keys() - {"directory"}  # a folder may be moved
    differ = [key for key in compared if state.made_with.get(key) != made_with[key]]
    if differ or state.width != width:
        key = differ[0] if differ else "width"
        old, new = (state.made_with.get(key), made_with.get(key)) if differ else (state.width, width)
        if key == "holds":
            raise ConfigError(f"{store.folder} holds {old}; build another index for {new}")
        raise ConfigError(
            f"{store.folder} was made with another {key}: {old}, now {new}; search it with its own model "
            f"({state.made_with.get('directory', 'unknown')}), or build another index"
        )


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _damaged(folder: Path, what: str) -> DataError:
    return DataError(f"the index {folder} is damaged: {what}; restore the file, or build the index anew")
