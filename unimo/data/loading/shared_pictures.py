"""Pictures that are both trained on and held out, noticed when a run begins."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import numpy as np

from unimo.data.readers.base import Dataset
from unimo.data.record import picture_name
from unimo.data.splits import common, split_words
from unimo.errors import DataError, RecordError
from unimo.settings import CorpusConfig

logger = logging.getLogger(__name__)
_LOOKED_AT = 200_000
"""Samples of a split whose pictures are compared, spread evenly: one or two seconds."""
_HELD_OUT = ("val", "rest_val", "test")


def warn_of_shared_pictures(
    corpora: Iterable[tuple[CorpusConfig, Dataset]],
    open_split: Callable[[CorpusConfig, str], Dataset],
    trained: str,
) -> None:
    """Warn of pictures of a corpus that are trained on and in its validation or test split, too.

    They are told by their names (`picture_name`), in formats that have them without reading pictures.

    Args:
        corpora: corpora with what is trained on of them.
        open_split: opens another split of one.
        trained: splits that are trained on, joined by `+`; those that share samples with them are not
            looked at.
    """
    words = split_words(trained)
    for corpus, dataset in corpora:
        if not getattr(dataset, "may_share", False):
            continue
        names: set[str] = set()
        for split in _HELD_OUT:
            if common(split, words):
                continue
            try:
                held_out = open_split(corpus, split)
            except DataError:
                continue  # there is none, or its evaluation says what is wrong
            if getattr(held_out, "may_share", False):
                names = names or _names(dataset)
                _compare(names, _names(held_out), f"{corpus.name or dataset.name}, {split}")


def _compare(trained: set[str], held_out: set[str], where: str) -> None:
    if shared := trained & held_out:
        logger.warning(
            "%s: %d of %d pictures are trained on, too, e.g. %s; its scores say little about new pictures: "
            "take them out of one of the splits",
            *(where, len(shared), len(held_out), min(shared)),
        )


def _names(dataset: Dataset) -> set[str]:
    names = set()
    for index in np.unique(np.linspace(0, len(dataset) - 1, min(_LOOKED_AT, len(dataset))).astype(int)):
        try:
            names.add(picture_name(dataset.image_id(int(index))))
        except RecordError:
            continue  # the loader counts it
    return names
