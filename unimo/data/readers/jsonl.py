"""JSON lines with a folder of images: `{"image": "images/1.jpg", "text": "..."}`, one image a line.

Paths are relative to the jsonl file. Lines are located when the file is opened and parsed when read.
The other keys are described in `readers/items.py`.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unimo.data.readers.base import Dataset, Kind, LineFile, check_index
from unimo.data.readers.items import count_samples, record_fields, split_item
from unimo.data.record import Record
from unimo.errors import DataError, RecordError
from unimo.files import parse_json

HELD_OUT_SHARE = 0.05
"""Share of the images in val, and also in test, where file names name no split."""


class JsonlDataset(Dataset):
    """One jsonl file.

    Args:
        image_root: folder that image paths are relative to; that of the file when None.

    Raises:
        DataError: missing file, or none of a sample of its images exists.
    """

    def __init__(self, path: str | Path, kind: Kind, name: str = "", image_root: Path | None = None) -> None:
        self.path = Path(path)
        self.kind = kind
        self.name = name or self.path.stem
        self.image_root = Path(image_root) if image_root is not None else self.path.parent
        # For each sample its line, and its index among the samples of the line.
        self._line_of, self._which = array("q"), array("i")
        self._lines = LineFile(self.path, self._count)
        if kind != "texts":
            self._check_images_exist()

    def _count(self, _: int, line: bytes) -> bool:
        """Add the samples of a line; return whether it has any."""
        if not line.strip():
            return False
        several = self.kind != "images" and (b'"texts"' in line or b'"captions"' in line)
        count = count_samples(line, self.kind) if several else 1
        index = self._line_of[-1] + 1 if self._line_of else 0
        self._line_of.extend([index] * count)
        self._which.extend(range(count))
        return count > 0

    def _check_images_exist(self, probes: int = 20) -> None:
        missing = []
        for index in np.linspace(0, len(self) - 1, min(probes, len(self))).astype(int):
            try:
                image = self._image_name(self._item(index), self.where(index))
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
        return len(self._which)

    def where(self, index: int) -> str:
        """Return file and line number of a sample."""
        return self._lines.where(self._line_of[index])

    def image_names(self) -> list[str | None]:
        """Return the `image` value of each sample's line; None where there is none or the line is broken."""
        names: list[str | None] = []
        for index in range(len(self)):
            try:
                names.append(self._image_name(self._item(index), self.where(index)))
            except RecordError:
                names.append(None)
        return names

    def __getitem__(self, index: int) -> Record:
        check_index(index, len(self))
        where, item, which = self.where(index), self._item(index), self._which[index]
        sample_id = f"{self._lines.sample_id(self._line_of[index])}#{which}"
        fields = record_fields(split_item(item, self.kind, where)[which], self.kind, where, sample_id)
        if self.kind != "texts":
            image = self._image_name(item, where)
            fields["images"] = (self._image_path(image, where),)
            fields["image_id"] = str(item.get("image_id", image))
        return Record(sample_id, self.name, **fields)

    def image_source(self, index: int) -> Path:
        check_index(index, len(self))
        where = self.where(index)
        return self._image_path(self._image_name(self._item(index), where), where)

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
        item = parse_json(self._lines.content(self._line_of[index]), self.where(index), RecordError)
        if not isinstance(item, dict):
            raise RecordError(f"{self.where(index)}: expected a JSON object, found {item!r:.80}")
        return item

    @staticmethod
    def _image_name(item: dict, where: str) -> str:
        image = item.get("image")
        if not isinstance(image, str) or not image:
            raise RecordError(f"{where}: expected 'image': a path, found {image!r}")
        return image


def hash_split(names: Sequence[str | None], split: str) -> np.ndarray:
    """Select the samples of `split` where file names name no split: 90% train, 5% val, 5% test.

    The split of an image follows from the hash of its name alone, so it does not change when other images
    are added. From three images on, val and test have at least one image each.

    Args:
        names: name of each sample's image; None for broken ones, which go to train, where the loader counts
            them.

    Returns:
        Indices int64 of the samples, ascending.
    """
    place = {name: int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) / 2**64 for name in names if name}
    ordered = sorted(place, key=place.__getitem__)
    shares = [int(value / HELD_OUT_SHARE) for value in place.values()]
    val, test = (max(1, shares.count(share)) for share in (0, 1)) if len(ordered) >= 3 else (0, 0)
    splits: dict[str | None, str] = dict.fromkeys(ordered[:val], "val")
    splits.update(dict.fromkeys(ordered[val : val + test], "test"))
    return np.array([i for i, name in enumerate(names) if splits.get(name, "train") == split], np.int64)
