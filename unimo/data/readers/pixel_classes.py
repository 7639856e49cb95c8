"""Segmentation: the names of the classes of pixels, and the class map of a record, checked against them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unimo.data.images.class_maps import NO_CLASS
from unimo.data.images.open import open_class_map
from unimo.data.readers.open import resolve_path
from unimo.data.record import Record
from unimo.data.scenes.dataset import pixel_classes
from unimo.errors import CheckpointError, DataError, RecordError, shown
from unimo.files import read_json
from unimo.settings import CorpusConfig, DataConfig

CLASSES = "classes.json"
"""File beside the tables: the list of names in the order of their numbers in the maps."""


def open_pixel_classes(corpora: Sequence[CorpusConfig], data: DataConfig) -> list[str]:
    """Return the classes of corpora, in the order of their numbers in the maps.

    Raises:
        DataError: a corpus has no `classes.json`, that is no list of names, or two corpora differ.
    """
    found: list[str] = []
    for corpus in corpora:
        if corpus.path == "scenes":
            names = pixel_classes()
        else:
            path = resolve_path(corpus, data)
            file = (path if path.is_dir() else path.parent) / CLASSES
            if not file.is_file():
                raise DataError(
                    f"no file {file.name} in {file.parent} for {path}: the names of the classes in the order "
                    "of their numbers in the maps; make it with tools/prepare_data.py ade20k, or use the "
                    "built-in corpus `scenes`"
                )
            names = check_names(read_json(file, DataError), file, DataError)
        if found and names != found:
            raise DataError(
                f"{corpus.path} has other classes than {corpora[0].path}: {', '.join(names[:5])} ...; "
                "the numbers in the maps would mean two things; train on one of them"
            )
        found = names
    return found


def check_names(names: object, where: object, kind: type[DataError] | type[CheckpointError]) -> list[str]:
    """Return the names of classes, in the order of their numbers.

    Raises:
        DataError, CheckpointError (`kind`): no list of 2 to 255 different names.
    """
    is_list = isinstance(names, list) and all(isinstance(name, str) and name.strip() for name in names)
    if not is_list or not 2 <= len(names) <= NO_CLASS or len(set(names)) < len(names):
        raise kind(
            f"{where}: expected a JSON list of 2 to {NO_CLASS} different names of classes, in the order of "
            f"their numbers, found {shown(names)}"
        )
    return names


def read_class_map(record: Record, size: tuple[int, int], classes: Sequence[str]) -> np.ndarray:
    """Return the class of each pixel of a record, uint8 [H, W], `NO_CLASS` for none.

    Args:
        size: width and height of the picture.

    Raises:
        RecordError: no map, a broken one, one of another size than its picture, or numbers of no class.
    """
    if record.class_map is None:
        raise RecordError(f"sample {record.sample_id} has no map of classes")
    classes_of = open_class_map(record.class_map)
    check_size(classes_of, size, f"sample {record.sample_id}")
    unknown = np.setdiff1d(classes_of, [*range(len(classes)), NO_CLASS])
    if unknown.size:
        raise RecordError(
            f"sample {record.sample_id}: the map has the numbers {', '.join(map(str, unknown[:5]))}, which "
            f"are no classes; expected 0 to {len(classes) - 1}, or {NO_CLASS} for none"
        )
    return classes_of


def check_size(class_map: np.ndarray, size: tuple[int, int], where: str) -> None:
    """Raise RecordError unless a map [H, W] has the width and height of its picture, `size`."""
    height, width = class_map.shape
    if (width, height) != size:
        raise RecordError(
            f"{where}: the map is {width} x {height} pixels, its picture {size[0]} x {size[1]}; they must be "
            "of one size: make the map anew, or scale it without mixing numbers"
        )
