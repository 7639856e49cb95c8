"""One file of region features: consecutive images of an image list, and those of them that were skipped.

A safetensors file. Legend: I images, R regions of all of them, F width of a feature, C classes, A attributes.

    ids         uint8   JSON list of the I image ids
    skipped     uint8   JSON list of [image id, reason]
    starts      int64   [I + 1] first region of each image
    sizes       int32   [I, 2] width and height in pixels
    boxes       float32 [R, 4] x1, y1, x2, y2 in pixels, best region first
    features    float16 [R, F]
    class_probs float16 [R, C] without background
    labels      int32   [R] class of each region
    scores      float32 [R] probability of that class
    attributes  float16 [R, A] (A may be 0)
    checks      uint32  [I + 1, 2] CRC-32 of each image's size, boxes, features and classes, and of the rest;
                        in the last row those of `ids` and `skipped`

Whoever reads an image compares its checks, so that damage is found without reading whole files. Files of
version 0.1 have none.
"""

from __future__ import annotations

import itertools
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from unimo.data.checks import check_id
from unimo.data.regions.base import Regions, check_regions
from unimo.errors import RecordError, shown
from unimo.files import parse_json, regular
from unimo.limits import WEIGHTS_BYTES
from unimo.metrics.text import encodable
from unimo.weights.files import write_safetensors

# The tables described above: name -> type and shape.
_TABLES = {
    "ids": ("U8", "bytes"),
    "skipped": ("U8", "bytes"),
    "starts": ("I64", "I + 1"),
    "sizes": ("I32", "I", "2"),
    "boxes": ("F32", "R", "4"),
    "features": ("F", "R", "F"),
    "class_probs": ("F", "R", "C"),
    "labels": ("I32", "R"),
    "scores": ("F32", "R"),
    "attributes": ("F", "R", "A"),
}


@dataclass(frozen=True)
class Widths:
    """Widths of the tables of a store."""

    features: int
    classes: int
    attributes: int = 0


@dataclass(frozen=True)
class StoredImage:
    """All that is stored for one image."""

    image_id: str
    regions: Regions
    labels: np.ndarray = field(repr=False)
    """[R] int32: class of each region."""
    scores: np.ndarray = field(repr=False)
    """[R] float32: probability of that class."""
    attributes: np.ndarray | None = field(default=None, repr=False)
    """[R, A] float32; None without attributes."""


class Skipped(NamedTuple):
    """An image without regions, and why."""

    image_id: str
    reason: str


def as_skipped(entries: Any, where: str) -> list[Skipped]:
    """Convert the JSON list of skipped images.

    Raises:
        RecordError: it is another value.
    """
    if not isinstance(entries, list) or not all(
        isinstance(entry, list) and len(entry) == 2 and all(isinstance(text, str) for text in entry)
        for entry in entries
    ):
        raise RecordError(f"{where}: expected a list of [image id, reason], found {shown(entries)}")
    return [Skipped(*entry) for entry in entries]


def parse_labels(line: bytes | str, where: str) -> tuple[str, list[str]]:
    """Parse a line of `labels.jsonl`, or of a file in that form, whose image ids may be numbers.

    Raises:
        RecordError: it has no id of an image, or no list of texts as its labels.
    """
    try:
        entry = parse_json(line, where, RecordError)
        image, labels = entry["image_id"], entry["labels"]
        image = str(check_id(encodable(image) if isinstance(image, str) else image, "image_id"))
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise ValueError(f"labels are {shown(labels)}")
    except (RecordError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f'{where}: expected {{"image_id": ..., "labels": [...]}}: {error}') from error
    return image, labels


def halve(found: StoredImage, widths: Widths) -> StoredImage:
    """Convert the wide tables of an image to half precision, in which they are stored.

    Raises:
        RecordError: no regions, another width, a box outside of the image, or numbers that are not finite
            (in half precision).
    """
    name, regions = found.image_id, found.regions
    with np.errstate(over="ignore"):
        features, probs, attributes = (
            None if table is None else table.astype(np.float16)
            for table in (regions.features, regions.class_probs, found.attributes)
        )
    halved = Regions(features, regions.boxes, regions.width, regions.height, probs)
    check_regions(halved, name, widths.features)
    tables = {"class probabilities": (probs, widths.classes), "attributes": (attributes, widths.attributes)}
    for what, (values, width) in tables.items():
        expected, shape = (len(regions), width), (len(regions), 0) if values is None else values.shape
        if shape != expected:
            raise RecordError(f"image {name}: {what} of shape {shape}, expected {expected}")
        if values is not None and not np.isfinite(values).all():
            raise RecordError(f"image {name}: {what} are not finite")
    return StoredImage(name, halved, found.labels, found.scores, attributes)


