"""Conceptual Captions: its TSV files of captions and addresses, and downloaded pictures, to tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unimo.data.prepare.broken import BrokenRecords
from unimo.data.prepare.web import ROWS_PER_FILE, WebCaptions, prepare_web, read_file_list
from unimo.data.prepare.writer import Progress, no_progress
from unimo.data.splits import read_split
from unimo.errors import DataError, RecordError, shown
from unimo.files import checked_path, decode, listed, read_lines

SPLITS = ("train", "val")
_COLUMNS = ("caption", "url")
_SCHEMES = ("http://", "https://")


def prepare_conceptual(
    annotations: str | Path,
    images: str | Path,
    out: str | Path,
    rows_per_file: int = ROWS_PER_FILE,
    max_missing_rate: float = 0.01,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Write `conceptual_caption_train_<n>.arrow`, `conceptual_caption_val_<n>.arrow` and `summary.json`.

    Args:
        annotations: `Train_GCC-training.tsv`, a folder with it and `Validation_GCC-*.tsv`, or one with
            `train_annot.json` and `val_annot.json` of ViLT's layout. Lines are a caption, a tab and an
            address; a first line that names these columns in whatever order (img2dataset needs one) and
            quotes as of CSV files are understood.
        images: folder of the pictures; see `unimo/data/prepare/web.py` for their names.
        rows_per_file: pictures of one table; 0 means one table a split.
        max_missing_rate: share of rows and of downloaded pictures that may be broken.

    Returns:
        The content of `summary.json`.

    Raises:
        DataError: no annotations, none of the pictures, too many broken rows or pictures, or a full disk.
    """
    path = checked_path(annotations, DataError, "the annotations")
    broken = BrokenRecords(path, max_missing_rate)
    splits = {
        split: read_file_list(file, broken) if file.suffix == ".json" else _read_lines_of(file, broken)
        for split, file in _files(path).items()
    }
    stems = {split: f"conceptual_caption_{split}" for split in SPLITS}
    return prepare_web(path, stems, splits, images, out, broken, rows_per_file, progress)


def _files(path: Path) -> dict[str, Path]:
    """Find the file of each split."""
    if not path.exists():
        raise DataError(f"no file or folder {path}; give Train_GCC-training.tsv, or the folder that has it")
    candidates = [path]
    if path.is_dir():
        candidates = listed(path, "*.tsv") or listed(path, "*_annot.json")
    found: dict[str, Path] = {}
    for file in candidates:
        split = read_split(file.stem)
        if split is None or split.name not in SPLITS:
            raise DataError(
                f"{file}: its name says neither train nor validation, as Train_GCC-training.tsv does"
            )
        if split.name in found:
            raise DataError(f"{path} has two files of {split.name}: {found[split.name].name} and {file.name}")
        found[split.name] = file
    if not found:
        raise DataError(f"no Train_GCC-training.tsv, Validation_GCC-*.tsv or train_annot.json in {path}")
    return {split: found[split] for split in SPLITS if split in found}


def _read_lines_of(path: Path, broken: BrokenRecords) -> WebCaptions:
    captions, order = WebCaptions(broken), (0, 1)
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            fields = [
                _unquoted(field) for field in decode(line, where, RecordError).rstrip("\r\n").split("\t")
            ]
        except RecordError as error:
            captions.skip(str(error))
            continue
        names = [field.strip().lower() for field in fields]
        if number == 1 and set(_COLUMNS) <= set(names):
            order = tuple(map(names.index, _COLUMNS))
        elif len(fields) > max(order) and fields[order[1]].strip().startswith(_SCHEMES):
            captions.add(fields[order[1]], fields[order[0]], where)
        else:
            captions.skip(f"{where}: expected a caption, a tab and an address, found {shown(fields)}")
    return captions


def _unquoted(field: str) -> str:
    """Return a field without the quotes that CSV files put around it, if they are such."""
    inner = field[1:-1]
    if len(field) > 1 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return field
