"""Karpathy's JSON of Flickr8k, Flickr30k and COCO to caption tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unimo.data.checks import check_path, check_text
from unimo.data.prepare.broken import BrokenRecords
from unimo.data.prepare.pictures import coco_2017
from unimo.data.prepare.writer import SCHEMAS, ArrowWriter, ImageFolder, Progress, Row, no_progress
from unimo.data.splits import said_split
from unimo.errors import DataError, RecordError, shown
from unimo.files import read_json

SPLITS = ("train", "restval", "val", "test")
_SHORT_NAMES = {"flickr30k": "f30k"}


def prepare_karpathy(
    annotations: str | Path,
    images: str | Path,
    out: str | Path,
    name: str = "",
    max_missing_rate: float = 0.01,
    rows_per_file: int = 0,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Write `<name>_caption_karpathy_<split>.arrow` for each split, and `summary.json`; return its content.

    Args:
        annotations: `dataset_flickr8k.json`, `dataset_flickr30k.json` or `dataset_coco.json`.
        images: folder of the image files; for COCO that with `train2014` and `val2014`, or `train2017` and
            `val2017`, which have the same pictures.
        name: first part of the file names; from the annotations when empty (Flickr30k: `f30k`).
        max_missing_rate: share of images that may be missing or broken, and of captions that may be broken.
        rows_per_file: images of one file; 0 means one file for each split.

    Raises:
        DataError: no annotations, too many broken or missing ones, a split without captions, or a full disk.
    """
    broken = BrokenRecords(annotations, max_missing_rate)
    entries, dataset, empty = _read_annotations(Path(annotations), broken)
    folder = ImageFolder(images, "the image files", max_missing_rate, refuse_shared=True)
    folder.check_present((entry.split, entry.image_id, entry.candidates) for entry in entries)
    name = name or _SHORT_NAMES.get(dataset, dataset)
    summary: dict[str, Any] = {"source": str(annotations), "splits": {}, "captions_empty": empty}
    found = [split for split in SPLITS if any(entry.split == split for entry in entries)]
    for split in found:
        chosen = [entry for entry in entries if entry.split == split]
        stem = f"{name}_caption_karpathy_{split}"
        writer = ArrowWriter(out, stem, SCHEMAS["pairs"], rows_per_file)
        rows = _rows(progress(chosen, total=len(chosen), what=stem))
        captions = folder.write(writer, split, rows, "caption", "images without a caption")
        summary["splits"][split] = {"images": writer.rows, "captions": captions, "files": writer.file_names}
    return folder.finish(out, summary, broken)


class _Entry(NamedTuple):
    """An image of the annotations."""

    split: str
    image_id: str
    """The file name; with its folder where another picture has the same one."""
    candidates: tuple[str, ...]
    """Paths at which the image may lie, in the order in which they are tried."""
    captions: list[str]


def _read_annotations(path: Path, broken: BrokenRecords) -> tuple[list[_Entry], str, int]:
    """Read the images with their captions, the name of the data set, and the number of empty captions."""
    if path.suffix == ".token":
        raise DataError(
            f"{path} has no splits; give Karpathy's dataset_flickr30k.json, or divide its pictures by hash: "
            f"tools/prepare_data.py jsonl --input {path} --images DIR"
        )
    content = read_json(path, DataError)
    if not isinstance(content, Mapping) or not isinstance(content.get("images"), list):
        raise DataError(
            f"{path} is not a Karpathy JSON: expected an object with a list `images`; for a list of "
            '{"image": ..., "caption": ...} try tools/prepare_data.py jsonl'
        )
    if not content["images"]:
        raise DataError(f"{path} lists no images")
    entries, empty = [], 0
    for number, item in enumerate(content["images"]):
        where = f"{path}: images[{number}]"
        with broken.skipping():
            entry = _read_entry(item, where)
            entries.append(entry)
            for place, sentence in enumerate(item["sentences"]):
                raw = sentence.get("raw") if isinstance(sentence, Mapping) else sentence
                if isinstance(raw, str) and not raw.strip():
                    empty += 1  # as in Flickr30k and COCO, where they are no fault
                    continue
                with broken.skipping():
                    entry.captions.append(check_text(raw, f"{where}, `raw` of sentence {place}"))
    broken.check()
    name = content.get("dataset")
    return (
        _told_apart(entries),
        name if isinstance(name, str) and name else path.stem.removeprefix("dataset_"),
        empty,
    )


def _read_entry(item: Any, where: str) -> _Entry:
    if not isinstance(item, Mapping) or not {"filename", "split", "sentences"} <= set(item):
        raise RecordError(f"{where} needs filename, split and sentences")
    split = said_split(item["split"], where)
    if split is None or split.name not in SPLITS:
        raise RecordError(f"{where} has split {shown(item['split'])}, not one of {SPLITS}")
    if not isinstance(item["sentences"], list):
        raise RecordError(f"{where}: expected a list of sentences, found {shown(item['sentences'])}")
    check_text(item["filename"], where)  # tables hold UTF-8, and file names need not
    name = check_path(item["filename"], where)
    folder = check_path(item["filepath"], where) if item.get("filepath") else ""
    candidates = (Path(folder, name).as_posix(), name) if folder else (name,)
    return _Entry(split.name, name, candidates, [])


def _told_apart(entries: list[_Entry]) -> list[_Entry]:
    """Name pictures by folder, too, where two have the same file name; add where COCO 2017 has them."""
    places: dict[str, set[str]] = {}
    for entry in entries:
        places.setdefault(entry.image_id, set()).add(entry.candidates[0])
    return [
        entry._replace(image_id=entry.candidates[0], candidates=entry.candidates[:1])
        if len(places[entry.image_id]) > 1
        else entry._replace(candidates=(*entry.candidates, *coco_2017(entry.image_id)))
        for entry in entries
    ]


def _rows(entries: Iterable[_Entry]) -> Iterator[Row]:
    for entry in entries:
        if entry.captions:
            columns = {"caption": entry.captions, "image_id": entry.image_id, "split": entry.split}
            yield entry.candidates, columns
