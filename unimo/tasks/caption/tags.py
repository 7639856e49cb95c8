"""Object tags, which captions are written behind in the releases of UNIMO and UNIMO-2: what a detector saw.

The file is theirs: a line for each image, `image ; token ids ; sentence ids ; position ids`, numbers
separated by spaces. Tokens and positions are taken as they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from unimo.data.prepare.broken import MOST, BrokenRecords
from unimo.data.readers.base import Dataset
from unimo.data.record import Record
from unimo.errors import DataError, RecordError
from unimo.files import read_text
from unimo.limits import JSON_BYTES
from unimo.tasks.caption.batches import NO_TAGS, Tags
from unimo.tasks.caption.data import ImageId, result_image_id

LOOKED_AT = 1000
"""Samples of a data set that are looked at to see whether it has tags."""


def tag_key(image_id: ImageId) -> ImageId:
    """Return the name by which the tags of an image are found: a number, where its file name is one."""
    name = result_image_id(image_id)
    stem = str(name).rpartition("/")[2].partition(".")[0]
    return int(stem) if stem.isdecimal() else name


def find_tags(found: Mapping[ImageId, Tags], record: Record) -> Tags:
    """Return the tags of a record's image, of those that `read_tags` found; an image may have none."""
    return found.get(tag_key(record.image_id), NO_TAGS)


def check_tags(found: Mapping[ImageId, Tags], dataset: Dataset) -> Dataset:
    """Return a data set of which at least one of the first images has tags.

    Raises:
        DataError: none has; names of images and of tags are probably of two kinds.
    """
    names = []
    for index in range(min(LOOKED_AT, len(dataset))):
        with contextlib.suppress(RecordError):  # the loader counts broken samples
            names.append(dataset.image_id(index))
    if names and not any(tag_key(name) in found for name in names):
        raise DataError(
            f"task.tags has none for the first {len(names)} samples of {dataset.name}, e.g. image "
            f"{names[0]!r}; images in it: {', '.join(map(str, list(found)[:3]))}, ... Give the file of this "
            "corpus"
        )
    return dataset


def read_tags(path: str | Path, most: int, vocabulary: int, rows: int) -> dict[ImageId, Tags]:
    """Read a file of object tags.

    Args:
        path: the file.
        most: tokens of an image that are kept, the first ones.
        vocabulary: number of token ids.
        rows: number of rows of the position table.

    Returns:
        Tags by `tag_key` of the image.

    Raises:
        DataError: the file cannot be read, or more than half of its lines have another form, or numbers that
            the model has not.
    """
    found: dict[ImageId, Tags] = {}
    lines = read_text(path, JSON_BYTES, DataError, "task.tags").splitlines()
    broken = BrokenRecords(f"task.tags {path}", MOST, "")
    for number, line in enumerate(lines, start=1):
        with broken.skipping():
            name, tokens, positions = _read_line(line, vocabulary, rows, f"task.tags {path}, line {number}")
            found[tag_key(name)] = (tokens[:most], positions[:most])
    broken.check()
    if not found:
        raise DataError(f"task.tags {path} is empty; give the file of the release, or leave the option out")
    return found


def _read_line(line: str, vocabulary: int, rows: int, where: str) -> tuple[str, np.ndarray, np.ndarray]:
    """Return image, token ids and position ids of a line.

    Raises:
        RecordError: it has another form, or numbers that the model has not.
    """
    try:
        name, ids, _, places = line.split(";")
        tokens, positions = (np.array(field.split(), np.int32) for field in (ids, places))
    except (ValueError, OverflowError) as error:
        raise RecordError(
            f"{where}: expected `image ; token ids ; sentence ids ; position ids`, found {line!r:.120}"
        ) from error
    limits = ((tokens, vocabulary), (positions, rows))
    fits = all(not len(part) or 0 <= part.min() <= part.max() < limit for part, limit in limits)
    if len(tokens) != len(positions) or not fits:
        raise RecordError(
            f"{where}: expected as many token ids, below {vocabulary}, as position ids, below {rows}; found "
            f"{line!r:.120}"
        )
    return name.strip(), tokens, positions
