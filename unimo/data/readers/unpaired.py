"""Corpora of texts alone and of images alone: plain text files, and folders of pictures."""

from __future__ import annotations

import dataclasses
import logging
from array import array
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from unimo.data.readers.base import Dataset, check_index, check_text, read_at
from unimo.data.record import ImageSource, Record
from unimo.errors import DataError, RecordError

log = logging.getLogger(__name__)
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})


class TextLinesDataset(Dataset):
    """A UTF-8 file with one sentence a line; empty lines are left out.

    Lines are located when the file is opened and decoded when read.

    Args:
        path: the file.
        name: name of the corpus; the file's own when empty.

    Raises:
        DataError: the file cannot be read.
    """

    def __init__(self, path: Path, name: str = "") -> None:
        self.path = Path(path)
        self.name = name or self.path.stem
        self._begins, self._sizes, self._numbers = array("q"), array("q"), array("q")
        try:
            with open(self.path, "rb") as file:
                begin = 0
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        self._begins.append(begin)
                        self._sizes.append(len(line))
                        self._numbers.append(number)
                    begin += len(line)
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}") from error

    def __len__(self) -> int:
        return len(self._begins)

    def __getitem__(self, index: int) -> Record:
        check_index(index, len(self))
        number = self._numbers[index]
        content = read_at(self.path, self._begins[index], self._sizes[index])
        try:
            text = content.decode("utf8")
        except UnicodeDecodeError as error:
            raise RecordError(f"{self.path}, line {number}: not valid UTF-8 at byte {error.start}") from error
        where = f"{self.path}, line {number}"
        return Record(f"{self.path.stem}:{number}", self.name, text=check_text(text, where))

    def image_source(self, index: int) -> ImageSource:
        check_index(index, len(self))
        raise RecordError(f"{self.path}: a text file has no images")


class PictureDataset(Dataset):
    """Picture files, each a sample without text.

    Args:
        files: the pictures.
        root: folder that sample names start from.
        name: name of the corpus.
    """

    def __init__(self, files: Sequence[Path], root: Path, name: str) -> None:
        self.name = name
        self._root = root
        # One string instead of a Path object each: image collections have millions of files.
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


class PromptDataset(Dataset):
    """Pseudo pairs: the text of a labelled image is its label in a sentence (UNIMO-2, section 4).

    All images of a class have the same `image_id`, so that none of them is taken for a mismatch of the
    sentence of another one.

    Args:
        labeled: images whose records have a `label_name`.
        prompt: the sentence, with `{}` in the place of the label.

    Raises:
        DataError: the prompt has no `{}`.
    """

    def __init__(self, labeled: Dataset, prompt: str) -> None:
        if prompt.count("{}") != 1:
            raise DataError(f"prompt {prompt!r}: expected one {{}} for the label, as in 'a photo of {{}}'")
        self.name = labeled.name
        self._labeled, self._prompt = labeled, prompt

    def __len__(self) -> int:
        return len(self._labeled)

    def __getitem__(self, index: int) -> Record:
        record = self._labeled[index]
        if not record.label_name:
            raise RecordError(f"sample {record.sample_id} has no name for its label {record.label!r}")
        text = self._prompt.replace("{}", record.label_name)
        return dataclasses.replace(record, text=text, image_id=f"{self.name}: {record.label_name}")

    def image_source(self, index: int) -> ImageSource:
        return self._labeled.image_source(index)


def find_pictures(folder: Path) -> list[Path]:
    """Picture files of a folder and its subfolders, sorted; hidden ones are left out, other files too."""
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
