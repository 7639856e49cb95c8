"""A folder of region features with random access, written by `tools/extract_features.py`.

    regions-00000.safetensors ...   images in the order of the image list (`shard.py`)
    index.json                      widths, names of classes and attributes, skipped images with reasons
    index.arrow                     name of an image (sorted), its file and its row in it
    labels.jsonl                    {"image_id", "labels"}: names of the detected objects of each image
    digests.sha256                  digests of the three files above, checked when they are opened

An image is found by its id and, unless another image (also a skipped one) has the same, by its file name with
and without suffix. Nothing is kept open: each read maps one file and releases it, so memory does not grow
with use, and threads may read at the same time.
"""

from __future__ import annotations

import bisect
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from unimo.data.record import Record
from unimo.data.regions.base import Regions, check_regions
from unimo.data.regions.shard import ShardReader, Skipped, StoredImage, Widths, as_skipped, parse_labels
from unimo.data.tables import open_table
from unimo.digests import find_damage, seal
from unimo.errors import DataError, RecordError, shown
from unimo.files import read_json_object, read_lines, replacing, write_text
from unimo.limits import MODEL_WIDTH

FORMAT = 1
INDEX, KEYS, LABELS = "index.json", "index.arrow", "labels.jsonl"
_KEY_SCHEMA = pa.schema({"key": pa.string(), "shard": pa.int32(), "row": pa.int32()})
_SEVERAL = (-1, -1)
"""Marks in `KEYS` a shortened name that several images have."""
Place = Any
"""Position of an image in a source, in the source's own form."""


class StoredRegions(ABC):
    """A `RegionSource` of features that were computed before."""

    feature_size: int
    """F."""
    num_classes: int
    """C; 0 without class probabilities."""
    num_attributes: int = 0
    """A, attributes that a region may have; 0 without any."""
    classes: Sequence[str] = ()
    """Names of the classes, where known."""
    where: str
    """File or folder, for messages."""

    @abstractmethod
    def find(self, key: str, is_id: bool = False) -> Place | None:
        """Return the position of the image with that name, complete or shortened; None if there is none."""

    @abstractmethod
    def read(self, place: Place) -> Regions:
        """Read the regions at a position, without checking them.

        Raises:
            RecordError: they cannot be read.
        """

    def of(self, record: Record) -> Regions:
        """Read the regions of a record's image, found by its id or file name.

        Raises:
            RecordError: the image is unknown, or its regions cannot be used.
        """
        return self._checked(_names_of(record), record.image_id or record.sample_id)

    def attributes_of(self, record: Record) -> np.ndarray:
        """Read the likeliest attribute of each region of a record's image, [R] int64; raises as `of` does.

        Sources with `num_attributes` have them.
        """
        return self._attributes(self._place(_names_of(record), record.image_id or record.sample_id))

    def _attributes(self, place: Place) -> np.ndarray:
        raise NotImplementedError

    def of_id(self, image_id: str) -> Regions:
        """Read the regions of one image by its id; raises as `of` does."""
        return self._checked([image_id], image_id)

    def _checked(self, keys: Sequence[str], name: str) -> Regions:
        return check_regions(self.read(self._place(keys, name)), name, self.feature_size)

    def _place(self, keys: Sequence[str], name: str) -> Place:
        for key in keys:
            place = self.find(key, is_id=key == name)
            if place is not None:
                return place
            if self._reason([key]):
                break  # it was skipped, so an image with the same file name is another one
        raise RecordError(
            f"no regions of image {name} in {self.where}; extract them with tools/extract_features.py, "
            f"or name the store that has them{self._reason(keys)}"
        )

    def _has_id(self, key: str, place: Place) -> bool:
        """Return whether the image found under a name has it as its id."""
        return True

    def _has_several(self, key: str) -> bool:
        """Return whether several images share this shortened name."""
        return False

    def _reason(self, keys: Sequence[str]) -> str:
        """Return why an image is missing, if that is known."""
        return ""


def _names_of(record: Record) -> list[str]:
    paths = [record.image_id, *([record.image.as_posix()] if isinstance(record.image, Path) else [])]
    names = [name for path in paths for name in (path, *_short_names(path))]
    return list(dict.fromkeys(filter(None, names)))


def _short_names(image_id: str) -> tuple[str, str]:
    path = PurePosixPath(image_id)
    return path.name, path.stem


