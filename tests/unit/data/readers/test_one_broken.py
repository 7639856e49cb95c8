"""One broken entry of a file is one broken sample, wherever it stands; a file of nothing else is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from picture_files import write_pictures

from unimo.augment.corpus import Caption
from unimo.augment.retrieval_job import _file_entries
from unimo.augment.translation import FileTranslations
from unimo.data.readers.base import Dataset
from unimo.data.readers.generation import CoqaFile, SquadQuestions
from unimo.data.readers.glue import TASKS, GlueFile
from unimo.data.readers.jsonl import JsonlDataset
from unimo.errors import DataError, RecordError
from unimo.tasks.caption.data import read_references

NO_OBJECTS: tuple[Any, ...] = (None, 5, "a text", [], ["a"], {}, True, {"other": 1})
"""Values in a list that are no objects."""
STORY = {
    "id": "s",
    "story": "A dog runs.",
    "questions": [{"input_text": "Who?", "turn_id": 1}, {"input_text": "Why?", "turn_id": 2}],
    "answers": [{"input_text": "a dog", "turn_id": 1}, {"input_text": "it can", "turn_id": 2}],
}
QUESTION = {"id": "q", "question": "Who runs?", "answers": [{"text": "A dog"}]}
ARTICLE = {"paragraphs": [{"context": "A dog runs.", "qas": [QUESTION]}]}


def coqa(path: Path, entries: Sequence[Any]) -> Dataset:
    path.write_text(json.dumps({"data": entries}))
    return CoqaFile(path, "x")


def squad(path: Path, entries: Sequence[Any]) -> Dataset:
    path.write_text(json.dumps({"data": entries}))
    return SquadQuestions(path, "x")


def paragraphs(path: Path, entries: Sequence[Any]) -> Dataset:
    return squad(path, [{"paragraphs": entries}])


def questions(path: Path, entries: Sequence[Any]) -> Dataset:
    return paragraphs(path, [{"context": "A dog runs.", "qas": entries}])


def json_list(path: Path, entries: Sequence[Any]) -> Dataset:
    write_pictures(path.parent, ["1.jpg"])
    path.write_text(json.dumps(entries))
    return JsonlDataset(path, "pairs")


def glue(path: Path, entries: Sequence[Any]) -> Dataset:
    path.write_text("".join(f"{entry}\n" for entry in entries))
    return GlueFile(path, TASKS["sst2"], "x")


BAD_LINES = ("no label", "a\t2", "a\tnan", "a\t", "a\t1\tmore", "a\t0.0")
READERS: dict[str, tuple[Callable[[Path, Sequence[Any]], Dataset], Any, Sequence[Any]]] = {
    "stories": (coqa, STORY, (*NO_OBJECTS, STORY | {"answers": []}, STORY | {"story": None})),
    "articles": (squad, ARTICLE, (*NO_OBJECTS, {"paragraphs": 3}, {"paragraphs": [3]})),
    "paragraphs": (paragraphs, ARTICLE["paragraphs"][0], (*NO_OBJECTS, {"context": "a", "qas": "b"})),
    "questions": (questions, QUESTION, (*NO_OBJECTS, QUESTION | {"answers": [3]}, QUESTION | {"answers": 3})),
    "items": (json_list, {"image": "1.jpg", "caption": "a dog"}, NO_OBJECTS),
    "lines": (glue, "a dog\t1", BAD_LINES),
}
CASES = [(name, bad) for name, (_, _, several) in READERS.items() for bad in several]


@pytest.mark.parametrize(("name", "bad"), CASES)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_is_one_broken_sample(tmp_path: Path, name: str, bad: Any, place: int) -> None:
    opened, sound, _ = READERS[name]
    entries = [sound, sound]
    entries.insert(place, bad)
    path = tmp_path / ("train.json" if name != "lines" else "train.tsv")
    whole = len(opened(path, [sound, sound]))
    dataset, found, broken = opened(path, entries), [], []
    for index in range(len(dataset)):
        try:
            found.append(dataset[index])
        except RecordError as error:
            broken.append(str(error))
    assert len(found) == whole and len(broken) == 1 and "train." in broken[0]


@pytest.mark.parametrize(("name", "bad"), CASES)
def test_a_file_of_nothing_else_is_refused(tmp_path: Path, name: str, bad: Any) -> None:
    opened, _, _ = READERS[name]
    path = tmp_path / ("train.json" if name != "lines" else "train.tsv")
    with pytest.raises(DataError, match="broken|expected a JSON list of objects|no 'text'"):
        list(opened(path, [bad, bad]))


@pytest.mark.parametrize(
    "bad", [None, 5, "a", [], {}, {"input_text": 3}, {"input_text": "a", "turn_id": "x"}]
)
@pytest.mark.parametrize("key", ["questions", "answers"])
def test_a_broken_turn_spoils_those_behind_it(tmp_path: Path, key: str, bad: Any) -> None:
    story = STORY | {key: [STORY[key][0], bad]}
    dataset = coqa(tmp_path / "coqa-train-v1.0.json", [story, STORY])
    assert dataset[0].references and dataset[2].references and dataset[3].references
    if not (
        key == "answers" and isinstance(bad, dict) and "turn_id" in bad
    ):  # numbers of answers do not count
        with pytest.raises(RecordError, match="story 0, turn 2"):
            dataset[1]


TRANSLATION = {"id": "s", "text": "A hound runs", "via": "fr"}
LABELS = {"image_id": "1", "labels": ["dog"]}
NOTE = {"image_id": 1, "caption": "a dog"}


def translations(path: Path, rows: Sequence[Any]) -> int:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return len(FileTranslations(path, path.parent / "work")([Caption("s", "i", "A dog runs")])[0])


def detected(path: Path, rows: Sequence[Any]) -> int:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return len(list(_file_entries(path, lambda _: None, 0)))


def references(path: Path, rows: Sequence[Any]) -> int:
    path.write_text(json.dumps({"annotations": rows}))
    return len(read_references(path))


@pytest.mark.parametrize(
    ("read", "sound"), [(translations, TRANSLATION), (detected, LABELS), (references, NOTE)]
)
@pytest.mark.parametrize("bad", NO_OBJECTS)
@pytest.mark.parametrize("place", [0, 1])
def test_files_beside_the_data(
    tmp_path: Path,
    read: Callable[[Path, Sequence[Any]], int],
    sound: Any,
    bad: Any,
    place: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = [sound]
    rows.insert(place, bad)
    assert read(tmp_path / "file.json", rows) == 1 and caplog.text.count("skipped") == 1
    with pytest.raises(DataError, match="2 of 2 samples of .*file.json are broken"):
        read(tmp_path / "file.json", [bad, bad])
