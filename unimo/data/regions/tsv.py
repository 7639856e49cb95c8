"""Region features in the format of UNIMO's release: one image a line, seven columns separated by TABs.

    image name, width, height, number of boxes n, boxes [n, 4], features [n, F], class probabilities [n, C]

The last three are base64 of raw little-endian float32. The released training reader takes columns 2 and 3
for width and height, its dev and test reader for height and width, so the order is an option.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from unimo.data.readers.base import LineFile
from unimo.data.regions.base import Regions, check_regions
from unimo.data.regions.shard import StoredImage
from unimo.data.regions.store import StoredRegions
from unimo.errors import DataError, RecordError
from unimo.files import replacing

Order = Literal["width-height", "height-width"]
COLUMNS = 7
_LARGEST = 2**31 - 1
_PROBED, _AGREEING = 100, 5
"""Lines at most, and readable ones, that decide how wide features are."""


class TsvRegions(StoredRegions):
    """Random access to a TSV file: lines are located when it is opened and decoded when read.

    A broken line affects only its own image. Released files have some images twice, one of the lines cut off:
    the first line that can be read counts.

    Args:
        order: meaning of columns 2 and 3.

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
        self.feature_size, self.num_classes = self._widths()

    def _add(self, number: int, line: bytes) -> bool:
        """Note the name of a line's image, and lines that have it too; all lines are kept."""
        if name := line.partition(b"\t")[0].strip().decode("utf8", "replace"):
            first = self._index.setdefault(name, number - 1)
            if first != number - 1:
                self._repeats.setdefault(first, []).append(number - 1)
        return True

    def _widths(self) -> tuple[int, int]:
        """Return the width of features and the number of classes that most of the first lines have.

        Raises:
            DataError: none of them can be read.
        """
        found: Counter[tuple[int, int]] = Counter()
        problem: RecordError | None = None
        for place in range(min(len(self._lines), _PROBED)):
            try:
                regions = self._parse(place)
            except RecordError as error:
                problem = problem or error
                continue
            probs = regions.class_probs
            found[regions.features.shape[1], 0 if probs is None else probs.shape[1]] += 1
            if found.total() == _AGREEING:
                break
        if not found:
            raise DataError(f"{problem} (its first lines decide how wide features are)") from problem
        return found.most_common(1)[0][0]

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

    def _parse(self, place: int) -> Regions:
        columns = self._lines.content(place).rstrip(b"\r\n").split(b"\t")
        return _parse(columns, self.order, self._lines.where(place))

    def image(self, name: str) -> StoredImage:
        """Read one image with the most probable class of each region.

        Raises:
            RecordError: it is not in the file, or its line is broken.
        """
        regions = self.of_id(name)
        probs = regions.class_probs
        if probs is None:
            probs = np.zeros((len(regions), 1), np.float32)
        return StoredImage(name, regions, probs.argmax(1).astype(np.int32), probs.max(1))


def _parse(columns: list[bytes], order: Order, where: str) -> Regions:
    if len(columns) != COLUMNS:
        raise RecordError(
            f"{where}: {len(columns)} columns, expected {COLUMNS}: image name, width, height, number of "
            "boxes, boxes, features, class probabilities"
        )
    try:
        first, second, count = numbers = [int(float(column)) for column in columns[1:4]]
        if max(numbers) > _LARGEST:
            raise OverflowError(f"{max(numbers):.0e} is too large")
    except (ValueError, OverflowError) as error:
        raise RecordError(f"{where}: width, height and number of boxes must be numbers: {error}") from error
    if count < 1:
        raise RecordError(f"{where}: no regions")
    width, height = (first, second) if order == "width-height" else (second, first)
    boxes, features, probs = (
        _table(text, count, f"{where}, column {number}") for number, text in enumerate(columns[4:], 5)
    )
    if boxes.shape[1] != 4:
        raise RecordError(f"{where}: boxes of {boxes.shape[1]} numbers, expected 4")
    return Regions(features, boxes, width, height, probs if probs.shape[1] else None)


def _table(text: bytes, rows: int, where: str) -> np.ndarray:
    try:
        content = base64.b64decode(text.strip(), validate=True)
    except binascii.Error as error:
        raise RecordError(f"{where}: not valid base64: {error}") from error
    if len(content) % (4 * rows):
        raise RecordError(f"{where}: {len(content)} bytes are no float32 table of {rows} rows")
    return np.frombuffer(content, "<f4").reshape(rows, -1).astype(np.float32)


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
