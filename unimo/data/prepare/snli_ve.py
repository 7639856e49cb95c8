"""SNLI-VE: its jsonl files and the images of Flickr30k to entailment tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unimo.data.prepare.writer import SCHEMAS, ArrowWriter, ImageFolder, Progress, check_folder, no_progress
from unimo.data.readers.jsonl import LABELS
from unimo.errors import DataError, RecordError
from unimo.files import parse_json

SPLITS = ("train", "dev", "test")


def prepare_snli_ve(
    annotations: str | Path,
    images: str | Path,
    out: str | Path,
    max_missing_rate: float = 0.01,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Write `snli_<split>.arrow` for train, dev and test, and `summary.json`; return its content.

    Lines without an agreed label (gold label `-`) are skipped.

    Args:
        annotations: folder of `snli_ve_train.jsonl`, `snli_ve_dev.jsonl`, `snli_ve_test.jsonl`.
        images: folder of the Flickr30k images, `<Flickr30K_ID>.jpg`.
        max_missing_rate: share of images that may be missing or broken.

    Raises:
        DataError: missing files, malformed lines, too many missing images, or a full disk.
    """
    source = check_folder(annotations, "snli_ve_train.jsonl, snli_ve_dev.jsonl, snli_ve_test.jsonl")
    files = {split: path for split in SPLITS if (path := source / f"snli_ve_{split}.jsonl").is_file()}
    if not files:
        raise DataError(f"no snli_ve_train.jsonl, snli_ve_dev.jsonl or snli_ve_test.jsonl in {source}")
    content = {split: _read_split(path) for split, path in files.items()}
    folder = ImageFolder(images, "the Flickr30k images", max_missing_rate)
    folder.check_present((f"{image}.jpg",) for many, _ in content.values() for image in many)
    summary: dict[str, Any] = {"splits": {}}
    for split, (by_image, unlabelled) in content.items():
        writer = ArrowWriter(out, f"snli_{split}", SCHEMAS["entailment"])
        items = progress(by_image.items(), total=len(by_image), desc=writer.stem)
        rows = (((f"{image}.jpg",), columns) for image, columns in items)
        sentences = folder.write(writer, rows, "labels")
        summary["splits"][split] = {
            "images": writer.rows,
            "sentences": sentences,
            "without_label": unlabelled,
            "files": writer.file_names,
        }
    return folder.finish(out, summary)


def _read_split(path: Path) -> tuple[dict[str, dict[str, list]], int]:
    """Read the columns `sentences` and `labels` of each image, and count the lines without label."""
    by_image: dict[str, dict[str, list]] = {}
    unlabelled = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                item = parse_json(line, where, RecordError)
                label = item["gold_label"]
                if label not in LABELS:
                    unlabelled += 1
                    continue
                sentences = [str(item["sentence1"]), str(item["sentence2"])]
                image = str(item["Flickr30K_ID"]).removesuffix(".jpg")
                columns = by_image.setdefault(image, {"sentences": [], "labels": []})
                columns["sentences"].append(sentences)
                columns["labels"].append(LABELS[label])
            except RecordError as error:
                raise DataError(str(error)) from error
            except (KeyError, TypeError) as error:
                raise DataError(f"{where}: not a line of SNLI-VE, {error} is missing") from error
    return by_image, unlabelled
