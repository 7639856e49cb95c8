"""What all readers share: random access to records, to lines of a file, and to images with class labels."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from unimo.data.record import ImageSource, Record
from unimo.errors import DataError, RecordError
from unimo.files import decode, located_lines
from unimo.limits import LINE_BYTES

Kind = Literal["pairs", "vqa", "gqa", "entailment", "nlvr2", "texts", "images", "segmentation"]
KINDS: tuple[Kind, ...] = get_args(Kind)
QUESTIONS: tuple[Kind, ...] = ("vqa", "gqa")
"""Kinds of questions with answers; those of `gqa` have `Record.facts`, too."""


class Dataset(ABC):
    """A split of a corpus with random access. Reading a sample does not decode its image."""

    name: str
    """Name of the corpus, stored in every record; readers that get none take the stem of their file."""
    may_share = False
    """Whether another split may have pictures of this one, which `image_id` tells without reading them."""

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

    def sample_id(self, index: int) -> str:
        """Return `Record.sample_id` of one sample, by readers that know it of broken ones, too.

        Raises:
            RecordError: this sample is broken, and its id is not known without reading it.
        """
        return self[index].sample_id

    def said_splits(self) -> Sequence[object]:
        """Return what each sample says of its split itself; empty if none says any, and in most formats.

        Only files whose names say no split are asked. None stands for a sample that says none.
        """
        return ()

    def count_images(self) -> int | None:
        """Return the number of different images; None where only reading all samples would tell."""
        return None

    def count_texts(self) -> int:
        """Return the number of samples with a text."""
        return len(self)


class TextDataset(Dataset):
    """Base of the readers of texts without images."""

    def count_images(self) -> int:
        return 0

    def image_source(self, index: int) -> ImageSource:
        raise RecordError(f"{self.name} has no images")


class ConcatDataset(Dataset):
    """Several data sets one after the other, for a split in several files.

    Args:
        indices: samples of each data set that belong to this one; all of them when None.
    """

    def __init__(
        self, parts: Sequence[Dataset], name: str, indices: Sequence[Sequence[int] | np.ndarray] | None = None
    ) -> None:
        self.name, self._parts = name, list(parts)
        self.may_share = all(getattr(part, "may_share", False) for part in parts)
        self._indices = [range(len(part)) for part in parts] if indices is None else indices
        self._starts = np.cumsum([0] + [len(chosen) for chosen in self._indices])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _locate(self, index: int) -> tuple[Dataset, int]:
        """Return the data set of a sample, and its index there."""
        check_index(index, len(self))
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._parts[part], int(self._indices[part][index - int(self._starts[part])])

    def __getitem__(self, index: int) -> Record:
        part, within = self._locate(index)
        return part[within]

    def count_images(self) -> int | None:
        """Return the number of images if every part tells its own and belongs to this data set as a whole."""
        counts = [part.count_images() for part in self._parts]
        return None if None in counts or not self._is_whole() else sum(counts)

    def count_texts(self) -> int:
        if self._is_whole():
            return sum(part.count_texts() for part in self._parts)
        return sum(
            len(chosen) for part, chosen in zip(self._parts, self._indices, strict=True) if part.count_texts()
        )

    def _is_whole(self) -> bool:
        return len(self) == sum(map(len, self._parts))

    def image_source(self, index: int) -> ImageSource:
        part, within = self._locate(index)
        return part.image_source(within)

    def image_id(self, index: int) -> str:
        part, within = self._locate(index)
        return part.image_id(within)

    def sample_id(self, index: int) -> str:
        part, within = self._locate(index)
        return part.sample_id(within)


def concat(parts: Sequence[Dataset], name: str) -> Dataset:
    """Join datasets under a name; a single one is returned as it is."""
    return parts[0] if len(parts) == 1 else ConcatDataset(parts, name)


class WrappedDataset(Dataset):
    """Base of data sets that return the samples of another one in a changed form."""

    def __init__(self, whole: Dataset) -> None:
        self.name, self._whole = whole.name, whole

    def __len__(self) -> int:
        return len(self._whole)

    def count_images(self) -> int | None:
        return self._whole.count_images()

    def count_texts(self) -> int:
        return self._whole.count_texts()

    def image_source(self, index: int) -> ImageSource:
        return self._whole.image_source(index)


def check_index(index: int, length: int) -> None:
    """Raise IndexError unless 0 <= index < length."""
    if not 0 <= index < length:
        raise IndexError(f"sample {index} of {length}")


def read_at(path: Path, offset: int, size: int, limit: int) -> bytes:
    """Read `size` bytes at `offset`. Opens the file each time, so that thousands of shards need no handles.

    Raises:
        RecordError: the file is gone or too short, or more than `limit` bytes are asked for.
    """
    if size > limit:
        raise RecordError(f"{path}, byte {offset}: a sample of {size:,} bytes; the limit is {limit:,}")
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(offset)
            content = file.read(size)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RecordError(f"cannot read {path}: {reason}") from error
    if len(content) < size:
        raise RecordError(f"{path} ends at byte {offset + len(content)}, expected {offset + size}")
    return content


class LineFile:
    """The lines of a file, located when it is opened and read when asked for.

    Args:
        keep: decides by number (from 1) and content whether a line counts, called once for each line in
            order; lines with text when None.

    Raises:
        DataError: the file cannot be read.
    """

    def __init__(self, path: Path, keep: Callable[[int, bytes], bool] | None = None) -> None:
        self.path = path
        # Flat arrays: millions of small objects would cost gigabytes.
        self._begins, self._sizes, self._numbers = array("q"), array("q"), array("q")
        for number, (begin, line) in enumerate(located_lines(path), start=1):
            if keep(number, line) if keep else line.strip():
                self._begins.append(begin)
                self._sizes.append(len(line))
                self._numbers.append(number)

    def __len__(self) -> int:
        return len(self._begins)

    def where(self, index: int) -> str:
        """Return file and line number, for messages."""
        return f"{self.path}, line {self._numbers[index]}"

    def sample_id(self, index: int) -> str:
        """Return file stem and line number, for records."""
        return f"{self.path.stem}:{self._numbers[index]}"

    def content(self, index: int) -> bytes:
        """Read the bytes of one line.

        Raises:
            RecordError: the file is gone or shorter than it was.
        """
        return read_at(self.path, self._begins[index], self._sizes[index], LINE_BYTES)

    def text(self, index: int) -> str:
        """Read one line without its end.

        Raises:
            RecordError: not UTF-8.
        """
        return decode(self.content(index), self.where(index), RecordError).rstrip("\r\n")


class LabeledImages(Dataset):
    """Images without text whose `Record.label` is an index into `class_names`."""

    class_names: Sequence[str]
    """Names of the classes, in the order of the labels."""

    def count_images(self) -> int:
        return len(self)

    def count_texts(self) -> int:
        return 0


def spoken(class_name: str) -> str:
    """Return a class name in ordinary words: `polar_bear` becomes `polar bear`."""
    return class_name.replace("_", " ").strip()


class RelabeledImages(WrappedDataset, LabeledImages):
    """A data set with the labels of other classes; `class_of` has the new label of each old one."""

    def __init__(self, dataset: Dataset, class_names: Sequence[str], class_of: Sequence[int]) -> None:
        super().__init__(dataset)
        self.class_names, self._class_of = class_names, class_of

    def __getitem__(self, index: int) -> Record:
        record = self._whole[index]
        return dataclasses.replace(record, label=self._class_of[record.label])


def relabel(dataset: LabeledImages, class_names: Sequence[str]) -> LabeledImages:
    """Map the labels of a data set to `class_names`, by the names of its classes.

    Raises:
        DataError: it has classes that are not among them.
    """
    if list(dataset.class_names) == list(class_names):
        return dataset
    index_of = {name: index for index, name in enumerate(class_names)}
    unknown = [name for name in dataset.class_names if name not in index_of]
    if unknown:
        raise DataError(
            f"{dataset.name} has {len(unknown)} classes that the model does not know: "
            f"{', '.join(unknown[:5])}; its {len(class_names)} classes: {', '.join(class_names[:5])} ..."
        )
    return RelabeledImages(dataset, class_names, [index_of[name] for name in dataset.class_names])
