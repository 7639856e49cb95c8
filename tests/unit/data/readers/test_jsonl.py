"""jsonl + folder: all forms of a line, broken lines, missing images, splits by hash."""

import json

import numpy as np
import pytest

from unimo.data.readers.jsonl import JsonlDataset, hash_split
from unimo.errors import DataError, RecordError


def folder(path, lines, name="train.jsonl", images=("1.jpg", "2.jpg")):
    (path / "images").mkdir(parents=True, exist_ok=True)
    for image in images:
        (path / "images" / image).write_bytes(image.encode())
    text = [
        line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=False).encode() for line in lines
    ]
    (path / name).write_bytes(b"\n".join(text))
    return path / name


def test_pairs(tmp_path):
    lines = [
        {"image": "images/1.jpg", "text": "Ein Hügel."},
        b"",
        {"image": "images/2.jpg", "texts": ["two", "zwei"], "image_id": "second"},
    ]
    data = JsonlDataset(folder(tmp_path, lines), "pairs", "own")
    assert [(r.text, r.image, r.image_id, r.sample_id) for r in data] == [
        ("Ein Hügel.", tmp_path / "images/1.jpg", "images/1.jpg", "train:1#0"),
        ("two", tmp_path / "images/2.jpg", "second", "train:3#0"),
        ("zwei", tmp_path / "images/2.jpg", "second", "train:3#1"),
    ]
    assert data.image_source(2) == tmp_path / "images/2.jpg"


def test_vqa(tmp_path):
    image = {"image": "images/1.jpg", "question": "What?"}
    lines = [
        image | {"answer": "dog"},
        image | {"answers": ["dog"] * 7 + ["cat"] * 2 + ["cow"], "question_id": 9},
        image | {"answers": {"dog": 1.0, "cat": 0.3}, "question_type": "animal"},
        image | {"answer": {"dog": 0.6}},
        image,
        image | {"answers": {"dog": 3}},
        image | {"answers": 3},
    ]
    data = JsonlDataset(folder(tmp_path, lines), "vqa")
    scores = [data[index].answer_scores for index in range(5)]
    assert scores == [
        {"dog": 1.0},
        {"dog": 1.0, "cat": 0.6, "cow": 0.3},
        {"dog": 1.0, "cat": 0.3},
        {"dog": 0.6},
        {},
    ]
    assert [data[i].question_id for i in (0, 1)] == ["train:1#0", 9]
    assert [data[i].question_type for i in (1, 2, 4)] == ["other", "animal", ""]
    for index, message in (
        (5, r"line 6: answer scores must lie in \(0, 1\]"),
        (6, "line 7: expected answers"),
    ):
        with pytest.raises(RecordError, match=message):
            data[index]


def test_entailment(tmp_path):
    lines = [
        {"image": "images/1.jpg", "text": "t", "label": label} for label in ("entailment", 1, "0", 3, True)
    ]
    data = JsonlDataset(folder(tmp_path, lines), "entailment")
    assert [data[0].label, data[1].label] == [2, 1]
    for index in (2, 3, 4):
        with pytest.raises(RecordError, match="is not one of contradiction, neutral, entailment"):
            data[index]


def test_broken_lines_are_named_by_number(tmp_path):
    lines = [
        b'{"image": "images/1.jpg", "text": "cut',
        b'{"image": "images/1.jpg", "text": "caf\xe9"}',
        [1, 2],
        {"image": "images/1.jpg"},
        {"text": "no image"},
        {"image": "images/none.jpg", "text": "missing file"},
        {"image": "images/1.jpg", "text": ""},
        {"image": "images/empty.jpg", "text": "zero bytes"},
        {"image": "images/1.jpg", "text": "fine"},
    ]
    path = folder(tmp_path, lines)
    (tmp_path / "images/empty.jpg").touch()
    data = JsonlDataset(path, "pairs")
    messages = [
        "not valid JSON",
        "UTF-8",
        "object",
        "no 'text'",
        "'image': a path",
        "cannot read",
        "empty",
        "0 bytes",
    ]
    for index, message in enumerate(messages):
        with pytest.raises(RecordError, match=message) as caught:
            data[index]
        assert f"{path}, line {index + 1}" in str(caught.value)
    assert data[8].text == "fine"


def test_annotations_without_images(tmp_path):
    path = folder(tmp_path, [{"image": f"images/{i}.jpg", "text": "t"} for i in range(50, 90)])
    with pytest.raises(DataError, match="annotations without images.*50.jpg and 19 others"):
        JsonlDataset(path, "pairs")
    with pytest.raises(DataError, match="cannot read"):
        JsonlDataset(tmp_path / "none.jsonl", "pairs")


def by_split(data):
    return {
        split: {data[int(i)].image_id for i in hash_split(data.image_names(), split)}
        for split in ("train", "val", "test")
    }


def test_hash_split_is_stable_and_disjoint(tmp_path):
    lines = [{"image": f"images/{i}.jpg", "texts": ["a", "b"]} for i in range(1000)]
    names = [f"{i}.jpg" for i in range(1000)]
    before = by_split(JsonlDataset(folder(tmp_path, lines[:800], images=names), "pairs"))
    after = by_split(JsonlDataset(folder(tmp_path, lines), "pairs"))
    assert sum(map(len, after.values())) == 1000
    assert 30 < len(after["val"]) < 70 and 30 < len(after["test"]) < 70
    for split in before:
        assert before[split] <= after[split]


@pytest.mark.parametrize(("count", "held_out"), [(1, 0), (2, 0), (3, 1), (20, 1)])
def test_hash_split_of_few_images(tmp_path, count, held_out):
    lines = [{"image": f"images/{i}.jpg", "text": "t"} for i in range(count)] + [b"broken"]
    data = JsonlDataset(folder(tmp_path, lines, images=[f"{i}.jpg" for i in range(count)]), "pairs")
    sizes = {split: len(hash_split(data.image_names(), split)) for split in ("train", "val", "test")}
    assert sizes["val"] >= held_out and sizes["test"] >= held_out and sizes["train"] >= 1
    assert count in hash_split(data.image_names(), "train").tolist()
    assert np.concatenate([hash_split(data.image_names(), s) for s in sizes]).size == count + 1
