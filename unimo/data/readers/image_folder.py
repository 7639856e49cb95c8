"""A tree of images with one folder for each class: `train/<class>/*.jpg` and `val/<class>/*.jpg`.

The classes are the folders of `train` in alphabetical order, as in ImageNet's usual layout. Without folders
of splits (`<class>/*.jpg`) the images are split by hash: 90% train, 5% val, 5% test.
"""

from __future__ import annotations

import logging
import os
from array import array
from collections.abc import Sequence
from pathlib import Path

from unimo.data.readers.base import LabeledImages, RelabeledImages, SubsetDataset, check_index, spoken
from unimo.data.readers.jsonl import hash_split
from unimo.data.readers.unpaired import PICTURE_SUFFIXES
from unimo.data.record import Record
from unimo.errors import DataError

log = logging.getLogger(__name__)
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test",),
}


class ImageFolder(LabeledImages):
    """The images in the class folders of one folder, including subfolders, sorted by path.

    Args:
        root: folder of the class folders.
        class_names: classes that labels refer to; the folders found when None.

    Raises:
        DataError: no class folders, no images, or a folder that is not among `class_names`.
    """

    def __init__(self, root: str | Path, name: str = "", class_names: Sequence[str] | None = None) -> None:
        self.root = Path(root)
        self.name = name or self.root.name
        found = class_folders(self.root)
        self.class_names = list(class_names if class_names is not None else found)
        if unknown := sorted(set(found) - set(self.class_names)):
            raise DataError(f"{self.root} has classes that train does not have: {', '.join(unknown[:5])}")
        if not found:
            raise DataError(f"{self.root} holds no class folders; expected <class>/*.jpg in it")
        self.names: list[str] = []
        self._labels = array("i")
        for label, folder in enumerate(self.class_names):
            names = sorted(
                os.path.relpath(os.path.join(parent, file), self.root)
                for parent, _, files in os.walk(self.root / folder, followlinks=True)
                for file in files
                if file.lower().endswith(PICTURE_SUFFIXES) and not file.startswith(".")
            )
            self.names += names
            self._labels.extend([label] * len(names))
        if not self.names:
            raise DataError(
                f"{self.root}: no pictures in its folders; looked for {', '.join(PICTURE_SUFFIXES)}"
            )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Record:
        check_index(index, len(self))
        name, label = self.names[index], self._labels[index]
        return Record(
            sample_id=name,
            corpus=self.name,
            images=(self.root / name,),
            image_id=name,
            label=label,
            label_name=spoken(self.class_names[label]),
        )

    def image_source(self, index: int) -> Path:
        check_index(index, len(self))
        return self.root / self.names[index]


def open_image_folder(root: Path, split: str, name: str) -> LabeledImages:
    """Open one split of a tree as described at the top of this file.

    Raises:
        DataError: no such split, or an empty one.
    """
    known = {folder for folders in SPLIT_FOLDERS.values() for folder in folders}
    found = [folder for folder in class_folders(root) if folder in known]
    if not found:
        whole = ImageFolder(root, name)
        if split not in SPLIT_FOLDERS:
            raise DataError(f"{root} has no split {split!r}; found: {', '.join(SPLIT_FOLDERS)}")
        subset = SubsetDataset(whole, hash_split(whole.names, split))
        if len(subset) == 0:
            raise DataError(f"{root} has too few pictures for a split {split!r}: at least 3 are needed")
        return RelabeledImages(subset, whole.class_names, range(len(whole.class_names)))
    chosen = next((folder for folder in SPLIT_FOLDERS.get(split, (split,)) if folder in found), None)
    if chosen is None:
        raise DataError(f"{root} has no split {split!r}; found: {', '.join(found)}")
    train = next((folder for folder in SPLIT_FOLDERS["train"] if folder in found), chosen)
    dataset = ImageFolder(root / chosen, name, class_folders(root / train))
    log.info("%s, %s: %d images of %d classes", name, split, len(dataset), len(dataset.class_names))
    return dataset


def class_folders(root: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, without hidden ones."""
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != ".")
