"""NLVR2: its lists of sentences and its folders of pictures to tables of pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from unimo.data.checks import check_id, check_text
from unimo.data.prepare.broken import BrokenRecords
from unimo.data.prepare.writer import (
    SCHEMAS,
    ArrowWriter,
    ImageFolder,
    Names,
    Progress,
    Row,
    check_folder,
    no_progress,
)
from unimo.data.readers.answers import TRUTHS, check_truth
from unimo.data.readers.arrow import PAIR_OF_IMAGES
from unimo.data.splits import read_split
from unimo.errors import DataError, RecordError, shown
from unimo.files import parse_json, read_lines

SPLITS = ("train", "dev", "test1")
SHARES = ("balanced", "unbalanced")
LISTS = (*SPLITS, *(f"{share}_{split}" for share in SHARES for split in SPLITS[1:]))
"""Names of the files, without their suffix; those behind the splits are parts of dev and test1."""
Pairs = dict[str, dict[str, list[str]]]
"""Name of a pair of pictures -> columns `questions`, `answers`, `question_id`."""


def prepare_nlvr2(
    annotations: str | Path,
    images: str | Path,
    out: str | Path,
    max_missing_rate: float = 0.01,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Write `nlvr2_<list>.arrow` for each list that is there, and `summary.json`; return its content.

    A row is a pair of pictures with all its sentences, as in the tables of ViLT, METER and VLMo, which lack
    the column `question_id`, the identifiers of the samples.

    Args:
        annotations: folder of `train.json`, `dev.json`, `test1.json`; the lists of balanced and unbalanced
            samples beside them or in folders `balanced` and `unbalanced`.
        images: folder with `train/<directory>/`, `dev/` and `test1/`, or with these in `images/`.
        max_missing_rate: share of images that may be missing or broken, and of lines that may be broken.

    Raises:
        DataError: missing files, too many broken lines or missing images, a list of which nothing is left, or
            a full disk.
    """
    source = check_folder(annotations, "train.json, dev.json, test1.json")
    broken = BrokenRecords(source, max_missing_rate)
    directories: dict[str, str] = {}
    content: dict[str, Pairs] = {}
    for name in LISTS:
        places = (folder / f"{name}.json" for folder in (source, source / name.rpartition("_")[0]))
        if path := next(filter(Path.is_file, places), None):
            content[name] = _read_list(path, name, directories, broken)
    if not content:
        raise DataError(f"no {', '.join(f'{name}.json' for name in SPLITS)} in {source}")
    broken.check()
    folder = ImageFolder(images, "the images of NLVR2 (train, dev, test1)", max_missing_rate)
    folder.check_present(
        (name, candidates[0], candidates)
        for name, pairs in content.items()
        for pair in pairs
        for candidates in _candidates(pair, directories[pair]).values()
    )
    summary: dict[str, Any] = {"splits": {}}
    for name, pairs in content.items():
        writer = ArrowWriter(out, f"nlvr2_{name}", SCHEMAS["nlvr2"])
        rows = _rows(progress(pairs.items(), total=len(pairs), what=writer.stem), directories)
        sentences = folder.write(writer, name, rows, "questions", "broken lines are left out")
        summary["splits"][name] = {"pairs": writer.rows, "sentences": sentences, "files": writer.file_names}
    return folder.finish(out, summary, broken)


def _rows(pairs: Iterable[tuple[str, Mapping[str, Any]]], directories: Mapping[str, str]) -> Iterator[Row]:
    for pair, columns in pairs:
        yield _candidates(pair, directories[pair]), {**columns, "identifier": pair}


def _candidates(pair: str, directory: str) -> dict[str, Names]:
    """Return where the pictures of a pair may lie, by their columns."""
    names = ((column, f"{directory}/{pair}-img{side}.png") for side, column in enumerate(PAIR_OF_IMAGES))
    return {column: (name, f"images/{name}") for column, name in names}


def _read_list(path: Path, name: str, directories: dict[str, str], broken: BrokenRecords) -> Pairs:
    """Read the sentences of each pair of pictures, and note the folder of these."""
    pairs: Pairs = {}
    seen: set[str] = set()
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        with broken.skipping():
            where = f"{path}, line {number}"
            identifier, directory, sentence, answer = _read_line(line, where)
            if read_split(directory.partition("/")[0]).name != read_split(name).name:
                raise RecordError(f"{where}: {shown(identifier)} is not of {name}; move it to its own file")
            if identifier in seen:
                raise RecordError(f"{where}: {shown(identifier)} stands there twice; leave one of them out")
            seen.add(identifier)
            pair = identifier.rpartition("-")[0]
            directories[pair] = directory
            columns = pairs.setdefault(pair, {"questions": [], "answers": [], "question_id": []})
            for column, value in zip(columns, (sentence, answer, identifier), strict=True):
                columns[column].append(value)
    return pairs


def _read_line(line: bytes, where: str) -> tuple[str, str, str, str]:
    """Return identifier, folder of the pictures, sentence and answer.

    Raises:
        RecordError: not a line of NLVR2.
    """
    item = parse_json(line, where, RecordError)
    if not isinstance(item, Mapping):
        raise RecordError(f"{where}: expected a JSON object, found {shown(item)}")
    for key in ("identifier", "sentence", "label"):
        if key not in item:
            raise RecordError(f"{where}: not a line of NLVR2, {key!r} is missing")
    identifier = str(check_id(item["identifier"], f"{where}, 'identifier'"))
    split, *numbers = identifier.split("-")
    if split not in SPLITS or len(numbers) != 3 or not all(number.isdecimal() for number in numbers):
        expected = f"{', '.join(SPLITS)} with the numbers of set, pair and sentence, such as dev-850-0-1"
        raise RecordError(f"{where}: identifier {shown(identifier)}; expected {expected}")
    label = check_truth(item["label"], where)
    if label is None:
        raise RecordError(f"{where}: no label; expected True or False")
    inner = item.get("directory")  # of train alone, whose pictures lie in numbered folders
    folder = split if inner is None else f"{split}/{check_id(inner, f'{where}, directory')}"
    return identifier, folder, check_text(item["sentence"], f"{where}, 'sentence'"), TRUTHS[label]
