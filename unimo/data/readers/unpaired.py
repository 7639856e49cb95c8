"""Corpora of texts alone and of images alone: plain text files and folders of image files."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from unimo.data.readers.base import Dataset, LineFile, TextDataset, WrappedDataset, check_index, check_text
from unimo.data.record import Record
from unimo.errors import DataError, RecordError

log = logging.getLogger(__name__)
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")


class TextLinesDataset(TextDataset):
    """A UTF-8 file with one sentence a line; empty lines are skipped.

    Raises:
        DataError: the file cannot be read.
    """

    def __init__(self, path: Path, name: str = "") -> None:
        self._lines = LineFile(path)
        self.name = name or path.stem

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Record:
        check_index(index, len(self))
        text = check_text(self._lines.text(index), self._lines.where(index))
        return Record(self._lines.sample_id(index), self.name, text=text)


class PictureDataset(Dataset):
    """Image files, each a sample without text.

    Args:
        root: folder that names of samples are relative to.
    """

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
