"""Folders of image files: without labels, or a tree with one folder for each class.

A tree is `train/<class>/*.jpg` and `val/<class>/*.jpg`. The classes are the folders of `train` in order of
the alphabet, as in ImageNet's usual layout. Without folders of splits (`<class>/*.jpg`) the images are split
by hash: 90% train, 5% val, 5% test.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from array import array
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from unimo.data.readers.base import (
    ConcatDataset,
    Dataset,
    LabeledImages,
    RelabeledImages,
    WrappedDataset,
    check_index,
    spoken,
)
from unimo.data.readers.jsonl import hash_split
from unimo.data.record import Record
from unimo.errors import DataError, RecordError

log = logging.getLogger(__name__)
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test",),
}
VAL_PARTS = ("trainable_val", "rest_val")
"""Further folders of splits, for those who divide `val`."""


class PictureDataset(Dataset):
    """Image files, each a sample without text, named by its path relative to `root`."""

    def __init__(self, files: Sequence[Path], root: Path, name: str) -> None:
        self.name = name
        self._root = root
        # Strings instead of Path objects: image collections have millions of files.
        self._files = [str(file.relative_to(root)) for file in files]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Record:
        source = self.image_source(index)
        return Record(self._files[index], self.name, images=(source,), image_id=self._files[index])

    def image_source(self, index: int) -> Path:
        check_index(index, len(self))
        path = self._root / self._files[index]
        if not path.is_file():
            raise RecordError(f"no image {path}")
        return path


class PromptDataset(WrappedDataset):
    """Pseudo pairs: the text of a labelled image is a sentence with its label (UNIMO-2, section 4).

    All images of a class have the same `image_id`, because the sentence of one is true of the others: none of
    them may be its mismatched image.

    Args:
        prompt: the sentence, with `{}` for the label.

    Raises:
        DataError: the prompt has no `{}`.
    """

    def __init__(self, labeled: Dataset, prompt: str) -> None:
        if prompt.count("{}") != 1:
            raise DataError(f"prompt {prompt!r}: expected one {{}} for the label, as in 'a photo of {{}}'")
        super().__init__(labeled)
        self._prompt = prompt

    def __getitem__(self, index: int) -> Record:
        record = self._whole[index]
        if not record.label_name:
            raise RecordError(f"sample {record.sample_id} has no name for its label {record.label!r}")
        text = self._prompt.replace("{}", record.label_name)
        return dataclasses.replace(record, text=text, image_id=f"{self.name}: {record.label_name}")


def find_pictures(folder: Path) -> list[Path]:
    """Find the image files in a folder and its subfolders, sorted; hidden and other files are skipped."""
    pictures, others = [], Counter()
    for path in folder.rglob("*"):
        if any(part[0] == "." for part in path.relative_to(folder).parts):
            continue
        if path.suffix.lower() in PICTURE_SUFFIXES:
            pictures.append(path)
        elif path.is_file():
            others[path.suffix.lower() or "none"] += 1
    if others:
        endings = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
        log.warning("%s: %d files are no pictures by their endings: %s", folder, others.total(), endings)
    return sorted(pictures)


class ImageFolder(LabeledImages):
    """The images in the class folders of one folder, including subfolders, sorted by path.

    Args:
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
    known = {*VAL_PARTS, *(folder for folders in SPLIT_FOLDERS.values() for folder in folders)}
    found = [folder for folder in class_folders(root) if folder in known]
    if not found:
        whole = ImageFolder(root, name)
        if split not in SPLIT_FOLDERS:
            raise DataError(f"{root} has no split {split!r}; found: {', '.join(SPLIT_FOLDERS)}")
        subset = ConcatDataset([whole], name, [hash_split(whole.names, split)])
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
