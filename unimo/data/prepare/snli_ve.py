"""SNLI-VE: its jsonl files and the images of Flickr30k to entailment tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unimo.data.checks import check_id, check_text
from unimo.data.prepare.broken import BrokenRecords
from unimo.data.prepare.writer import SCHEMAS, ArrowWriter, ImageFolder, Progress, check_folder, no_progress
from unimo.data.readers.answers import LABELS
from unimo.data.splits import Split, check_said_split, read_split, select
from unimo.errors import DataError, RecordError, shown
from unimo.files import listed, parse_json, read_lines

SPLITS = ("train", "dev", "test")
NO_LABEL = "-"
"""Gold label of lines on which the annotators did not agree."""
GOLD_LABELS = (*LABELS, NO_LABEL)


def prepare_snli_ve(
    annotations: str | Path,
    images: str | Path,
    out: str | Path,
    max_missing_rate: float = 0.01,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Write `snli_<split>.arrow` for train, dev and test, and `summary.json`; return its content.

    Lines without an agreed label (gold label `-`) are left out; other labels are broken records.

    Args:
        annotations: folder of `snli_ve_train.jsonl`, `snli_ve_dev.jsonl`, `snli_ve_test.jsonl`.
        images: folder of the Flickr30k images, `<Flickr30K_ID>.jpg`.
        max_missing_rate: share of images that may be missing or broken, and of lines that may be broken.

    Raises:
        DataError: missing files, too many broken lines or missing images, a split of which nothing is left,
            or a full disk.
    """
    source = check_folder(annotations, "snli_ve_train.jsonl, snli_ve_dev.jsonl, snli_ve_test.jsonl")
    files = _files(source)
    if not files:
        raise DataError(f"no snli_ve_train.jsonl, snli_ve_dev.jsonl or snli_ve_test.jsonl in {source}")
    broken = BrokenRecords(source, max_missing_rate)
    content = {split: _read_split(path, broken) for split, path in files.items()}
    broken.check()
    folder = ImageFolder(images, "the Flickr30k images", max_missing_rate)
    folder.check_present(
        (split, image, (f"{image}.jpg",)) for split, (by_image, _) in content.items() for image in by_image
    )
    summary: dict[str, Any] = {"splits": {}}
    for split, (by_image, unlabelled) in content.items():
        writer = ArrowWriter(out, f"snli_{split}", SCHEMAS["entailment"])
        items = progress(by_image.items(), total=len(by_image), what=writer.stem)
        rows = (((f"{image}.jpg",), columns) for image, columns in items)
        left_out = f"lines without an agreed label ({NO_LABEL}, {unlabelled} of {split}), broken lines"
        sentences = folder.write(writer, split, rows, "labels", left_out)
        summary["splits"][split] = {
            "images": writer.rows,
            "sentences": sentences,
            "without_label": unlabelled,
            "files": writer.file_names,
        }
    return folder.finish(out, summary, broken)


def _files(folder: Path) -> dict[str, Path]:
    """Find the file of each split that is there."""
    paths = listed(folder, "*.jsonl")
    known = [(path, split) for path in paths if (split := read_split(path.stem))]
    files = {}
    for split in SPLITS:
        found = [known[place][0] for place in select([split for _, split in known], split)]
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise DataError(f"{folder} has several files of {split}: {names}; leave one of them there")
        files |= dict.fromkeys([split], found[0]) if found else {}
    return files


def _read_split(path: Path, broken: BrokenRecords) -> tuple[dict[str, dict[str, list]], int]:
    """Read the columns `sentences` and `labels` of each image, and count the lines without label."""
    by_image: dict[str, dict[str, list]] = {}
    unlabelled, split = 0, read_split(path.stem)
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        with broken.skipping():
            image, sentences, label = _read_line(line, split, f"{path}, line {number}")
            if label is None:
                unlabelled += 1
                continue
            columns = by_image.setdefault(image, {"sentences": [], "labels": []})
            columns["sentences"].append(sentences)
            columns["labels"].append(label)
    return by_image, unlabelled


def _read_line(line: bytes, split: Split | None, where: str) -> tuple[str, list[str], int | None]:
    """Return image, premise and hypothesis, and label; None for the label of a line without one.

    Raises:
        RecordError: not a line of SNLI-VE.
    """
    item = parse_json(line, where, RecordError)
    if not isinstance(item, Mapping):
        raise RecordError(f"{where}: expected a JSON object, found {shown(item)}")
    check_said_split(item.get("split"), split, where)
    for key in ("gold_label", "sentence1", "sentence2", "Flickr30K_ID"):
        if key not in item:
            raise RecordError(f"{where}: not a line of SNLI-VE, {key!r} is missing")
    label = item["gold_label"]
    if label not in GOLD_LABELS:
        expected = ", ".join(GOLD_LABELS)
        raise RecordError(f"{where}: unknown label {shown(label)}; expected {expected} ({NO_LABEL}: none)")
    sentences = [check_text(item[key], f"{where}, {key!r}") for key in ("sentence1", "sentence2")]
    image = str(check_id(item["Flickr30K_ID"], f"{where}, 'Flickr30K_ID'")).removesuffix(".jpg")
    return image, sentences, LABELS.get(label)