class RegionStore(StoredRegions):
    """The folder of a finished extraction.

    Raises:
        DataError: no such folder, an unfinished extraction, or a damaged index.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.where = str(self.folder)
        about = _read_index(self.folder)
        self.widths: Widths = about["widths"]
        self.feature_size, self.num_classes = self.widths.features, self.widths.classes
        self.num_attributes = self.widths.attributes
        self.classes: list[str] = about["classes"]
        self.attributes: list[str] = about["attributes"]
        self.skipped: list[Skipped] = about["skipped"]
        """Skipped images, with the reasons."""
        self._reasons = {entry.image_id: entry.reason for entry in self.skipped}
        self.counts = {name: about[name] for name in ("images", "regions")} | {"skipped": len(self.skipped)}
        """Numbers of `images`, `regions` and `skipped` images."""
        self._shards = about["shards"]
        table = _read_keys(self.folder / KEYS, self._shards)
        self._keys, self._places = table.column("key"), (table.column("shard"), table.column("row"))
        self._check_digests(INDEX, KEYS)

    def _check_digests(self, *names: str) -> None:
        """Raise DataError if a file differs from its digest."""
        if damage := find_damage(self.folder, names):
            raise DataError(f"{damage}; {_AGAIN}")

    def __len__(self) -> int:
        return self.counts["images"]

    def find(self, key: str, is_id: bool = False) -> tuple[int, int] | None:
        """Return the number of the file and the row in it."""
        place = self._look_up(key)
        return None if place == _SEVERAL else place

    def _has_several(self, key: str) -> bool:
        return self._look_up(key) == _SEVERAL

    def _look_up(self, key: str) -> tuple[int, int] | None:
        # The names stay on the disk; each step of the bisection reads one of them.
        try:
            found = bisect.bisect_left(range(len(self._keys)), key, key=lambda i: self._keys[i].as_py())
            if found == len(self._keys) or self._keys[found].as_py() != key:
                return None
        except UnicodeDecodeError as error:
            raise RecordError(f"{self.folder / KEYS} is damaged: {error}; {_AGAIN}") from error
        shard, row = self._places
        return shard[found].as_py(), row[found].as_py()

    def _has_id(self, key: str, place: tuple[int, int]) -> bool:
        with ShardReader(shard_path(self.folder, place[0])) as shard:
            return shard.ids()[place[1]] == key

    def read(self, place: tuple[int, int]) -> Regions:
        with ShardReader(shard_path(self.folder, place[0])) as shard:
            return shard.regions(place[1])

    def _attributes(self, place: tuple[int, int]) -> np.ndarray:
        with ShardReader(shard_path(self.folder, place[0])) as shard:
            return shard.image(place[1], "").attributes.argmax(axis=1)

    def image_of(self, record: Record) -> StoredImage:
        """Read all that is stored for a record's image.

        Raises:
            RecordError: the image is unknown.
        """
        name = record.image_id or record.sample_id
        number, row = self._place(_names_of(record), name)
        with ShardReader(shard_path(self.folder, number)) as shard:
            return shard.image(row, name)

    def images(self) -> Iterator[StoredImage]:
        """Yield all that is stored for every image, in the order of the image list, repeated ids once."""
        seen: set[str] = set()
        for number in range(self._shards):
            with ShardReader(shard_path(self.folder, number)) as shard:
                for image in shard.images():
                    if image.image_id not in seen:
                        seen.add(image.image_id)
                        yield image

    def labels(self) -> Iterator[tuple[str, list[str]]]:
        """Yield image ids with the names of their detected objects, from `labels.jsonl`.

        Raises:
            DataError: the file cannot be read, or is damaged.
        """
        self._check_digests(LABELS)
        path = self.folder / LABELS
        for number, line in enumerate(read_lines(path), start=1):
            yield parse_labels(line, f"{path}, line {number}")

    def _reason(self, keys: Sequence[str]) -> str:
        reasons = [self._reasons[key] for key in keys if key in self._reasons]
        return f" (left out there: {reasons[0]})" if reasons else ""


_AGAIN = "run the same extraction again, which keeps what is done"


def shard_path(folder: Path, number: int) -> Path:
    """Return the path of file number `number` of a store."""
    return folder / f"regions-{number:05d}.safetensors"


def write_index(
    folder: Path, shards: int, widths: Widths, names: Mapping[str, Sequence[str]], label_score: float
) -> dict[str, int]:
    """Write the index of a folder whose files are complete; repeating it gives the same bytes.

    The numbers of `images`, `regions` and `skipped` images are returned.

    Args:
        names: `classes` and `attributes`; classes without names become `class 0`, ...
        label_score: smallest probability of an object in `labels.jsonl`; the best one of each image is always
            listed.
    """
    places: dict[str, tuple[int, int]] = {}
    skipped: list[Skipped] = []
    classes = [str(name) for name in names.get("classes", ())]
    classes = classes or [f"class {number}" for number in range(widths.classes)]
    count = 0
    with replacing(folder / LABELS) as path, open(path, "w", encoding="utf8") as file:
        for number in range(shards):
            with ShardReader(shard_path(folder, number)) as shard:
                skipped += shard.skipped()
                for row, (image_id, labels, scores) in enumerate(shard.labels()):
                    if image_id in places:
                        continue
                    places[image_id] = (number, row)
                    count += len(labels)
                    kept = labels[(scores >= label_score) | (scores == scores.max())]
                    named = [classes[label] for label in kept] if classes else []
                    line = {"image_id": image_id, "labels": named}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
    _write_keys(folder / KEYS, places, [entry.image_id for entry in skipped])
    about = {
        "format": FORMAT,
        "images": len(places),
        "regions": count,
        "shards": shards,
        "widths": vars(widths),
        "classes": classes,
        "attributes": [str(name) for name in names.get("attributes", ())],
        "skipped": [list(entry) for entry in skipped],
    }
    write_text(folder / INDEX, json.dumps(about, ensure_ascii=False, indent=1) + "\n")
    seal(folder, (INDEX, KEYS, LABELS))
    return {"images": len(places), "regions": count, "skipped": len(skipped)}


def _write_keys(path: Path, places: Mapping[str, tuple[int, int]], skipped: Sequence[str]) -> None:
    short = Counter(name for key in {*places, *skipped} for name in set(_short_names(key)))
    keys: dict[str, tuple[int, int]] = {}
    for key, place in places.items():
        keys |= {name: place if short[name] == 1 else _SEVERAL for name in _short_names(key)}
    keys |= places
    order = sorted(keys)
    table = np.array([keys[key] for key in order], np.int32).reshape(-1, 2)
    columns = [pa.array(order, pa.string()), pa.array(table[:, 0]), pa.array(table[:, 1])]
    with replacing(path) as temporary, pa.OSFile(str(temporary), "wb") as sink:
        with pa.ipc.new_file(sink, _KEY_SCHEMA) as writer:
            writer.write_table(pa.Table.from_arrays(columns, schema=_KEY_SCHEMA))


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    if not path.exists() and any(folder.glob("regions-*.safetensors")):
        raise DataError(f"the extraction into {folder} has not ended; {_AGAIN}")
    if not path.exists():
        raise DataError(
            f"no region features at {folder.absolute()}: expected a folder that tools/extract_features.py "
            "wrote, or a TSV file of the released format"
        )
    about = read_json_object(path, DataError)
    if about.get("format") != FORMAT:
        raise DataError(f"{path} is of format {shown(about.get('format'))}, expected {FORMAT}")
    known = {field.name for field in fields(Widths)}
    numbers = {name: about.get(name) for name in ("images", "regions", "shards")}
    widths = about.get("widths")
    numbers |= widths if isinstance(widths, dict) and set(widths) == known else dict.fromkeys(known)
    for name, number in numbers.items():
        most = MODEL_WIDTH if name in known else 2**62
        if type(number) is not int or not 0 <= number <= most:
            raise DataError(f"{path}: {name} is {shown(number)}, expected 0 to {most:,}; {_AGAIN}")
    for name in ("classes", "attributes"):
        names = about.get(name)
        if not isinstance(names, list) or not all(isinstance(text, str) for text in names):
            raise DataError(f"{path}: {name} is {shown(names)}, expected a list of names; {_AGAIN}")
    return about | {
        "widths": Widths(**widths),
        "skipped": as_skipped(about.get("skipped"), f"{path}, skipped"),
    }


def _read_keys(path: Path, shards: int) -> pa.Table:
    """Open the table of names.

    Raises:
        DataError: it is missing or damaged, or has a file or a row that the store cannot have.
    """
    try:
        table = open_table(path)[1].combine_chunks()
    except DataError as error:
        raise DataError(f"{error}; for the index of region features {_AGAIN}") from error
    if table.schema.remove_metadata() != _KEY_SCHEMA or any(column.null_count for column in table.columns):
        raise DataError(f"{path} is no index of region features: {shown(table.schema)}; {_AGAIN}")
    numbers, rows = (table.column(name).to_numpy() for name in ("shard", "row"))
    several = (numbers == _SEVERAL[0]) & (rows == _SEVERAL[1])
    wrong = np.flatnonzero(~several & ((numbers < 0) | (numbers >= shards) | (rows < 0)))
    if len(wrong):
        at = int(wrong[0])
        raise DataError(
            f"{path} is damaged: entry {at} is row {rows[at]} of file {numbers[at]}, and there are {shards} "
            f"files; {_AGAIN}"
        )
    return table
