"""ADE20K as the scene parsing benchmark distributes it (ADEChallengeData2016) to tables of segmentation."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unimo.data.images.class_maps import NO_CLASS, encode_class_map, reduce_zero_label
from unimo.data.images.open import open_class_map, open_image
from unimo.data.prepare.broken import BrokenRecords
from unimo.data.prepare.pictures import Pictures
from unimo.data.prepare.writer import (
    SCHEMAS,
    ArrowWriter,
    Progress,
    check_folder,
    no_progress,
    write_json,
)
from unimo.data.readers.image_folder import find_pictures
from unimo.data.readers.pixel_classes import CLASSES, check_names, check_size
from unimo.errors import DataError, RecordError
from unimo.files import decode, read_bytes, read_lines
from unimo.limits import IMAGE_BYTES

log = logging.getLogger(__name__)
NAMES = "objectInfo150.txt"
SPLITS = {"training": "train", "validation": "val"}
"""Folder of a split -> its name in the tables."""


def prepare_ade20k(
    source: str | Path,
    out: str | Path,
    max_missing_rate: float = 0.01,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Write `ade20k_train.arrow`, `ade20k_val.arrow`, `classes.json` and `summary.json`; return the last.

    A row is a picture as it is, and its map with classes that count from 0 and 255 for none
    (`reduce_zero_label`). Every picture and map is decoded and checked.

    Args:
        source: folder with `images/{training,validation}/*.jpg`, `annotations/{training,validation}/*.png`
            of the same names, and `objectInfo150.txt`.
        max_missing_rate: share of pictures whose map is missing, of another size or broken.

    Raises:
        DataError: missing folders or names, too many broken pictures, a split of which nothing is left, or a
            full disk.
    """
    folder = check_folder(source, f"images, annotations and {NAMES}")
    if not (folder / NAMES).is_file() and (folder / "ADEChallengeData2016").is_dir():
        folder = folder / "ADEChallengeData2016"
    classes = read_names(folder / NAMES)
    broken, pictures = BrokenRecords(folder, max_missing_rate), Pictures()
    summary: dict[str, Any] = {"classes": len(classes), "splits": {}}
    seen: dict[str, np.ndarray] = {}
    for place, split in SPLITS.items():
        images = check_folder(folder / "images" / place, f"the pictures of {split}")
        maps = check_folder(folder / "annotations" / place, f"the maps of {split}")
        files = find_pictures(images)
        if not files:
            raise DataError(f"{images} holds no pictures; unpack ADEChallengeData2016.zip again")
        pixels, shown = np.zeros(256, np.int64), np.zeros(256, np.int64)
        with ArrowWriter(out, f"ade20k_{split}", SCHEMAS["segmentation"]) as writer:
            rows = _rows(progress(files, total=len(files), what=writer.stem), maps, len(classes), broken)
            for path, content, class_map in rows:
                pictures.compare(split, content, path.stem)
                counts = np.bincount(class_map.ravel(), minlength=256)
                pixels, shown = pixels + counts, shown + (counts > 0)
                row = {"image": content, "class_map": encode_class_map(class_map), "image_id": path.stem}
                writer.write(row)
            _count_idle(maps, {path.stem for path in files}, broken)
            broken.check()
            writer.check_some("pictures without a sound map are left out")
        seen[split] = shown[: len(classes)]
        summary["splits"][split] = {
            "pictures": writer.rows,
            "pixels_without_class": round(float(pixels[NO_CLASS] / pixels.sum()), 4),
            "classes_seen": int(np.count_nonzero(seen[split])),
            "files": writer.file_names,
        }
    only = [name for name, t, v in zip(classes, seen["train"], seen["val"], strict=True) if v and not t]
    if only:
        log.warning("%d classes are in val and never in train: %s", len(only), ", ".join(only[:5]))
    summary |= {
        "classes_only_in_val": only,
        "images_in_two_splits": pictures.copies,
        "broken": broken.count,
        "examples": broken.examples[:5],
    }
    write_json(Path(out) / CLASSES, classes)
    write_json(Path(out) / "summary.json", summary)
    return summary


def read_names(path: Path) -> list[str]:
    """Return the names of the classes of `objectInfo150.txt`, the first word for each, by their numbers.

    Raises:
        DataError: no such file, or its rows are not numbered from 1.
    """
    if not path.is_file():
        raise DataError(f"no {path}; expected ADEChallengeData2016 as it is distributed, with {path.name}")
    rows = [decode(line, path, DataError).rstrip("\r\n").split("\t") for line in read_lines(path)]
    header, *rows = [row for row in rows if any(map(str.strip, row))] or [[]]
    columns = [column.strip() for column in header]
    if "Idx" not in columns or "Name" not in columns:
        raise DataError(f"{path}: expected a first row with Idx and Name and tabs between, found {columns}")
    number, name = columns.index("Idx"), columns.index("Name")
    full = []
    for place, row in enumerate(rows, start=1):
        if len(row) != len(columns) or row[number].strip() != str(place):
            raise DataError(f"{path}, class {place}: expected a row with the number {place}, found {row}")
        full.append(row[name].strip())
    short = [re.split("[,;]", each)[0].strip() for each in full]
    names = [each if short.count(each) == 1 else whole for each, whole in zip(short, full, strict=True)]
    return check_names(names, path, DataError)


def _rows(
    files: Any, maps: Path, classes: int, broken: BrokenRecords
) -> Iterator[tuple[Path, bytes, np.ndarray]]:
    """Yield file, bytes and map of each sound picture."""
    for path in files:
        found = None
        with broken.skipping():
            found = _read(path, maps / f"{path.stem}.png", classes)
        if found is not None:
            yield path, *found


def _read(path: Path, map_path: Path, classes: int) -> tuple[bytes, np.ndarray]:
    """Return the bytes of a picture and its map, whose classes count from 0.

    Raises:
        RecordError: either is missing or broken, they differ in size, or the map has numbers of no class.
    """
    if not map_path.is_file():
        raise RecordError(f"{path}: there is no map {map_path}")
    try:
        content, drawn = (read_bytes(each, IMAGE_BYTES) for each in (path, map_path))
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}") from error
    try:
        image, class_map = open_image(content), open_class_map(drawn)
    except RecordError as error:
        raise RecordError(f"{path}, {map_path}: {error}") from error
    check_size(class_map, image.size, str(map_path))
    if (most := int(class_map.max())) > classes:
        raise RecordError(f"{map_path} has the number {most}, which is no class; expected 0 to {classes}")
    return content, reduce_zero_label(class_map)


def _count_idle(maps: Path, names: set[str], broken: BrokenRecords) -> None:
    """Count maps without a picture as broken."""
    for path in sorted(maps.glob("*.png")):
        if path.stem not in names:
            with broken.skipping():
                raise RecordError(f"{path}: there is no picture of this map")
