"""Splits of files whose names say none: what their records say, else the hash of their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from unimo.data.readers.base import ConcatDataset, Dataset
from unimo.data.readers.jsonl import HASHED_SPLITS, JsonlDataset, hash_split
from unimo.data.splits import Split, read_split, said_split, select, split_words
from unimo.errors import DataError, RecordError, SplitError

TRAIN = read_split("train")
Division = Mapping[Split, Sequence[np.ndarray]]
"""Each split, with the indices (int64, ascending) of its samples in each file."""


def divide_by_records(files: Mapping[Path, Dataset]) -> Division:
    """Divide the samples of files by the `split` that each says itself; empty if none says any.

    Samples that say none, or no name of a split, go to train, where reading them raises `RecordError`.

    Raises:
        DataError: one file says splits, and another does not.
    """
    said = {path: dataset.said_splits() for path, dataset in files.items()}
    if not any(map(len, said.values())):
        return {}
    if silent := next((path for path, values in said.items() if not len(values)), None):
        raise DataError(
            f"{silent}: neither its name nor its records say a split, and those of other files do; rename it "
            f"({silent.stem}_train{silent.suffix}), or give each record a `split`"
        )
    splits = [[_split_of(value) for value in values] for values in said.values()]
    found = dict.fromkeys(split for of_file in splits for split in of_file)
    return {
        split: [
            np.array([i for i, own in enumerate(of_file) if own == split], np.int64) for of_file in splits
        ]
        for split in found
    }


def _split_of(value: object) -> Split:
    try:
        return said_split(value, "") or TRAIN
    except RecordError:
        return TRAIN


def divide_by_hash(files: Mapping[Path, JsonlDataset]) -> Division:
    """Divide the pictures of each file by the hash of their names; see `hash_split`."""
    names = [dataset.image_names() for dataset in files.values()]  # parses the files
    return {read_split(split): [hash_split(of_file, split) for of_file in names] for split in HASHED_SPLITS}


def open_divided(
    files: Mapping[Path, Dataset], division: Division, split: str, name: str, where: Path
) -> Dataset:
    """Open one split of a division.

    Args:
        split: one of its splits, or several joined by `+`.
        name: name of the corpus.
        where: its path, for messages.

    Raises:
        DataError: no such split, or an empty one.
    """
    splits = list(division)
    chosen: set[int] = set()
    for word in split_words(split):
        places = select(splits, word)
        if not places:
            there = ", ".join(sorted(split.label for split in splits))
            raise SplitError(f"{where} has no split {word!r}; found: {there}")
        chosen.update(places)
    parts = zip(*(division[splits[place]] for place in sorted(chosen)), strict=True)
    indices = [np.sort(np.concatenate(of_file)) for of_file in parts]
    dataset = ConcatDataset(list(files.values()), name, indices)
    if len(dataset) == 0:
        raise SplitError(f"{where} has too few images for a split {split!r}: at least 3 are needed")
    return dataset
