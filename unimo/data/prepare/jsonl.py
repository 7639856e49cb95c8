"""Own images and texts (jsonl lines) to checked Arrow tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from unimo.data.checks import check_text
from unimo.data.images.open import open_image
from unimo.data.prepare.broken import BrokenRecords
from unimo.data.prepare.pictures import Pictures
from unimo.data.prepare.writer import SCHEMAS, ArrowWriter, Progress, facts_columns, no_progress, write_json
from unimo.data.readers.answers import TRUTHS
from unimo.data.readers.arrow import PAIR_OF_IMAGES
from unimo.data.readers.base import QUESTIONS, ConcatDataset, Dataset, Kind, concat
from unimo.data.readers.divided import divide_by_hash, divide_by_records
from unimo.data.readers.jsonl import JsonlDataset
from unimo.data.record import Record, pair_id, picture_name
from unimo.data.splits import splits_of
from unimo.errors import DataError, RecordError
from unimo.files import checked_path, listed, read_bytes
from unimo.limits import IMAGE_BYTES

_CHECK_SIZE = 32
# Own images and questions have names, unlike the COCO numbers of VQA v2.
_NAMES = {"image_id": pa.string(), "question_id": pa.list_(pa.string())}
_SCHEMAS = SCHEMAS | {
    "vqa": pa.schema({column.name: _NAMES.get(column.name, column.type) for column in SCHEMAS["vqa"]})
}
_STEMS: dict[Kind, str] = {
    "pairs": "_caption",
    "vqa": "_vqa",
    "gqa": "_gqa",
    "entailment": "_entailment",
    "nlvr2": "_nlvr2",
}


def prepare_jsonl(
    source: str | Path,
    out: str | Path,
    kind: Kind = "pairs",
    name: str = "own",
    images: str | Path | None = None,
    min_count: int = 1,
    max_missing_rate: float = 0.01,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Write `<name>_<kind>_<split>.arrow` (pairs: `_caption_`), `summary.json`, of questions `answers.json`.

    Splits are those of the file names (`train.jsonl`, `val.jsonl`); if none names one, those that lines say
    under `split`; if none says one, images are split by hash: 90% train, 5% val, 5% test. Every line is read
    and every image decoded; broken ones are skipped, counted and listed with their line number in the
    summary, which is returned.

    Args:
        source: a jsonl file, or a folder of them (format: `docs/reference/records.md`).
        name: first part of the file names.
        images: folder that image paths are relative to; that of the file when None.
        min_count: questions: smallest number of questions of train and val whose answer becomes a class.
        max_missing_rate: share of samples that may be broken.

    Raises:
        DataError: no files, a picture with two ids, an id of two pictures, too many broken
            samples, a split of which no sample is left, or a full disk.
    """
    splits, are_named = _open_splits(Path(source), kind, None if images is None else Path(images))
    broken = BrokenRecords(source, max_missing_rate)
    pictures = Pictures()
    groups = {split: _group(data, kind, split, broken, pictures, progress) for split, data in splits.items()}
    broken.check()
    if not any(groups.values()):
        first = f"; the first: {broken.examples[0]}" if broken.examples else ""
        raise DataError(
            f"nothing of {source} is left: {broken.count} of {broken.read} samples are broken{first}"
        )
    labels = _vocabulary(groups, min_count) if kind in QUESTIONS else {}
    summary: dict[str, Any] = {"kind": kind, "splits": {}}
    rows = "pairs" if kind == "nlvr2" else "images"
    for split, group in groups.items():
        if kind in QUESTIONS and not split.startswith("test"):
            group = _with_classes(group, labels)
        stem, samples = f"{name}{_STEMS[kind]}_{split}", sum(map(len, group.values()))
        if not group and not are_named:  # few images dealt out by hash: none, or no sound one, is in val
            summary["splits"][split] = {rows: 0, "samples": 0, "files": []}
            (Path(out) / f"{stem}.arrow").unlink(missing_ok=True)
            continue
        with ArrowWriter(out, stem, _SCHEMAS[kind]) as writer:
            for records in progress(group.values(), total=len(group), what=f"write {split}"):
                row = _row(records, split, kind, labels)
                for column, picture in zip(_columns(kind), _pictures(records[0]), strict=True):
                    pictures.compare(split, row[column], picture.image_id)
                writer.write(row)
            writer.check_some(
                f"all {len(splits[split])} samples of {split} are broken"
                + (", or have no answer that is a class (--min-count)" if kind in QUESTIONS else "")
            )
        summary["splits"][split] = {rows: writer.rows, "samples": samples, "files": writer.file_names}
    summary |= {"images_in_two_splits": pictures.copies, "broken": broken.count, "examples": broken.examples}
    if kind in QUESTIONS:
        summary["answers"] = len(labels)
        write_json(Path(out) / "answers.json", list(labels))
    write_json(Path(out) / "summary.json", summary)
    return summary


