"""Folders of image files: without labels, or a tree with one folder for each class.

A tree is `train/<class>/*.jpg` and `val/<class>/*.jpg`, or other names of splits that `data/splits.py` knows
(`Train`, `val2017`). The classes are the folders of `train` in order of the alphabet, as in ImageNet's usual
layout. Without folders of splits (`<class>/*.jpg`) the images are split by hash: 90% train, 5% val, 5% test.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from unimo.data.readers.base import (
    ConcatDataset,
    Dataset,
    LabeledImages,
    RelabeledImages,
    WrappedDataset,
    check_index,
    concat,
    spoken,
)
from unimo.data.readers.jsonl import HASHED_SPLITS, hash_split
from unimo.data.record import Record
from unimo.data.splits import Split, read_split, select
from unimo.errors import DataError, RecordError, SplitError
from unimo.files import is_hidden
from unimo.limits import FOLDER_DEPTH

log = logging.getLogger(__name__)
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif")


class PictureDataset(Dataset):
    """Image files, each a sample without text, named by its path relative to `root`."""

    def __init__(self, files: Sequence[Path], root: Path, name: str) -> None:
        self.name = name
        self._root = root
        # Strings instead of Path objects: image collections have millions of files.
        self._files = [str(file.relative_to(root)) for file in files]

    def __len__(self) -> int:
        return len(self._files)

    def count_images(self) -> int:
        return len(self)

    def count_texts(self) -> int:
        return 0

    def __getitem__(self, index: int) -> Record:
        source = self.image_source(index)
        return Record(self._files[index], self.name, images=(source,), image_id=self._files[index])

    def image_source(self, index: int) -> Path:
        check_index(index, len(self))
        path = self._root / self._files[index]
        if not os.path.isfile(path):  # False also for a name that is too long
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

    def count_texts(self) -> int:
        return len(self)

    def __getitem__(self, index: int) -> Record:
        record = self._whole[index]
        if not record.label_name:
            raise RecordError(f"sample {record.sample_id} has no name for its label {record.label!r}")
        text = self._prompt.replace("{}", record.label_name)
        return dataclasses.replace(record, text=text, image_id=f"{self.name}: {record.label_name}")


def find_pictures(folder: Path) -> list[Path]:
    """Find the image files in a folder and its subfolders, sorted; hidden and other files are skipped.

    Links to folders are followed, but no folder is read twice.
    """
    pictures, others = [], Counter()
    for path in files_below(folder):
        if _is_picture(path):
            pictures.append(Path(path))
        else:
            others[os.path.splitext(path)[1].lower() or "none"] += 1
    if others:
        endings = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
        log.warning("%s: %d files are no pictures by their endings: %s", folder, others.total(), endings)
    return sorted(pictures)


def files_below(folder: str | Path) -> Iterator[str]:
    """Yield the paths of the files in a folder and its subfolders, without hidden ones.

    Raises:
        DataError: more than `FOLDER_DEPTH` folders inside each other.
    """
    seen = set()
    start = str(folder).count(os.sep)
    for parent, folders, files in os.walk(folder, followlinks=True):
        if parent.count(os.sep) - start > FOLDER_DEPTH:
            raise DataError(f"{folder} has more than {FOLDER_DEPTH} folders inside each other, the limit")
        state = os.stat(parent)
        if (state.st_dev, state.st_ino) in seen:  # a link to a folder above, or to one that is read anyway
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield from (os.path.join(parent, name) for name in files if not is_hidden(name))


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURE_SUFFIXES)


class ImageFolder(LabeledImages):
    """The images in the class folders of one folder, including subfolders, sorted by path.

    Args:
        class_names: classes that labels refer to; the folders found when None.
        tree: folder that the names of images start from, so that those of two splits differ; `root` when
            None.

    Raises:
        DataError: no class folders, no images, or a folder that is not among `class_names`.
    """

    def __init__(
        self,
        root: str | Path,
        name: str = "",
        class_names: Sequence[str] | None = None,
        tree: Path | None = None,
    ) -> None:
        self.root = Path(root)
        self._tree = tree or self.root
        self.name = name or self.root.name
        found = class_folders(self.root)
        self.class_names = list(class_names if class_names is not None else found)
        if unknown := sorted(set(found) - set(self.class_names)):
            raise DataError(
                f"{self.root} has classes that train does not have: {', '.join(unknown[:5])}; "
                "add pictures of them to train, or remove them"
            )
        if not found:
            raise DataError(f"{self.root} holds no class folders; expected <class>/*.jpg in it")
        self.names: list[str] = []
        self._labels = array("i")
        for label, folder in enumerate(self.class_names):
            files = filter(_is_picture, files_below(self.root / folder))
            names = sorted(os.path.relpath(file, self._tree) for file in files)
            self.names += names
            self._labels.extend([label] * len(names))
        filled = set(self._labels)
        empty = [name for label, name in enumerate(self.class_names) if label not in filled and name in found]
        if empty:
            raise DataError(
                f"{self.root}: no pictures in {len(empty)} of {len(found)} folders of classes: "
                f"{', '.join(empty[:5])}; looked for {', '.join(PICTURE_SUFFIXES)}; fill or remove them"
            )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Record:
        check_index(index, len(self))
        name, label = self.names[index], self._labels[index]
        return Record(
            sample_id=name,
            corpus=self.name,
            images=(self._tree / name,),
            image_id=name,
            label=label,
            label_name=spoken(self.class_names[label]),
        )

    def image_source(self, index: int) -> Path:
        check_index(index, len(self))
        return self._tree / self.names[index]


def open_image_folder(root: Path, split: str, name: str) -> LabeledImages:
    """Open one split of a tree as described at the top of this file.

    Raises:
        DataError: no such split, an empty one, or no telling whether folders are splits or classes.
    """
    splits = split_folders(root, labeled=True)
    if not splits:
        whole = ImageFolder(root, name)
        if split not in HASHED_SPLITS:
            raise SplitError(f"{root} has no split {split!r}; found: {', '.join(HASHED_SPLITS)}")
        subset = ConcatDataset([whole], name, [hash_split(whole.names, split)])
        if len(subset) == 0:
            raise SplitError(f"{root} has too few pictures for a split {split!r}: at least 3 are needed")
        return RelabeledImages(subset, whole.class_names, range(len(whole.class_names)))
    chosen = [list(splits)[place] for place in select(list(splits.values()), split)]
    if not chosen:
        raise SplitError(f"{root} has no split {split!r}; found: {', '.join(splits)}")
    trained = [folder for folder, found in splits.items() if found.name == "train"] or chosen
    names = sorted({label for folder in trained for label in class_folders(root / folder)})
    parts = [ImageFolder(root / folder, name, names, root) for folder in chosen]
    log.info("%s, %s: %d images of %d classes", name, split, sum(map(len, parts)), len(names))
    return parts[0] if len(parts) == 1 else RelabeledImages(concat(parts, name), names, range(len(names)))


def split_folders(root: Path, labeled: bool) -> dict[str, Split]:
    """Return the subfolders that are splits; none if all of them are classes, such as `bus`, `car`, `train`.

    Args:
        labeled: pictures lie in folders of classes, so there are none directly in the folder of a split.

    Raises:
        DataError: folders named like a split beside others, and no telling which of the two they are; or
            folders of splits further down.
    """
    folders = [folder for folder in class_folders(root) if any(map(_is_picture, files_below(root / folder)))]
    found = {folder: read_split(folder) for folder in folders}
    splits = {folder: split for folder, split in found.items() if split and split.alone}
    others = [folder for folder in folders if folder not in splits]
    if not splits:
        for folder in others:
            if inner := split_folders(root / folder, labeled):
                raise DataError(
                    f"{root} would be read as one split, but {root / folder} has folders of splits "
                    f"({', '.join(inner)}); give that folder, or move them up"
                )
    if not splits or not others:
        return splits
    direct = [
        folder
        for folder in splits
        if any(
            os.path.isfile(entry.path) and _is_picture(entry.name)
            for entry in os.scandir(root / folder)
            if not is_hidden(entry.name)
        )
    ]
    if len(splits) > 1 and not (labeled and direct):
        log.warning("%s: %s belong to no split and are left out", root, ", ".join(others))
        return splits
    trains = all(split.name == "train" for split in splits.values())
    if len(direct) == len(splits) and (labeled or (trains and len(others) > 1)):
        return {}
    raise DataError(
        f"{root}: no telling whether {', '.join(splits)} are splits or classes, beside "
        f"{', '.join(others[:5])}; move what is no split out of the folder, or give classes other names "
        "(train_class)"
    )


def class_folders(root: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, without hidden ones."""

    def is_folder(entry: os.DirEntry[str]) -> bool:
        # A link may lead to itself, which `entry.is_dir` raises an error about.
        return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()

    return sorted(entry.name for entry in os.scandir(root) if is_folder(entry) and not is_hidden(entry.name))
