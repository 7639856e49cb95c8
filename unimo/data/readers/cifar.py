"""CIFAR-10 and CIFAR-100 as their authors distribute them, in the Python or the binary version.

    CIFAR-10    data_batch_1 .. 5, test_batch, batches.meta      or   *.bin, batches.meta.txt
    CIFAR-100   train, test, meta                                or   *.bin, fine_label_names.txt

Their authors divide them in two: `val` is the last tenth of the training images, 5,000, `train` the others,
and `train+val` all of them. CIFAR-100 is read with its 100 fine labels.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unimo.data.readers.base import LabeledImages, check_index, spoken
from unimo.data.record import Record
from unimo.errors import DataError, RecordError, SplitError
from unimo.files import read_text, regular
from unimo.limits import CONFIG_BYTES, JSON_BYTES
from unimo.weights.pickles import read_numpy_pickle

SIDE = 32
PIXELS = 3 * SIDE * SIDE
HELD_OUT = 10
"""Training images for each that is kept for `val`."""


@dataclass(frozen=True)
class CifarLayout:
    """Names and format of the files of one of the two data sets."""

    folders: tuple[str, ...]
    """Folder inside the archives of the Python and the binary version."""
    train: tuple[str, ...]
    test: str
    label_key: str
    """Key of the labels in the Python version."""
    label_bytes: int
    """Number of bytes before the pixels in the binary version; the last one is the label."""
    names: tuple[str, str]
    """File and key of the class names in the Python version."""
    names_text: str
    """File of the class names in the binary version."""
    classes: int


CIFAR10 = CifarLayout(
    folders=("cifar-10-batches-py", "cifar-10-batches-bin"),
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test="test_batch",
    label_key="labels",
    label_bytes=1,
    names=("batches.meta", "label_names"),
    names_text="batches.meta.txt",
    classes=10,
)
CIFAR100 = CifarLayout(
    folders=("cifar-100-python", "cifar-100-binary"),
    train=("train",),
    test="test",
    label_key="fine_labels",
    label_bytes=2,
    names=("meta", "fine_label_names"),
    names_text="fine_label_names.txt",
    classes=100,
)


class CifarImages(LabeledImages):
    """The images of one split, in memory (3 kB each): `train`, `val` or `test`.

    Raises:
        DataError: another split, or files that are missing or damaged.
    """

    def __init__(self, folder: Path, layout: CifarLayout, binary: bool, split: str, name: str) -> None:
        if split not in ("train", "val", "test"):
            raise SplitError(f"{folder} has no split {split!r}; found: train, val, test")
        files = (layout.test,) if split == "test" else layout.train
        self.name = name
        self.class_names = _class_names(folder, layout, binary)
        read = _read_binary if binary else _read_python
        labels, pixels = zip(*(read(folder / file, layout) for file in files), strict=True)
        rows = zip(files, map(len, labels), strict=True)
        keys = [f"{file}:{row}" for file, count in rows for row in range(count)]
        start = len(keys) - len(keys) // HELD_OUT
        part = {"train": slice(start), "val": slice(start, None), "test": slice(None)}[split]
        self._keys = keys[part]
        self._labels, self._pixels = np.concatenate(labels)[part], np.concatenate(pixels)[part]
        if not self._keys:
            raise SplitError(
                f"{folder} has too few images for a split {split!r}: at least {HELD_OUT} are needed"
            )
        if (self._labels < 0).all():
            raise DataError(f"{folder}: no label of {', '.join(files)} is one of 0 .. {layout.classes - 1}")

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Record:
        image, label = self.image_source(index), int(self._labels[index])
        if label < 0:
            raise RecordError(
                f"{self._keys[index]}: its label is not one of 0 .. {len(self.class_names) - 1}"
            )
        key, name = self._keys[index], spoken(self.class_names[label])
        return Record(key, self.name, images=(image,), image_id=key, label=label, label_name=name)

    def image_source(self, index: int) -> bytes:
        check_index(index, len(self))
        pixels = self._pixels[index].reshape(3, SIDE, SIDE).transpose(1, 2, 0)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="BMP")
        return buffer.getvalue()


def open_cifar(path: Path, split: str, name: str) -> CifarImages | None:
    """Open CIFAR files in a folder, or in the folder of an unpacked archive in it; None without any."""
    for layout in (CIFAR10, CIFAR100):
        for folder in (path, *(path / name for name in layout.folders)):
            for binary, file in ((False, layout.names[0]), (True, layout.names_text)):
                if (folder / file).is_file():
                    return CifarImages(folder, layout, binary, split, name)
    return None


def _read_python(path: Path, layout: CifarLayout) -> tuple[np.ndarray, np.ndarray]:
    """Read labels [N] and pixels uint8 [N, 3072] of a pickle."""
    content = read_numpy_pickle(path)
    pixels, labels = content.get("data"), content.get(layout.label_key)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (PIXELS,):
        raise DataError(f"{path}: expected an array `data` of bytes [N, {PIXELS}]")
    if not isinstance(labels, list) or len(labels) != len(pixels):
        raise DataError(f"{path}: expected a list `{layout.label_key}` of {len(pixels)} labels")
    return _checked(labels, layout.classes), pixels


def _read_binary(path: Path, layout: CifarLayout) -> tuple[np.ndarray, np.ndarray]:
    """Read labels [N] and pixels uint8 [N, 3072] of a .bin file, whose name here lacks the ending."""
    path, row = path.with_name(f"{path.name}.bin"), layout.label_bytes + PIXELS
    try:
        content = np.fromfile(regular(path, JSON_BYTES), np.uint8)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if len(content) == 0 or len(content) % row:
        raise DataError(f"{path} has {len(content)} bytes, no multiple of {row}; download it again")
    content = content.reshape(-1, row)
    labels = content[:, layout.label_bytes - 1]
    return _checked(labels, layout.classes), content[:, -PIXELS:]


def _checked(labels: Any, classes: int) -> np.ndarray:
    """Return labels int64 [N]; -1 for those that are no class."""
    known = (isinstance(label, (int, np.integer)) and 0 <= label < classes for label in labels)
    return np.array(
        [label if is_known else -1 for label, is_known in zip(labels, known, strict=True)], np.int64
    )


def _class_names(folder: Path, layout: CifarLayout, binary: bool) -> list[str]:
    file, key = layout.names
    path = folder / (layout.names_text if binary else file)
    if binary:
        names = read_text(path, CONFIG_BYTES, DataError).split()
    else:
        found = read_numpy_pickle(path).get(key)
        found = found if isinstance(found, list) else []
        names = [n.decode("utf8", "replace") if isinstance(n, bytes) else str(n) for n in found]
    if len(names) != layout.classes or len(set(names)) != len(names):
        raise DataError(f"{path}: expected {layout.classes} class names, found {len(names)}")
    return names