def _open_splits(source: Path, kind: Kind, images: Path | None) -> tuple[dict[str, Dataset], bool]:
    """Open the data of each split, and return whether file names or lines name the splits."""
    source = checked_path(source, DataError, "the lines")
    files = listed(source, "*.jsonl") if source.is_dir() else [source]
    if not files:
        raise DataError(f"no *.jsonl file in {source}")
    named = splits_of([path.stem for path in files], source)
    opened = {path: JsonlDataset(path, kind, image_root=images) for path in files}
    if named:
        parts: dict[str, list[Dataset]] = {}
        for split, data in zip(named, opened.values(), strict=True):
            parts.setdefault(split.name, []).append(data)
        return {split: concat(datasets, "own") for split, datasets in parts.items()}, True
    said = divide_by_records(opened)
    division = said or divide_by_hash(opened)
    data = list(opened.values())
    return {split.label: ConcatDataset(data, "own", of_files) for split, of_files in division.items()}, bool(
        said
    )


def _group(
    data: Dataset, kind: Kind, split: str, broken: BrokenRecords, pictures: Pictures, progress: Progress
) -> dict[str, list[Record]]:
    """Group valid records by picture, in first-seen order; the others are counted in `broken`."""
    groups: dict[str, list[Record]] = {}
    for index in progress(range(len(data)), total=len(data), what=f"check {split}"):
        with broken.skipping():
            record = data[index]
            if kind in ("entailment", "nlvr2") and record.label is None:
                raise RecordError(f"{record.sample_id}: no label")
            if kind in QUESTIONS and not split.startswith("test") and not record.answer_scores:
                raise RecordError(f"{record.sample_id}: no answers")
            # Tables hold UTF-8, and file names need not.
            singles = _pictures(record)
            names = [check_text(one.image_id, f"{record.sample_id}, its image") for one in singles]
            for image_id, one in zip(names, singles, strict=True):
                pictures.add(split, image_id, one.image)
            # In a table the first of two pictures is the left one, so (a, b) and (b, a) are two rows.
            name = pair_id(*names) if len(names) > 1 else picture_name(names[0])
            if name not in groups:
                for source in record.images:
                    open_image(source, target=_CHECK_SIZE)
            groups.setdefault(name, []).append(record)
    return groups


def _columns(kind: Kind) -> tuple[str, ...]:
    return PAIR_OF_IMAGES if kind == "nlvr2" else ("image",)


def _pictures(record: Record) -> tuple[Record, ...]:
    """Return a record of each picture of a sample."""
    return tuple(map(record.picture, range(2))) if len(record.images) > 1 else (record,)


def _vocabulary(groups: Mapping[str, Mapping[str, list[Record]]], min_count: int) -> dict[str, int]:
    """Return the label of each frequent answer, in first-seen order over train and val."""
    learned = [group for split, group in groups.items() if not split.startswith("test")]
    records = (record for group in learned for of_image in group.values() for record in of_image)
    counts = Counter(answer for record in records for answer in record.answer_scores)
    answers = [answer for answer, count in counts.items() if count >= min_count]
    if not answers:
        raise DataError(f"no answer occurs {min_count} times or more; lower --min-count")
    return {answer: label for label, answer in enumerate(answers)}


def _with_classes(group: Mapping[str, list[Record]], labels: Mapping[str, int]) -> dict[str, list[Record]]:
    """Return the images and their questions with an answer that is a class."""
    kept = {
        image_id: [record for record in records if not labels.keys().isdisjoint(record.answer_scores)]
        for image_id, records in group.items()
    }
    return {image_id: records for image_id, records in kept.items() if records}


def _row(records: list[Record], split: str, kind: Kind, labels: Mapping[str, int]) -> dict[str, Any]:
    image_id = records[0].image_id
    images = zip(_columns(kind), records[0].images, strict=True)
    row: dict[str, Any] = {column: read_bytes(source, IMAGE_BYTES) for column, source in images}
    if kind == "nlvr2":
        return row | {
            "questions": [record.text for record in records],
            "answers": [TRUTHS[record.label] for record in records],
            "identifier": records[0].sample_id,
            "question_id": [str(record.question_id) for record in records],
        }
    if kind == "pairs":
        return row | {"caption": [r.text for r in records], "image_id": image_id, "split": split}
    if kind == "entailment":
        return row | {"sentences": [["", r.text] for r in records], "labels": [r.label for r in records]}
    scored = [(r, {a: s for a, s in r.answer_scores.items() if a in labels}) for r in records]
    facts = facts_columns([record.facts for record in records]) if kind == "gqa" else {}
    return (
        row
        | facts
        | {
            "questions": [record.text for record, _ in scored],
            "answers": [list(scores) for _, scores in scored],
            "answer_labels": [[labels[answer] for answer in scores] for _, scores in scored],
            "answer_scores": [list(scores.values()) for _, scores in scored],
            "image_id": image_id,
            "question_id": [str(record.question_id) for record, _ in scored],
            "split": split,
        }
    )
