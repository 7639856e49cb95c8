"""Visual Genome: its descriptions of regions and its two folders of pictures to a table of pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from unimo.data.checks import check_id, check_text
from unimo.data.prepare.broken import BrokenRecords
from unimo.data.prepare.writer import (
    TEXTS,
    ArrowWriter,
    ImageFolder,
    Progress,
    Row,
    check_folder,
    no_progress,
)
from unimo.data.splits import said_split
from unimo.errors import DataError, RecordError, shown
from unimo.files import read_json

T = TypeVar("T")
REGIONS, PICTURES = "region_descriptions.json", "image_data.json"
BOX = ("width", "height", "x", "y")
SCHEMA = pa.schema(
    {
        "image": pa.binary(),
        "caption": TEXTS,
        **dict.fromkeys(BOX, pa.list_(pa.int64())),
        "image_id": pa.string(),
    }
)
"""Columns of ViLT's table; the boxes, one of each caption, are read by nothing."""
_DIGITS = 18
"""Most digits of a number in quotes; all of these fit into 64 bits."""
_FOLDERS = ("VG_100K", "VG_100K_2")


class Picture(NamedTuple):
    """Identity of a picture of Visual Genome in the sets that it was taken from."""

    coco_id: int | None
    flickr_id: int | None


def prepare_vg(
    annotations: str | Path,
    images: str | Path,
    out: str | Path,
    held_out: Sequence[str | Path] = (),
    val_images: int = 0,
    max_missing_rate: float = 0.01,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Write `vg.arrow`, a row a picture with the phrases of its regions as captions, and `summary.json`.

    Args:
        annotations: folder of `region_descriptions.json`, and with `held_out` of `image_data.json`.
        images: folder of `VG_100K` and `VG_100K_2`, or one in which these lie in `images`.
        held_out: Karpathy's JSON files of COCO and Flickr30k: half of the pictures are of COCO, and those in
            the validation and test sets of these files are left out. None for all pictures, as ViLT, METER,
            BridgeTower, VLMo and UNIMO-2 (Table 6).
        val_images: number of pictures of `vg_val.arrow` (UNIMO, Table 5: 106K captions); the others are in
            `vg_train.arrow` then.
        max_missing_rate: share of images that may be missing or broken, and of regions that may be broken.

    Returns:
        The content of `summary.json`.

    Raises:
        DataError: missing files, too many broken regions or missing images, nothing left, or a full disk.
    """
    source = check_folder(annotations, REGIONS)
    broken = BrokenRecords(source, max_missing_rate)
    regions, empty = _read_regions(source / REGIONS, broken)
    broken.check()
    summary: dict[str, Any] = {"source": str(source), "captions_empty": empty, "splits": {}}
    kept = without_held_out(regions, source, held_out)
    if held_out:
        summary["images_held_out"] = len(regions) - len(kept)
    folder = ImageFolder(images, "VG_100K and VG_100K_2", max_missing_rate)
    for split, part in divide(kept, folder, val_images).items():
        writer = ArrowWriter(out, f"vg_{split}" if val_images else "vg", SCHEMA)
        rows = _rows(progress(part.items(), total=len(part), what=writer.stem))
        captions = folder.write(writer, split, rows, "caption", "pictures without a phrase")
        summary["splits"][split] = {"images": writer.rows, "captions": captions, "files": writer.file_names}
    return folder.finish(out, summary, broken)


def without_held_out(texts: dict[int, T], source: Path, held_out: Sequence[str | Path]) -> dict[int, T]:
    """Leave out the pictures in the validation and test sets of Karpathy's files.

    Args:
        texts: what there is of each picture.
        source: folder of `image_data.json`.
        held_out: Karpathy's files of COCO and Flickr30k; none leave all pictures.

    Raises:
        DataError: a file cannot be read, or is another one.
    """
    if not held_out:
        return texts
    known, taken = read_pictures(source / PICTURES), _held_out(held_out)
    return {image: found for image, found in texts.items() if not taken & _names(known.get(image))}


def divide(texts: dict[int, T], folder: ImageFolder, val_images: int) -> dict[str, dict[int, T]]:
    """Check that the pictures are there, and make the last ones val; all are train with `val_images=0`.

    Raises:
        DataError: too many are missing, or none are left to train on.
    """
    folder.check_present(("train", str(image), candidates(image)) for image in texts)
    if not val_images:
        return {"train": texts}
    if val_images >= len(texts):
        raise DataError(
            f"--val-images {val_images} of {len(texts)} pictures leaves none to train on; try 2000"
        )
    everything = list(texts.items())
    cut = len(everything) - val_images
    return {"train": dict(everything[:cut]), "val": dict(everything[cut:])}


def candidates(image: int) -> tuple[str, ...]:
    """Return where a picture may lie in the folder of images."""
    places = (f"{folder}/{image}.jpg" for folder in _FOLDERS)
    return tuple(f"{outer}{place}" for place in (*places, f"{image}.jpg") for outer in ("", "images/"))


def read_pictures(path: Path) -> dict[int, Picture]:
    """Read `image_data.json`: the numbers of pictures in COCO and in Flickr, where they have one.

    Raises:
        DataError: it cannot be read, or is another file.
    """
    content = read_json(path, DataError)
    pictures: dict[int, Picture] = {}
    for where, item in objects(content, path):
        image = whole_number(item.get("image_id", item.get("id")), f"{where}, 'image_id'")
        ids = (item.get(key) for key in ("coco_id", "flickr_id"))
        pictures[image] = Picture(*(None if value is None else whole_number(value, where) for value in ids))
    return pictures


def _names(picture: Picture | None) -> set[tuple[str, int]]:
    """Return the names of a picture, as `_held_out` gives them."""
    named = picture._asdict().items() if picture else ()
    return {(key.removesuffix("_id"), value) for key, value in named if value is not None}


def _held_out(paths: Iterable[str | Path]) -> set[tuple[str, int]]:
    """Return set and number of the pictures in the validation and test sets of Karpathy's files."""
    found = set()
    for path in map(Path, paths):
        content = read_json(path, DataError)
        for where, item in objects(content.get("images") if isinstance(content, Mapping) else None, path):
            split = said_split(item.get("split"), where)
            if split is None or split.name not in ("val", "test"):
                continue
            if "cocoid" in item:
                found.add(("coco", whole_number(item["cocoid"], f"{where}, 'cocoid'")))
            else:  # `1000092795.jpg` and, in Flickr8k, `1007129816_e794419615.jpg`
                name = str(item.get("filename")).partition(".")[0].partition("_")[0]
                found.add(("flickr", whole_number(name, f"{where}, 'filename'")))
    return found


def _read_regions(path: Path, broken: BrokenRecords) -> tuple[dict[int, dict[str, list]], int]:
    """Read the columns `caption` and `BOX` of each picture, and count the empty phrases."""
    by_image: dict[int, dict[str, list]] = {}
    empty = 0
    for where, item in objects(read_json(path, DataError), path):
        with broken.skipping():
            image, regions = (
                whole_number(item.get("id", item.get("image_id")), f"{where}, 'id'"),
                item.get("regions"),
            )
            if not isinstance(regions, list):
                raise RecordError(f"{where}: expected a list of regions, found {shown(regions)}")
            columns = by_image.setdefault(image, {name: [] for name in ("caption", *BOX)})
            for place, region in enumerate(regions):
                phrase = region.get("phrase") if isinstance(region, Mapping) else None
                if isinstance(phrase, str) and not phrase.strip():
                    empty += 1
                    continue
                with broken.skipping():
                    inner = f"{where}, regions[{place}]"
                    text = check_text(phrase, f"{inner}, 'phrase'")
                    box = [whole_number(region.get(key), f"{inner}, {key!r}") for key in BOX]
                    for name, value in zip(columns, (text, *box), strict=True):
                        columns[name].append(value)
    return {image: columns for image, columns in by_image.items() if columns["caption"]}, empty


def objects(content: Any, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the objects of a list, each with its place; others as empty ones.

    Raises:
        DataError: no list, or an empty one.
    """
    if not isinstance(content, list) or not content:
        raise DataError(f"{path}: expected a list of pictures, found {shown(content)}")
    for number, item in enumerate(content):
        yield f"{path}: [{number}]", item if isinstance(item, Mapping) else {}


def whole_number(value: object, where: str) -> int:
    """Return a number, also one in quotes.

    Raises:
        RecordError: anything else.
    """
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= _DIGITS:
        return int(value)
    number = check_id(value, where)
    if isinstance(number, str):
        raise RecordError(f"{where}: expected a number, found {shown(value)}")
    return number


def _rows(regions: Iterable[tuple[int, Mapping[str, list]]]) -> Iterator[Row]:
    for image, columns in regions:
        yield candidates(image), {**columns, "image_id": str(image)}
