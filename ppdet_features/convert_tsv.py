"""Conversion of a TSV file of the released format to a store."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ppdet_features.extract import file_digest
from ppdet_features.store_writer import StoreWriter
from unimo.data.regions.shard import Skipped, StoredImage, Widths, halve
from unimo.data.regions.tsv import TsvRegions
from unimo.errors import ConfigError, RecordError

Background = Literal["none", "first", "last"]
_KEPT = {"none": slice(None), "first": slice(1, None), "last": slice(None, -1)}


def convert_tsv(
    table: TsvRegions,
    folder: Path,
    classes: Sequence[str],
    background: Background,
    images_per_shard: int,
    max_bad_rate: float,
    progress: Callable[[int, int], Any],
) -> dict[str, int]:
    """Convert a TSV file to a store, or resume a killed conversion.

    Args:
        table: the open file.
        folder: to write to.
        classes: names of the classes, which may differ when the conversion is repeated; empty for
            `class 0`, ...
        background: column of the class probabilities that is the background, to leave out.
        images_per_shard: images per file.
        max_bad_rate: largest share of lines that may be skipped.
        progress: as for `extract`.

    Returns:
        Numbers of `images`, `regions` and `skipped`.

    Raises:
        ConfigError: the numbers of names and classes differ.
        DataError: the folder holds the work of another job, or too many lines are broken.
    """
    names = table.names()
    num_classes = len(range(table.num_classes)[_KEPT[background]])
    if classes and len(classes) != num_classes:
        raise ConfigError(
            f"{len(classes)} names of classes, but {table.path} has {num_classes} class probabilities "
            "(--background says whether one of them is the background)"
        )
    widths = Widths(table.feature_size, num_classes)
    job = {"tsv": file_digest(table.path), "order": table.order, "background": background}
    writer = StoreWriter(folder, job, len(names), images_per_shard, widths, {"classes": classes})
    missing = writer.missing()
    left = sum(len(writer.numbers(shard)) for shard in missing)
    with progress(len(names), len(names) - left) as bar:
        for shard in missing:
            numbers = writer.numbers(shard)
            writer.write(shard, [_convert(table, names[i], widths, background) for i in numbers])
            bar.update(len(numbers))
    return writer.finish(max_bad_rate)


def _convert(table: TsvRegions, name: str, widths: Widths, background: Background) -> StoredImage | Skipped:
    where = f"{table.path}, line {(table.find(name) or 0) + 1}"
    try:
        found = table.image(name)
        probs = found.regions.class_probs
        if probs is not None:
            probs = probs[:, _KEPT[background]]
            found = dataclasses.replace(
                found,
                regions=dataclasses.replace(found.regions, class_probs=probs),
                labels=probs.argmax(1).astype(np.int32),
                scores=probs.max(1),
            )
        return halve(found, widths)
    except RecordError as error:
        reason = str(error)
        return Skipped(name, reason if reason.startswith(where) else f"{where}: {reason}")
