"""Pairs of pictures: tables of ViLT as they are, own lines, and what is no pair."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from picture_files import jpeg, write_pictures

from unimo.data.readers.arrow import ArrowDataset
from unimo.data.readers.base import Dataset
from unimo.data.readers.jsonl import JsonlDataset
from unimo.data.readers.open import find_splits, open_corpus
from unimo.errors import DataError, RecordError
from unimo.settings import CorpusConfig, DataConfig

# What ViLT's script writes: no id of a sentence, answers as words.
VILT: dict[str, list[Any]] = {
    "image_0": [jpeg(0), jpeg(2)],
    "image_1": [jpeg(1), jpeg(3)],
    "questions": [["Both dogs run.", "A dog sits."], ["Both dogs run."]],
    "answers": [["True", "False"], ["False"]],
    "identifier": ["dev-850-0", "dev-850-1"],
}


def write(path: Path, columns: dict[str, list[Any]]) -> Path:
    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return path


def opened(path: Path, split: str, kind: Any = "nlvr2") -> Dataset:
    return open_corpus(CorpusConfig(str(path)), split, kind, DataConfig())


def test_tables_of_vilt(tmp_path: Path) -> None:
    data = ArrowDataset(write(tmp_path / "nlvr2_dev.arrow", VILT), "nlvr2")
    assert (len(data), data.count_images(), data.count_texts()) == (3, 4, 3)
    assert [(r.text, r.label, r.question_id) for r in data] == [
        ("Both dogs run.", 1, "dev-850-0-0"),
        ("A dog sits.", 0, "dev-850-0-1"),
        ("Both dogs run.", 0, "dev-850-1-0"),
    ]
    assert data[1].images == (jpeg(0), jpeg(1)) and data[2].images == (jpeg(2), jpeg(3))
    assert data[2].picture(1).image == jpeg(3) and data[2].picture(1).image_id == "dev-850-1-img1.png"
    assert data[0].image_group == data[1].image_group != data[2].image_group
    assert data.image_id(0) == data[0].image_id
    with pytest.raises(RecordError, match="no single image"):
        data.image_source(0)


def test_tables_with_the_names_of_sentences(tmp_path: Path) -> None:
    columns = {**VILT, "question_id": [["dev-850-0-1", "dev-850-0-4"], ["dev-850-1-1"]]}
    data = ArrowDataset(write(tmp_path / "nlvr2_dev.arrow", columns), "nlvr2")
    assert [record.question_id for record in data] == ["dev-850-0-1", "dev-850-0-4", "dev-850-1-1"]


@pytest.mark.parametrize("gone", ["image_0", "image_1", "questions"])
def test_a_table_without_a_column_is_refused(tmp_path: Path, gone: str) -> None:
    path = write(tmp_path / "a.arrow", {name: values for name, values in VILT.items() if name != gone})
    with pytest.raises(DataError, match=f"no column {gone}"):
        ArrowDataset(path, "nlvr2")


def test_a_table_without_one_picture_of_a_pair_is_one_broken_record(tmp_path: Path) -> None:
    path = write(tmp_path / "a.arrow", {**VILT, "image_1": [jpeg(1), None]})
    data = ArrowDataset(path, "nlvr2")
    assert data[0].label == 1
    with pytest.raises(RecordError, match="row 1: the image has 0 bytes"):
        data[2]


@pytest.mark.parametrize("answers", [[["True", "maybe"], ["False"]], [["True"], ["False"]]])
def test_answers_that_are_none_are_broken_records(tmp_path: Path, answers: list[list[str]]) -> None:
    data = ArrowDataset(write(tmp_path / "a.arrow", {**VILT, "answers": answers}), "nlvr2")
    assert data[0].label == 1 and data[2].label == 0
    with pytest.raises(RecordError, match="neither true nor false|only 1 entries"):
        data[1]


def test_tables_beside_those_of_vqa(tmp_path: Path) -> None:
    """Both have a column `questions`."""
    vqa = {"image": [jpeg(0)], "questions": [["What?"]], "answers": [[["dog"]]]}
    vqa |= {"answer_labels": [[[0]]], "answer_scores": [[[1.0]]], "image_id": [1], "question_id": [[5]]}
    write(tmp_path / "vqav2_train.arrow", vqa)
    write(tmp_path / "nlvr2_train.arrow", VILT)
    assert [record.text for record in opened(tmp_path, "train", "vqa")] == ["What?"]
    assert len(opened(tmp_path, "train")) == 3


def test_splits_and_the_balanced_parts_of_them(tmp_path: Path) -> None:
    splits = ("train", "dev", "test1", "balanced_dev", "unbalanced_dev", "balanced_test1")
    for split in splits:
        write(tmp_path / f"nlvr2_{split}.arrow", {**VILT, "identifier": [f"{split}-1-0", None]})
    for split in splits:
        assert {r.question_id.split("-")[0] for r in list(opened(tmp_path, split))[:2]} == {split}
    assert opened(tmp_path, "val")[0].question_id.startswith("dev-")
    names = find_splits(CorpusConfig(str(tmp_path)), "nlvr2", DataConfig())
    assert {"dev", "test1", "balanced_dev", "balanced_test1"} <= set(names)


def lines(folder: Path, items: list[dict[str, Any]], name: str = "own.jsonl") -> Path:
    write_pictures(folder / "images", [f"{number}.jpg" for number in range(4)])
    (folder / name).write_text("\n".join(map(json.dumps, items)))
    return folder / name


PAIR = {"images": ["images/0.jpg", "images/1.jpg"], "text": "Both dogs run."}


def test_own_lines(tmp_path: Path) -> None:
    labels = [True, False, "True", "false", 1, 0, None]
    items = [{**PAIR, "label": label} for label in labels]
    items += [{**PAIR, "images": ["images/1.jpg", "images/0.jpg"], "label": True, "identifier": "x-1"}]
    data = JsonlDataset(lines(tmp_path, items), "nlvr2")
    assert [record.label for record in data] == [1, 0, 1, 0, 1, 0, None, 1]
    assert data[0].images == (tmp_path / "images/0.jpg", tmp_path / "images/1.jpg")
    assert [data[0].picture(side).image_id for side in (0, 1)] == ["images/0.jpg", "images/1.jpg"]
    assert (data[0].question_id, data[7].question_id) == ("own:1#0", "x-1")
    assert data[0].image_id != data[7].image_id and data[0].image_group == data[7].image_group


@pytest.mark.parametrize(
    "item",
    [
        {"image": "images/0.jpg", "text": "t", "label": True},
        {"images": ["images/0.jpg"], "text": "t", "label": True},
        {"images": "images/0.jpg", "text": "t", "label": True},
        {"images": ["images/0.jpg"] * 3, "text": "t", "label": True},
        {"images": ["images/0.jpg", None], "text": "t", "label": True},
        {"images": ["images/0.jpg", ""], "text": "t", "label": True},
        {"images": ["images/0.jpg", "images/none.jpg"], "text": "t", "label": True},
        {**PAIR, "label": "maybe"},
        {**PAIR, "label": 2},
        {**PAIR, "label": 1.0},
        {**PAIR, "label": [True]},
        {**PAIR, "text": " ", "label": True},
        {"images": PAIR["images"], "label": True},
        {**PAIR, "label": True, "identifier": ["a"]},
    ],
    ids=str,
)
def test_a_line_that_is_no_pair_is_one_broken_record(tmp_path: Path, item: dict[str, Any]) -> None:
    data = JsonlDataset(lines(tmp_path, [{**PAIR, "label": True}, item]), "nlvr2")
    assert data[0].label == 1
    with pytest.raises(RecordError, match="own.jsonl, line 2"):
        data[1]


def test_one_picture_is_named(tmp_path: Path) -> None:
    data = JsonlDataset(lines(tmp_path, [{"image": "images/0.jpg", "text": "t", "label": True}]), "nlvr2")
    with pytest.raises(RecordError, match="a list of two paths.*images/0.jpg"):
        data[0]


def test_files_that_name_no_split_are_divided_by_pairs(tmp_path: Path) -> None:
    items = [
        {"images": [f"images/{i}.jpg", f"images/{j}.jpg"], "text": "t", "label": True}
        for i in range(4)
        for j in range(4)
        for _ in range(2)
    ]
    path = lines(tmp_path, items)
    parts = [opened(path, split) for split in ("train", "val", "test")]
    assert sum(map(len, parts)) == 32 and all(map(len, parts))
    groups = [{record.image_group for record in part} for part in parts]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]


def test_shards_hold_no_pairs(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"no nlvr2 data: expected \*.arrow with a column `image_0`, \*.jsonl"
    ):
        opened(tmp_path, "train")