def write_shard(
    path: Path, images: Sequence[StoredImage], skipped: Sequence[Skipped], widths: Widths
) -> None:
    """Write a file whole or not at all; the same content gives the same bytes.

    Args:
        images: results of `halve`.
        skipped: the other images of the file's part of the list.
    """
    counts = [len(image.regions) for image in images]
    rows = sum(counts)

    def joined(parts: list[Any], shape: tuple[int, ...], kind: type) -> np.ndarray:
        return np.concatenate([np.zeros(shape, kind), *parts]).astype(kind, copy=False)

    tables = {
        "ids": _json_bytes([image.image_id for image in images]),
        "skipped": _json_bytes([list(entry) for entry in skipped]),
        "starts": np.cumsum([0, *counts], dtype=np.int64),
        "sizes": np.array([(i.regions.width, i.regions.height) for i in images], np.int32).reshape(-1, 2),
        "boxes": joined([image.regions.boxes for image in images], (0, 4), np.float32),
        "labels": joined([image.labels for image in images], (0,), np.int32),
        "scores": joined([image.scores for image in images], (0,), np.float32),
    }
    wide = {
        "features": (widths.features, [image.regions.features for image in images]),
        "class_probs": (widths.classes, [image.regions.class_probs for image in images]),
        "attributes": (widths.attributes, [image.attributes for image in images]),
    }
    for name, (width, parts) in wide.items():
        tables[name] = np.zeros((rows, width), np.float16)
        if rows and width:
            np.concatenate(parts, out=tables[name], casting="same_kind")
    bounds = [slice(*pair) for pair in itertools.pairwise(tables["starts"].tolist())]
    checks = [[_check(tables, part, row, at) for part in (_READ, _REST)] for row, at in enumerate(bounds)]
    checks.append([zlib.crc32(tables[name]) for name in ("ids", "skipped")])
    write_safetensors(path, {**tables, "checks": np.array(checks, np.uint32)})


_READ, _REST = ("boxes", "features", "class_probs"), ("labels", "scores", "attributes")
"""Tables that training reads, and the others."""
_AGAIN = "remove the file and run the extraction again"


def _check(tables: Mapping[str, Any], names: Sequence[str], row: int, regions: slice) -> int:
    """Compute the CRC-32 of one image in some tables of a file."""
    found = zlib.crc32(np.ascontiguousarray(tables["sizes"][row : row + 1]).tobytes())
    for name in names:
        found = zlib.crc32(np.ascontiguousarray(tables[name][regions]), found)
    return found


