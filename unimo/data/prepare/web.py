"""Captioned pictures of the web, SBU and Conceptual Captions: addresses, and what was downloaded from them.

A picture is found by its address where img2dataset wrote that into the json file beside it, else by the
number of its row, which is the name that ViLT's layout and img2dataset give it, else by its file name.
Addresses that occur in several rows are one picture with several captions. Many addresses are dead: pictures
that were never downloaded are counted, and are no fault.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from unimo.data.checks import check_text
from unimo.data.prepare.broken import BrokenRecords
from unimo.data.prepare.writer import SCHEMAS, ArrowWriter, ImageFolder, Progress, Row
from unimo.data.readers.image_folder import files_below
from unimo.data.splits import read_split
from unimo.errors import DataError, RecordError, shown
from unimo.files import listed, parse_json, read_bytes, read_json
from unimo.limits import LINE_BYTES

log = logging.getLogger(__name__)
ROWS_PER_FILE = 100_000
"""Pictures of one table, as in the tables of ViLT."""
_NO_PICTURES = (".json", ".txt", ".tar", ".parquet", ".tsv", ".csv", ".arrow")


class _Entry(NamedTuple):
    """Contents of the rows of one picture."""

    rows: list[int]
    """Their numbers, from 0."""
    captions: list[str]


class WebCaptions:
    """The captions of a split, by the addresses of their pictures, or by file names in lists of ViLT.

    Args:
        broken: counter of broken rows.
        are_files: whether pictures are named by their files.
    """

    def __init__(self, broken: BrokenRecords, are_files: bool = False) -> None:
        self.are_files, self.empty, self.rows = are_files, 0, 0
        self.pictures: dict[str, _Entry] = {}
        self._broken = broken

    def add(self, address: object, caption: object, where: str) -> None:
        """Add a row; a broken one is counted, and so is one with an empty caption."""
        number, self.rows = self.rows, self.rows + 1
        if isinstance(caption, str) and not caption.strip():
            self.empty += 1
            return
        with self._broken.skipping():
            text = check_text(caption, f"{where}, caption")
            name = check_text(address, f"{where}, {'file' if self.are_files else 'address'}")
            entry = self.pictures.setdefault(_base(name) if self.are_files else name, _Entry([], []))
            entry.rows.append(number)
            if text not in entry.captions:
                entry.captions.append(text)

    def skip(self, reason: str) -> None:
        """Count a broken row."""
        self.rows += 1
        with self._broken.skipping():
            raise RecordError(reason)


def read_file_list(path: Path, broken: BrokenRecords) -> WebCaptions:
    """Read a list of [file, caption], which ViLT keeps beside downloaded pictures.

    Raises:
        DataError: it cannot be read, or is no list.
    """
    content = read_json(path, DataError)
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list of [file, caption], found {shown(content)}")
    captions = WebCaptions(broken, are_files=True)
    for number, item in enumerate(content):
        where = f"{path}: [{number}]"
        if isinstance(item, list) and len(item) == 2:
            captions.add(*item, where)
        else:
            captions.skip(f"{where}: expected [file, caption], found {shown(item)}")
    return captions


def prepare_web(
    source: str | Path,
    stems: Mapping[str, str],
    splits: Mapping[str, WebCaptions],
    images: str | Path,
    out: str | Path,
    broken: BrokenRecords,
    rows_per_file: int,
    progress: Progress,
    val_images: int = 0,
) -> dict[str, Any]:
    """Write the tables of all splits, and `summary.json`; return its content.

    Args:
        source: the annotations, for the summary.
        stems: first part of the file names of each split.
        images: folder of the pictures; with several splits each has a subfolder that is named after it,
            unless all pictures have their addresses beside them.
        val_images: pictures at the end of `train` that go to `val` instead.

    Raises:
        DataError: no pictures, pictures with equal names, too many broken rows or pictures, or a full disk.
    """
    broken.check()
    folder = ImageFolder(images, "the downloaded pictures", broken.max_rate)
    places = _split_folders(folder.root, list(splits))
    found: dict[str, list[tuple[str, list[str]]]] = {}
    lost: dict[str, int] = {}
    for split, captions in splits.items():
        is_shared = len(splits) > 1 and places[split] == folder.root
        files = _Downloaded(folder, places[split], captions.are_files, is_shared, progress)
        found[split] = files.find_all(captions)
        lost[split] = len(captions.pictures) - len(found[split])
        log.info("%s: %d of %d pictures are there", split, len(found[split]), len(captions.pictures))
    if val_images:
        pictures = found["train"]
        if val_images >= len(pictures):
            raise DataError(
                f"--val-images {val_images}, and only {len(pictures)} pictures are there; try 1000"
            )
        found, lost = {"train": pictures[:-val_images], "val": pictures[-val_images:]}, {**lost, "val": 0}
    empty = sum(captions.empty for captions in splits.values())
    summary: dict[str, Any] = {"source": str(source), "captions_empty": empty, "splits": {}}
    for split, pictures in found.items():
        writer = ArrowWriter(out, stems[split], SCHEMAS["pairs"], rows_per_file)
        rows = _rows(progress(pictures, total=len(pictures), what=writer.stem), split)
        left_out = "rows without a caption or a downloaded picture"
        written = folder.write(writer, split, rows, "caption", left_out)
        summary["splits"][split] = {
            "images": writer.rows,
            "captions": written,
            "not_downloaded": lost[split],
            "files": writer.file_names,
        }
    return folder.finish(out, summary, broken)


def _rows(pictures: Iterable[tuple[str, list[str]]], split: str) -> Iterator[Row]:
    for path, captions in pictures:
        yield (path,), {"caption": captions, "image_id": path, "split": split}


def _split_folders(root: Path, splits: Sequence[str]) -> dict[str, Path]:
    """Return the folder of each split: the subfolder of that name, else, if there are none, `root`.

    Raises:
        DataError: no telling which subfolder is that of a split.
    """
    named: dict[str, list[Path]] = {}
    for path in listed(root):
        split = read_split(path.name) if path.is_dir() else None
        if split is not None:
            named.setdefault(split.name, []).append(path)
    if not named:
        return dict.fromkeys(splits, root)
    for split in splits:
        if len(folders := named.get(split, [])) != 1:
            seen = ", ".join(path.name for path in folders or sum(named.values(), []))
            raise DataError(f"{root}: expected one subfolder with the pictures of {split}, found {seen}")
    return {split: named[split][0] for split in splits}


class _Downloaded:
    """The pictures of a split, by their addresses, row numbers and file names.

    Args:
        images: all pictures, among which those with damaged notes are counted as broken ones.
        folder: that of the split.
        are_files: whether file names tell all, so that no address is read.
        is_shared: whether the folder has pictures of other splits, too: numbers and names say nothing then.
    """

    def __init__(
        self,
        images: ImageFolder,
        folder: Path,
        are_files: bool,
        is_shared: bool,
        progress: Progress,
    ) -> None:
        self.folder, self.are_files = folder, are_files
        self._of: dict[str | int, str] = {}
        self._other: dict[str | int, str] = {}
        """Further pictures of the same number or name."""
        paths = list(files_below(folder))
        notes = set() if are_files else {path for path in paths if path.endswith(".json")}
        files = sorted(path for path in paths if not path.lower().endswith(_NO_PICTURES))
        for path in progress(files, total=len(files), what=f"find {folder.name}"):
            name, beside = os.path.relpath(path, images.root), f"{os.path.splitext(path)[0]}.json"
            try:
                check_text(name)  # tables hold UTF-8, and file names need not
                address = _read_address(beside) if beside in notes else None
            except RecordError as error:
                images.broken[name] = str(error)
                continue
            if address:
                self._of.setdefault(address, name)
            elif not is_shared:
                for key in self._keys(_base(name)):
                    if self._of.setdefault(key, name) != name:
                        self._other[key] = name

    def _keys(self, base: str) -> tuple[str | int, ...]:
        """Return what a picture with this file name is found by: a number or, if it has none, the name."""
        return (int(base.partition(".")[0]),) if _is_number(base) and not self.are_files else (base,)

    def find_all(self, captions: WebCaptions) -> list[tuple[str, list[str]]]:
        """Return path and captions of each picture that is there.

        Raises:
            DataError: none is, or two have the name of one.
        """
        found = [
            (path, entry.captions)
            for address, entry in captions.pictures.items()
            if (path := self._find(address, entry.rows))
        ]
        if not found:
            first = next(iter(captions.pictures), "no row at all")
            raise DataError(
                f"none of {len(captions.pictures)} pictures is in {self.folder}, for example {first}; name "
                "files by the numbers of their rows (0000012, 00000/000000012.jpg), or keep the json files "
                "of img2dataset beside them, and put two splits into folders train and val (shards *.tar "
                "are read as they are: data.pairs=DIR)"
            )
        return found

    def _find(self, address: str, rows: Sequence[int]) -> str | None:
        base = _base(address)
        # A number at the end of an address is not that of a row.
        keys = (address,) if self.are_files else (address, *rows, *(() if _is_number(base) else (base,)))
        key = next((key for key in keys if key in self._of), None)
        if key in self._other:
            raise DataError(
                f"{self.folder}: no telling whether {self._of[key]} or {self._other[key]} is of "
                f"{shown(address)}; remove one of them"
            )
        return None if key is None else self._of[key]


def _is_number(name: str) -> bool:
    stem = name.partition(".")[0]
    return stem.isascii() and stem.isdecimal()


def _base(name: str) -> str:
    return PurePosixPath(name).name or name


def _read_address(path: str) -> str | None:
    """Return the address in the notes that img2dataset writes beside a picture, if they have one.

    Raises:
        RecordError: they cannot be read.
    """
    try:
        notes = parse_json(read_bytes(path, LINE_BYTES), path, RecordError)
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    address = notes.get("url") if isinstance(notes, Mapping) else None
    return address.strip() if isinstance(address, str) else None
