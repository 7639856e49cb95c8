"""Karpathy's JSON of Flickr8k, Flickr30k and COCO to caption tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from unimo.data.prepare.writer import SCHEMAS, ArrowWriter, ImageFolder, Progress, Row, no_progress
from unimo.errors import DataError
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
        images: folder of the image files; for COCO that with `train2014` and `val2014`.
        name: first part of the file names; from the annotations when empty (Flickr30k: `f30k`).
        max_missing_rate: share of images that may be missing or broken.
        rows_per_file: images of one file; 0 means one file for each split.

    Raises:
        DataError: malformed annotations, too many missing images, or a full disk.
    """
    entries, dataset = _read_annotations(Path(annotations))
    folder = ImageFolder(images, "the image files", max_missing_rate)
    folder.check_present(_candidates(entry) for entry in entries)
    name = name or _SHORT_NAMES.get(dataset, dataset)
    summary: dict[str, Any] = {"source": str(annotations), "splits": {}}
    found = [split for split in SPLITS if any(entry["split"] == split for entry in entries)]
    for split in found:
        chosen = [entry for entry in entries if entry["split"] == split]
        stem = f"{name}_caption_karpathy_{split}"
        writer = ArrowWriter(out, stem, SCHEMAS["pairs"], rows_per_file)
        rows = _rows(progress(chosen, total=len(chosen), desc=stem))
        captions = folder.write(writer, rows, "caption")
        summary["splits"][split] = {"images": writer.rows, "captions": captions, "files": writer.file_names}
    return folder.finish(out, summary)


def _read_annotations(path: Path) -> tuple[list[Mapping[str, Any]], str]:
    content = read_json(path, DataError)
    if not isinstance(content, Mapping) or not isinstance(content.get("images"), list):
        raise DataError(f"{path} is not a Karpathy JSON: expected an object with a list `images`")
    entries = content["images"]
    for number, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or not {"filename", "split", "sentences"} <= set(entry):
            raise DataError(f"{path}: images[{number}] needs filename, split and sentences")
        if entry["split"] not in SPLITS:
            raise DataError(f"{path}: images[{number}] has split {entry['split']!r}, not one of {SPLITS}")
    if not entries:
        raise DataError(f"{path} lists no images")
    return entries, str(content.get("dataset") or path.stem.removeprefix("dataset_"))


def _candidates(entry: Mapping[str, Any]) -> tuple[str, ...]:
    name = str(entry["filename"])
    return (f"{entry['filepath']}/{name}", name) if entry.get("filepath") else (name,)


def _rows(entries: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    for entry in entries:
        captions = [str(sentence.get("raw", "")).strip() for sentence in entry["sentences"]]
        if captions := list(filter(None, captions)):
            columns = {"caption": captions, "image_id": str(entry["filename"]), "split": entry["split"]}
            yield _candidates(entry), columns
