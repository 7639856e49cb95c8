"""JSON lines beside a folder of images: `{"image": "images/1.jpg", "text": "..."}`, one image a line.

Paths are relative to the jsonl file. Lines are located when the file is opened and parsed when read.
The other keys are those of `readers/items.py`.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np

from unimo.data.readers.base import Dataset, Kind, check_index, read_at
from unimo.data.readers.items import count_samples, record_fields, split_item
from unimo.data.record import Record
from unimo.errors import DataError, RecordError
from unimo.files import parse_json

HELD_OUT_SHARE = 0.05
"""Share of the images that goes to val, and the same to test, where files name no split."""


class JsonlDataset(Dataset):
    """One jsonl file.

    Args:
        path: the file.
        kind: what its lines hold.
        name: name of the corpus; the file's own when empty.
        image_root: folder that image paths start from; the file's own when None.

    Raises:
        DataError: missing file, or not one of the images looked for exists.
    """

    def __init__(self, path: str | Path, kind: Kind, name: str = "", image_root: Path | None = None) -> None:
        self.path = Path(path)
        self.kind = kind
        self.name = name or self.path.stem
        self.image_root = Path(image_root) if image_root is not None else self.path.parent
        # Per line: first byte and number in the file (from 1). Per sample: its line, and which of it.
        self._begins, self._sizes, self._numbers = array("q"), array("q"), array("q")
        self._lines, self._which = array("q"), array("i")
        try:
            self._scan()
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}") from error
        if kind != "texts":
            self._check_images_exist()

    def _scan(self) -> None:
        begin = 0
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    self._begins.append(begin)
                    self._sizes.append(len(line))
                    self._numbers.append(number)
                    several = self.kind != "images" and (b'"texts"' in line or b'"captions"' in line)
                    for which in range(count_samples(line, self.kind) if several else 1):
                        self._lines.append(len(self._begins) - 1)
                        self._which.append(which)
                begin += len(line)

    def _check_images_exist(self, probes: int = 20) -> None:
        missing = []
        for index in np.linspace(0, len(self) - 1, min(probes, len(self))).astype(int):
            try:
                image = self.image_name(int(index))
            except RecordError:
                continue
            if (self.image_root / image).is_file():
                return
            missing.append(image)
        if missing:
            raise DataError(
                f"{self.path} has annotations without images: {self.image_root / missing[0]} and "
                f"{len(missing) - 1} others looked for are missing; image paths start from {self.image_root}"
            )

    def __len__(self) -> int:
        return len(self._lines)

    def where(self, index: int) -> str:
        """File and line number of a sample."""
        return f"{self.path}, line {self._numbers[self._lines[index]]}"

    def image_name(self, index: int) -> str:
        """The `image` value of a sample's line.

        Raises:
            RecordError: broken line, or one without it.
        """
        return self._image_name(self._item(index), self.where(index))

    def __getitem__(self, index: int) -> Record:
        check_index(index, len(self))
        where = self.where(index)
        item = self._item(index)
        which = self._which[index]
        sample_id = f"{self.path.stem}:{self._numbers[self._lines[index]]}#{which}"
        fields = record_fields(split_item(item, self.kind, where)[which], self.kind, where, sample_id)
        if self.kind == "texts":
            return Record(sample_id, self.name, **fields)
        image = self._image_name(item, where)
        return Record(
            sample_id=sample_id,
            corpus=self.name,
            images=(self._image_path(image, where),),
            image_id=str(item.get("image_id", image)),
            **fields,
        )

    def image_source(self, index: int) -> Path:
        check_index(index, len(self))
        return self._image_path(self.image_name(index), self.where(index))

    def _image_path(self, image: str, where: str) -> Path:
        path = self.image_root / image
        try:
            size = path.stat().st_size
        except OSError as error:
            raise RecordError(f"{where}: cannot read image {path}: {error.strerror}") from error
        if size == 0:
            raise RecordError(f"{where}: image {path} has 0 bytes")
        return path

    def _item(self, index: int) -> dict:
        line = self._lines[index]
        content = read_at(self.path, self._begins[line], self._sizes[line])
        item = parse_json(content, self.where(index), RecordError)
        if not isinstance(item, dict):
            raise RecordError(f"{self.where(index)}: expected a JSON object, found {item!r:.80}")
        return item

    @staticmethod
    def _image_name(item: dict, where: str) -> str:
        image = item.get("image")
        if not isinstance(image, str) or not image:
            raise RecordError(f"{where}: expected 'image': a path, found {image!r}")
        return image


class NamedImages(Protocol):
    """Samples whose images have names, which stay the same when others are added."""

    def __len__(self) -> int: ...

    def image_name(self, index: int) -> str:
        """Name of a sample's image; RecordError when it has none."""


def hash_split(dataset: NamedImages, split: str) -> np.ndarray:
    """Indices of the samples of `split` where files name no split: 90% train, 5% val, 5% test.

    An image's share follows from the hash of its `image` value alone, so it stays where it is when
    other images are added. Small sets get at least one val and one test image (from three images
    on). Broken lines go to train, where the loader counts them.
    """
    names = [_name_or_none(dataset, index) for index in range(len(dataset))]
    splits = _assign(name for name in names if name is not None)
    return np.array([i for i, name in enumerate(names) if splits.get(name, "train") == split], np.int64)


def _name_or_none(dataset: NamedImages, index: int) -> str | None:
    try:
        return dataset.image_name(index)
    except RecordError:
        return None


def _assign(images: Iterable[str]) -> dict[str | None, str]:
    place = {name: int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) / 2**64 for name in images}
    ordered = sorted(place, key=place.__getitem__)
    shares = [int(value / HELD_OUT_SHARE) for value in place.values()]
    val, test = (max(1, shares.count(share)) for share in (0, 1)) if len(ordered) >= 3 else (0, 0)
    splits: dict[str | None, str] = dict.fromkeys(ordered[:val], "val")
    splits.update(dict.fromkeys(ordered[val : val + test], "test"))
    return splits
