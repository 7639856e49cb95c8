"""What every reader offers: random access to records, one sample a text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from unimo.data.record import ImageSource, Record
from unimo.errors import RecordError

Kind = Literal["pairs", "vqa", "entailment", "texts", "images"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Dataset(ABC):
    """A corpus split with random access. Reading a sample does not decode its image."""

    name: str
    """Name of the corpus, put into every record."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples: every caption, question or hypothesis counts as one."""

    @abstractmethod
    def __getitem__(self, index: int) -> Record:
        """Read one sample.

        Raises:
            RecordError: this sample is broken; the others can still be read.
            IndexError: `index` is outside 0 .. len - 1.
        """

    def __iter__(self) -> Iterator[Record]:
        """All samples in order; stops at the first broken one with its RecordError."""
        return (self[index] for index in range(len(self)))

    @abstractmethod
    def image_source(self, index: int) -> ImageSource:
        """The image of one sample, not decoded. Does not look at its text.

        Raises:
            RecordError: there is none.
        """

    def image_id(self, index: int) -> str:
        """`Record.image_id` of one sample; readers that know it without reading the image say so.

        Raises:
            RecordError: this sample is broken.
        """
        return self[index].image_id


class ConcatDataset(Dataset):
    """Several datasets one after the other, for a split that lies in several files."""

    def __init__(self, parts: Sequence[Dataset], name: str) -> None:
        self.name = name
        self._parts = list(parts)
        self._starts = np.cumsum([0] + [len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Record:
        part, within = self._locate(index)
        return part[within]

    def image_source(self, index: int) -> ImageSource:
        part, within = self._locate(index)
        return part.image_source(within)

    def image_id(self, index: int) -> str:
        part, within = self._locate(index)
        return part.image_id(within)

    def _locate(self, index: int) -> tuple[Dataset, int]:
        check_index(index, len(self))
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._parts[part], index - int(self._starts[part])


class SubsetDataset(Dataset):
    """Chosen samples of another dataset."""

    def __init__(self, whole: Dataset, indices: np.ndarray) -> None:
        self.name = whole.name
        self._whole = whole
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Record:
        check_index(index, len(self))
        return self._whole[int(self._indices[index])]

    def image_source(self, index: int) -> ImageSource:
        check_index(index, len(self))
        return self._whole.image_source(int(self._indices[index]))

    def image_id(self, index: int) -> str:
        check_index(index, len(self))
        return self._whole.image_id(int(self._indices[index]))


def check_index(index: int, length: int) -> None:
    """Raise IndexError unless 0 <= index < length."""
    if not 0 <= index < length:
        raise IndexError(f"sample {index} of {length}")


def check_text(text: object, where: str) -> str:
    """The text of a sample, without surrounding blanks.

    Raises:
        RecordError: not a string, or nothing in it.
    """
    if not isinstance(text, str):
        raise RecordError(f"{where}: expected a text, found {text!r}")
    if not text.strip():
        raise RecordError(f"{where}: the text is empty")
    return text.strip()


def read_at(path: Path, offset: int, size: int) -> bytes:
    """Read `size` bytes from `offset`. Opens the file anew, so that thousands of shards need no handles.

    Raises:
        RecordError: the file is gone or ends before that.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(offset)
            content = file.read(size)
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    if len(content) < size:
        raise RecordError(f"{path} ends at byte {offset + len(content)}, expected {offset + size}")
    return content
