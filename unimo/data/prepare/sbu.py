"""SBU captions: its list of addresses and captions, and downloaded pictures, to tables of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unimo.data.prepare.broken import BrokenRecords
from unimo.data.prepare.web import ROWS_PER_FILE, WebCaptions, prepare_web, read_file_list
from unimo.data.prepare.writer import Progress, no_progress
from unimo.errors import DataError, RecordError
from unimo.files import checked_path, decode, read_json, read_lines

FILES = (
    "sbu-captions-all.json",
    "SBU_captioned_photo_dataset_urls.txt",
    "SBU_captioned_photo_dataset_captions.txt",
    "annot.json",
)
"""Names in the order in which they are looked for in a folder; the third is read with the second."""


def prepare_sbu(
    annotations: str | Path,
    images: str | Path,
    out: str | Path,
    val_images: int = 0,
    rows_per_file: int = ROWS_PER_FILE,
    max_missing_rate: float = 0.01,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Write `sbu_0.arrow`, `sbu_1.arrow`, ... and `summary.json`; return the content of the last.

    Args:
        annotations: `sbu-captions-all.json` (`image_urls` and `captions`), `annot.json` of ViLT's layout, or
            a folder that has one of them, or the two files `SBU_captioned_photo_dataset_*.txt`.
        images: folder of the pictures; see `unimo/data/prepare/web.py` for their names. The last part of an
            address is a name, too.
        val_images: number of pictures of `sbu_val_0.arrow` (UNIMO, Table 5: 10K); the others are in
            `sbu_train_*.arrow` then.
        rows_per_file: pictures of one table; 0 means one table.
        max_missing_rate: share of rows and of downloaded pictures that may be broken.

    Raises:
        DataError: no annotations, none of the pictures, too many broken rows or pictures, or a full disk.
    """
    path = checked_path(annotations, DataError, "the annotations")
    if path.is_dir():
        found = next((path / name for name in FILES if (path / name).is_file()), None)
        if found is None:
            raise DataError(f"no {', '.join(FILES)} in {path}")
        path = found
    broken = BrokenRecords(path, max_missing_rate)
    captions = _read(path, broken)
    stems = {"train": "sbu_train" if val_images else "sbu", "val": "sbu_val"}
    return prepare_web(
        path, stems, {"train": captions}, images, out, broken, rows_per_file, progress, val_images
    )


def _read(path: Path, broken: BrokenRecords) -> WebCaptions:
    if path.name in FILES[1:3]:
        addresses, texts = (_read_lines(path.with_name(name)) for name in FILES[1:3])
        return _joined(addresses, texts, path, broken)
    content = read_json(path, DataError)
    if isinstance(content, list):
        return read_file_list(path, broken)
    lists = [content.get(key) if isinstance(content, Mapping) else None for key in ("image_urls", "captions")]
    if not all(isinstance(items, list) for items in lists):
        raise DataError(f"{path} is not of SBU: expected an object with lists `image_urls` and `captions`")
    return _joined(*lists, path, broken)


def _joined(addresses: Sequence[Any], texts: Sequence[Any], path: Path, broken: BrokenRecords) -> WebCaptions:
    if len(addresses) != len(texts):
        raise DataError(f"{path}: {len(addresses)} addresses and {len(texts)} captions; expected as many")
    captions = WebCaptions(broken)
    for number, (address, text) in enumerate(zip(addresses, texts, strict=True)):
        captions.add(address, text, f"{path}, row {number}")
    return captions


def _read_lines(path: Path) -> list[str | None]:
    """Read the lines of a text file; None for those that are not UTF-8, which are broken rows."""
    lines: list[str | None] = []
    for line in read_lines(path):
        try:
            lines.append(decode(line, path, RecordError).rstrip("\r\n"))
        except RecordError:
            lines.append(None)
    return lines
