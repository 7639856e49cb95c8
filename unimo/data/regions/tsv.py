"""Region features in the format of UNIMO's release: one image a line, seven columns separated by TABs.

    image name, width, height, number of boxes n, boxes [n, 4], features [n, F], class probabilities [n, C]

The last three are base64 of raw little-endian float32. The released training reader takes columns 2 and 3
for width and height, its dev and test reader for height and width, so the order is an option. Also read are
the six columns of bottom-up attention, without the last one, and the ten of LXMERT, which have for each box
one class and one attribute of Visual Genome with their confidences, int64 and float32: that of the class
stands for its probability, and the other classes have none.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from unimo.data.readers.base import LineFile
from unimo.data.regions.base import Regions, check_regions
from unimo.data.regions.shard import StoredImage
from unimo.data.regions.store import StoredRegions
from unimo.errors import DataError, RecordError
from unimo.files import replacing

Order = Literal["width-height", "height-width"]


class _Layout(NamedTuple):
    """Which column is what, from 0."""

    names: str
    width: int
    height: int
    count: int
    boxes: int
    features: int
    probs: int | None = None
    labels: int | None = None
    """Class of each region, int64; its confidence is in the next column."""
    attributes: int | None = None
    """Attribute of each region, int64."""


_START = "image name, width, height, number of boxes, boxes, features"
_LAYOUTS = {
    7: _Layout(f"{_START}, class probabilities", 1, 2, 3, 4, 5, probs=6),
    6: _Layout(_START, 1, 2, 3, 4, 5),
    10: _Layout(
        "image name, height, width, classes, their confidences, attributes, their confidences, number of "
        "boxes, boxes, features",
        2,
        1,
        7,
        8,
        9,
        labels=3,
        attributes=5,
    ),
}
"""Layout by the number of columns: of UNIMO, bottom-up attention and LXMERT."""
_CLASSES, _ATTRIBUTES = 1600, 400
"""Numbers of Visual Genome, as LXMERT's detector has them."""
_LARGEST = 2**31 - 1
_PROBED, _AGREEING = 100, 5
"""Lines at most, and readable ones, that decide how wide features are."""


class TsvRegions(StoredRegions):
    """Random access to a TSV file: lines are located when it is opened and decoded when read.

    A broken line affects only its own image. Released files have some images twice, one of the lines cut off:
    the first line that can be read counts.

    Args:
        order: meaning of columns 2 and 3, except of LXMERT's, where it is known.

    Raises:
        DataError: missing or empty file, or none of its first lines is in this format.
    """

    def __init__(self, path: str | Path, order: Order = "width-height") -> None:
        self.path, self.order = Path(path), order
        self.where = str(self.path)
        self._index: dict[str, int] = {}
        self._repeats: dict[int, list[int]] = {}
        self._lines = LineFile(self.path, self._add)
        if not self._index:
            raise DataError(f"{self.path} holds no region features: the file is empty")
        self._columns, self.feature_size, self.num_classes = self._widths()
        self.num_attributes = 0 if _LAYOUTS[self._columns].attributes is None else _ATTRIBUTES

    def _add(self, number: int, line: bytes) -> bool:
        """Note the name of a line's image, and lines that have it too; all lines are kept."""
        if name := line.partition(b"\t")[0].strip().decode("utf8", "replace"):
            first = self._index.setdefault(name, number - 1)
            if first != number - 1:
                self._repeats.setdefault(first, []).append(number - 1)
        return True

    def _widths(self) -> tuple[int, int, int]:
        """Return the numbers of columns, of features and of classes that most of the first lines have.

        Raises:
            DataError: none of them can be read.
        """
        found: Counter[tuple[int, int, int]] = Counter()
        problem: RecordError | None = None
        for place in range(min(len(self._lines), _PROBED)):
            try:
                columns = self._cells(place)
                regions = _parse(columns, self.order, self._lines.where(place), len(columns))
            except RecordError as error:
                problem = problem or error
                continue
            probs = regions.class_probs
            found[len(columns), regions.features.shape[1], 0 if probs is None else probs.shape[1]] += 1
            if found.total() == _AGREEING:
                break
        if not found:
            raise DataError(f"{problem} (its first lines decide how wide features are)") from problem
        return max(found, key=lambda widths: (found[widths], widths[0]))

    def __len__(self) -> int:
        return len(self._index)

    def names(self) -> list[str]:
        """Return the names of the images, in the order of the file."""
        return list(self._index)

    def find(self, key: str, is_id: bool = False) -> int | None:
        """Return the number of the line, from 0."""
        return self._index.get(key)

    def read(self, place: int) -> Regions:
        *others, last = place, *self._repeats.get(place, ())
        for other in others:
            with contextlib.suppress(RecordError):
                where = self._lines.where(other)
                return check_regions(self._parse(other), where, self.feature_size, self.num_classes)
        return self._parse(last)

    def _cells(self, place: int) -> list[bytes]:
        return self._lines.content(place).rstrip(b"\r\n").split(b"\t")

    def _parse(self, place: int) -> Regions:
        return _parse(self._cells(place), self.order, self._lines.where(place), self._columns)

    def _attributes(self, place: int) -> np.ndarray:
        column = _LAYOUTS[self._columns].attributes
        where = f"{self._lines.where(place)}, column {column + 1}"
        return _classes(self._cells(place)[column], len(self.read(place)), where, _ATTRIBUTES)

    def image(self, name: str) -> StoredImage:
        """Read one image with the most probable class of each region.

        Raises:
            RecordError: it is not in the file, or its line is broken.
        """
        regions = self.of_id(name)
        probs, place = regions.class_probs, _LAYOUTS[self._columns].labels
        if place is not None:
            cells, where = self._cells(self._index[name]), f"{self.path}, {name}"
            labels, scores = (
                _table(cells[place + number], len(regions), f"{where}, column {place + number + 1}", kind)
                for number, kind in enumerate(("<i8", "<f4"))
            )
            return StoredImage(name, regions, labels[:, 0].astype(np.int32), scores[:, 0])
        if probs is None:
            probs = np.zeros((len(regions), 1), np.float32)
        return StoredImage(name, regions, probs.argmax(1).astype(np.int32), probs.max(1))