def _json_bytes(value: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace"), np.uint8)


class ShardReader:
    """An opened file; use it in `with`, which releases its memory map at the end.

    Raises:
        RecordError: missing, truncated or damaged file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = safe_open(regular(path, WEIGHTS_BYTES), framework="np")
            names = {*_TABLES, "checks"} & {*self._file.keys()}
            self._tables = {name: self._file.get_slice(name) for name in names}
        except (OSError, SafetensorError) as error:
            size = path.stat().st_size if os.path.exists(path) else None
            reason = getattr(error, "strerror", None) or error
            reason = "it is missing" if size is None else f"{size} bytes: {reason}"
            raise RecordError(f"region features {path} cannot be read ({reason}); {_AGAIN}") from error
        lacking = set(_TABLES) - set(self._tables)
        if lacking:
            raise RecordError(f"{path} holds no region features: it lacks {', '.join(sorted(lacking))}")
        self._check_tables()

    def _check_tables(self) -> None:
        """Compare types and shapes with the description at the top of this file.

        Raises:
            RecordError: one differs.
        """
        shapes = {name: self._tables[name].get_shape() for name in _TABLES}
        self._rows = shapes["features"][0] if shapes["features"] else 0
        self._images = shapes["starts"][0] - 1 if shapes["starts"] else -1
        known = {"I": self._images, "R": self._rows, "I + 1": self._images + 1, "2": 2, "4": 4}
        for name, (kind, *sides) in _TABLES.items():
            found, shape = self._tables[name].get_dtype(), shapes[name]
            fits = len(shape) == len(sides) and all(
                known.get(side, length) == length for side, length in zip(sides, shape, strict=True)
            )
            if not found.startswith(kind) or not fits or self._images < 0:
                raise RecordError(
                    f"region features {self.path}: table {name} is {found} {shape}, expected {kind} "
                    f"[{', '.join(sides)}]; {_AGAIN}"
                )
        self._checks = self._file.get_tensor("checks") if "checks" in self._tables else None
        if self._checks is not None and self._checks.shape != (self._images + 1, 2):
            raise RecordError(f"region features {self.path}: table checks is damaged; {_AGAIN}")

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._tables.clear()
        self._file.__exit__(None, None, None)

    def ids(self) -> list[str]:
        """Return the image ids, in the order of the file.

        Raises:
            RecordError: they are damaged.
        """
        ids = self._list("ids", 0)
        is_list = isinstance(ids, list) and all(isinstance(image_id, str) for image_id in ids)
        if not is_list or len(ids) != self._images:
            raise RecordError(f"{self.path}: expected a list of {self._images} image ids, found {shown(ids)}")
        return ids

    def skipped(self) -> list[Skipped]:
        """Return the skipped images.

        Raises:
            RecordError: they are damaged.
        """
        return as_skipped(self._list("skipped", 1), f"{self.path}, skipped")

    def _span(self, row: int, part: int | None = None) -> tuple[int, int]:
        """Return the first region of image number `row`, and that of the next one, after comparing a check.

        Args:
            row: number of the image.
            part: column of `checks`; None for neither.

        Raises:
            RecordError: there is no such image, or it is damaged.
        """
        if not 0 <= row < self._images:
            raise RecordError(f"{self.path} has {self._images} images; expected one of number {row}")
        begin, end = self._tables["starts"][row : row + 2].tolist()
        if not 0 <= begin <= end <= self._rows:
            raise RecordError(
                f"{self.path}, image {row}: regions {begin} to {end} of {self._rows}; the file is damaged: "
                f"{_AGAIN}"
            )
        if part is not None and self._checks is not None:
            if _check(self._tables, (_READ, _REST)[part], row, slice(begin, end)) != self._checks[row, part]:
                raise RecordError(f"{self.path}, image {row}: its regions are damaged; {_AGAIN}")
        return begin, end

    def _list(self, name: str, part: int) -> Any:
        """Return the JSON value in a table, after comparing its check; raises RecordError if damaged."""
        content = self._file.get_tensor(name)
        if self._checks is not None and zlib.crc32(content) != self._checks[-1, part]:
            raise RecordError(f"{self.path}: {name} are damaged; {_AGAIN}")
        return parse_json(content.tobytes(), f"{self.path}, {name}", RecordError)

    def regions(self, row: int) -> Regions:
        """Return the regions of image number `row`, float32.

        Raises:
            RecordError: there is no such image, or the file is damaged.
        """
        begin, end = self._span(row, 0)
        width, height = self._tables["sizes"][row : row + 1][0].tolist()
        boxes = self._tables["boxes"][begin:end]
        return Regions(
            self._wide("features", begin, end), boxes, width, height, self._wide("class_probs", begin, end)
        )

    def image(self, row: int, image_id: str) -> StoredImage:
        """Return all that is stored for image number `row`, whose id is known; raises as `regions`."""
        begin, end = self._span(row, 1)
        labels, scores = (self._tables[name][begin:end] for name in ("labels", "scores"))
        attributes = self._wide("attributes", begin, end)
        return StoredImage(image_id, self.regions(row), labels, scores, attributes)

    def images(self) -> Iterator[StoredImage]:
        """Yield all that is stored for every image; raises as `regions`."""
        for row, image_id in enumerate(self.ids()):
            yield self.image(row, image_id)

    def labels(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Yield id, labels and scores of every image; raises as `regions`."""
        labels, scores = map(self._file.get_tensor, ("labels", "scores"))
        for row, image_id in enumerate(self.ids()):
            begin, end = self._span(row)
            yield image_id, labels[begin:end], scores[begin:end]

    def _wide(self, name: str, begin: int, end: int) -> np.ndarray | None:
        table = self._tables[name]
        return table[begin:end].astype(np.float32) if table.get_shape()[1] else None
