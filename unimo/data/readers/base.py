"""The interface of all readers: random access to records, one sample for each text."""

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
    """A split of a corpus with random access. Reading a sample does not decode its image."""

    name: str
    """Name of the corpus, stored in every record; readers that get none take the stem of their file."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples: every caption, question or hypothesis counts as one."""

    @abstractmethod
    def __getitem__(self, index: int) -> Record:
        """Read one sample.

        Raises:
            RecordError: this sample is broken; the others can still be read.
            IndexError: `index` is outside 0 .. len - 1.
        """

    def __iter__(self) -> Iterator[Record]:
        """Iterate over all samples in order; the first broken one raises its RecordError."""
        return (self[index] for index in range(len(self)))

    @abstractmethod
    def image_source(self, index: int) -> ImageSource:
        """Return the image of one sample, not decoded, without reading its text.

        Raises:
            RecordError: there is none.
        """

    def image_id(self, index: int) -> str:
        """Return `Record.image_id` of one sample; overridden by readers that need not read the image.

        Raises:
            RecordError: this sample is broken.
        """
        return self[index].image_id


class TextDataset(Dataset):
    """Base of the readers of texts without images."""

    def image_source(self, index: int) -> ImageSource:
        raise RecordError(f"{self.name} has no images")


class LocatedDataset(Dataset):
    """Base of data sets whose samples are those of other data sets, in another order."""

    @abstractmethod
    def _locate(self, index: int) -> tuple[Dataset, int]:
        """Return the data set of a sample, and its index there."""

    def __getitem__(self, index: int) -> Record:
        part, within = self._locate(index)
        return part[within]

    def image_source(self, index: int) -> ImageSource:
        part, within = self._locate(index)
        return part.image_source(within)

    def image_id(self, index: int) -> str:
        part, within = self._locate(index)
        return part.image_id(within)


class ConcatDataset(LocatedDataset):
    """Several datasets one after the other, for a split in several files."""

    def __init__(self, parts: Sequence[Dataset], name: str) -> None:
        self.name = name
        self._parts = list(parts)
        self._starts = np.cumsum([0] + [len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _locate(self, index: int) -> tuple[Dataset, int]:
        check_index(index, len(self))
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._parts[part], index - int(self._starts[part])


def concat(parts: Sequence[Dataset], name: str) -> Dataset:
    """Join datasets under a name; a single one is returned as it is."""
    return parts[0] if len(parts) == 1 else ConcatDataset(parts, name)


class WrappedDataset(Dataset):
    """Base of data sets that return the samples of another one in a changed form."""

    def __init__(self, whole: Dataset) -> None:
        self.name, self._whole = whole.name, whole

    def __len__(self) -> int:
        return len(self._whole)

    def image_source(self, index: int) -> ImageSource:
        return self._whole.image_source(index)


class SubsetDataset(LocatedDataset):
    """Selected samples of another dataset."""

    def __init__(self, whole: Dataset, indices: np.ndarray) -> None:
        self.name, self._whole, self._indices = whole.name, whole, indices

    def __len__(self) -> int:
        return len(self._indices)

    def _locate(self, index: int) -> tuple[Dataset, int]:
        check_index(index, len(self))
        return self._whole, int(self._indices[index])


def check_index(index: int, length: int) -> None:
    """Raise IndexError unless 0 <= index < length."""
    if not 0 <= index < length:
        raise IndexError(f"sample {index} of {length}")


def check_text(text: object, where: str) -> str:
    """Return the text of a sample without surrounding blanks.

    Raises:
        RecordError: not a string, or an empty one.
    """
    if not isinstance(text, str):
        raise RecordError(f"{where}: expected a text, found {text!r}")
    if not text.strip():
        raise RecordError(f"{where}: the text is empty")
    return text.strip()


def read_at(path: Path, offset: int, size: int) -> bytes:
    """Read `size` bytes at `offset`. Opens the file each time, so that thousands of shards need no handles.

    Raises:
        RecordError: the file is gone or too short.
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