def _parse(columns: list[bytes], order: Order, where: str, expected: int) -> Regions:
    layout = _LAYOUTS.get(expected, _LAYOUTS[7])
    if len(columns) != expected or expected not in _LAYOUTS:
        others = "" if expected in _LAYOUTS else f"; 6 ({_START}) and the 10 of LXMERT are read, too"
        wanted = expected if expected in _LAYOUTS else 7
        raise RecordError(f"{where}: {len(columns)} columns, expected {wanted}: {layout.names}{others}")
    try:
        numbers = [int(float(columns[place])) for place in (layout.width, layout.height, layout.count)]
        width, height, count = numbers
        if max(numbers) > _LARGEST:
            raise OverflowError(f"{max(numbers):.0e} is too large")
    except (ValueError, OverflowError) as error:
        raise RecordError(f"{where}: width, height and number of boxes must be numbers: {error}") from error
    if count < 1:
        raise RecordError(f"{where}: no regions")
    if order == "height-width" and layout.width < layout.height:
        width, height = height, width
    places = (layout.boxes, layout.features, *([] if layout.probs is None else [layout.probs]))
    boxes, features, *probs = (
        _table(columns[place], count, f"{where}, column {place + 1}") for place in places
    )
    if boxes.shape[1] != 4:
        raise RecordError(f"{where}: boxes of {boxes.shape[1]} numbers, expected 4")
    if layout.labels is not None:
        cells, where = columns[layout.labels : layout.labels + 2], f"{where}, column {layout.labels + 1}"
        found = np.zeros((count, _CLASSES), np.float32)
        scores = _table(cells[1], count, where)[:, 0]
        found[np.arange(count), _classes(cells[0], count, where, _CLASSES)] = scores
        probs = [found]
    return Regions(features, boxes, width, height, probs[0] if probs and probs[0].shape[1] else None)


def _classes(text: bytes, rows: int, where: str, count: int) -> np.ndarray:
    """Decode one class of each region, from 0 to `count` - 1, int64 [rows]."""
    found = _table(text, rows, where, "<i8")
    if found.shape[1] != 1 or found.min() < 0 or found.max() >= count:
        raise RecordError(f"{where}: expected a class from 0 to {count - 1} for each of {rows} boxes")
    return found[:, 0]


def _table(text: bytes, rows: int, where: str, kind: str = "<f4") -> np.ndarray:
    """Decode base64 of an array with a number of rows; `kind` is the type of its numbers."""
    try:
        content = base64.b64decode(text.strip(), validate=True)
    except binascii.Error as error:
        raise RecordError(f"{where}: not valid base64: {error}") from error
    dtype = np.dtype(kind)
    if len(content) % (dtype.itemsize * rows):
        raise RecordError(f"{where}: {len(content)} bytes are no {dtype.name} table of {rows} rows")
    return np.frombuffer(content, dtype).reshape(rows, -1).astype(dtype.newbyteorder("="))


def write_tsv(
    path: Path, images: Iterable[StoredImage], order: Order = "width-height", stems: bool = False
) -> int:
    """Write a file in the format of UNIMO's release, whole or not at all; return the number of lines.

    Args:
        images: images to write; attributes have no column.
        order: meaning of columns 2 and 3.
        stems: write `17` for `flickr/17.jpg`; the released readers require numbers as names.

    Raises:
        DataError: two images would have the same name, or the file cannot be written.
    """
    seen: set[str] = set()
    try:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            for line in _lines(images, order, stems, seen):
                file.write(line)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error
    return len(seen)


def _lines(images: Iterable[StoredImage], order: Order, stems: bool, seen: set[str]) -> Iterator[bytes]:
    for image in images:
        name = Path(image.image_id).stem if stems else image.image_id
        if name in seen or "\t" in name or "\n" in name:
            raise DataError(f"image {image.image_id} cannot be named {name!r}: it is taken or has a TAB")
        seen.add(name)
        regions = image.regions
        sides = (regions.width, regions.height)
        first, second = sides if order == "width-height" else sides[::-1]
        probs = np.zeros((len(regions), 0)) if regions.class_probs is None else regions.class_probs
        tables = (regions.boxes, regions.features, probs)
        columns = [base64.b64encode(table.astype("<f4").tobytes()).decode() for table in tables]
        yield "\t".join([name, str(first), str(second), str(len(regions)), *columns]).encode() + b"\n"
