"""Answers, scores and classes of VQA: what contradicts itself is a broken record or an error."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pytest
from picture_files import jpeg, write_pictures

from unimo.data.readers.answers import check_classes, check_label
from unimo.data.readers.arrow import ArrowDataset
from unimo.data.readers.jsonl import JsonlDataset
from unimo.data.readers.open import open_answers
from unimo.data.readers.tar import TarDataset
from unimo.errors import DataError, RecordError
from unimo.settings import CorpusConfig, DataConfig

NAN = float("nan")
RIGHT = {"yes": 1.0, "no": 0.3}
BAD_SCORES = [0, -0.3, 1.001, 2, 10, NAN, float("inf"), 1e300]
BAD_NAMES = ["", " ", "\u200b", "a\0b"]


def jsonl(folder, questions):
    write_pictures(folder, ["a.jpg"])
    lines = [json.dumps({"image": "a.jpg", "question": "q", "answers": answers}) for answers in questions]
    (folder / "train.jsonl").write_text("\n".join(lines))
    return JsonlDataset(folder / "train.jsonl", "vqa")


def tar(folder, questions):
    content = json.dumps([{"question": "q", "answers": answers} for answers in questions]).encode()
    with tarfile.open(folder / "train.tar", "w") as file:
        for name, data in (("0.jpg", jpeg(0)), ("0.json", content)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return TarDataset(folder / "train.tar", "vqa")


def table(path, answers, scores=None, ids=None, **columns):
    """A table with a row for each entry of `answers`: the questions of an image, each with its answers."""
    columns = {"questions": [["q"] * len(row) for row in answers], "answers": answers} | columns
    columns["image"] = [jpeg(0)] * len(answers)
    if scores is not None:
        columns["answer_scores"] = scores
    if ids is not None:
        columns["answer_labels"] = ids
    content = pa.table(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, content.schema) as writer:
        writer.write_table(content)
    return path


def arrow(folder, questions):
    names = [[list(answers)] for answers in questions]
    scores = [[list(answers.values())] for answers in questions]
    return ArrowDataset(table(folder / "train.arrow", names, scores), "vqa")


@pytest.mark.parametrize("reader", [jsonl, tar, arrow])
@pytest.mark.parametrize(
    "answers",
    [
        *({"yes": 1.0, "no": score} for score in BAD_SCORES),
        *({"yes": 1.0, name: 0.3} for name in BAD_NAMES),
        {"yes": 1.0, " yes ": 0.3},
    ],
)
def test_scores_and_names(tmp_path, reader, answers):
    data = reader(tmp_path, [RIGHT, answers, RIGHT])
    assert [data[index].answer_scores for index in (0, 2)] == [RIGHT, RIGHT]
    with pytest.raises(RecordError, match="answer"):
        data[1]


@pytest.mark.parametrize("reader", [jsonl, tar])
@pytest.mark.parametrize(
    "answers",
    [[], {}, "", 5, True, [None], ["yes", ""], ["yes", 5], ["yes", ["no"]], {"yes": "1"}, {"yes": None}],
)
def test_answers_of_other_shapes(tmp_path, reader, answers):
    data = reader(tmp_path, [RIGHT, answers])
    with pytest.raises(RecordError, match="answer"):
        data[1]


def test_answers_of_annotators_are_votes(tmp_path):
    assert jsonl(tmp_path, [["yes"] * 9 + ["no"]])[0].answer_scores == {"yes": 1.0, "no": 0.3}


def test_a_null_stands_for_no_key(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    item = {"image": "a.jpg", "question": "q", "answers": None, "answer": "yes"}
    (tmp_path / "train.jsonl").write_text(json.dumps(item))
    assert JsonlDataset(tmp_path / "train.jsonl", "vqa")[0].answer_scores == {"yes": 1.0}


@pytest.mark.parametrize(
    ("answers", "scores"),
    [
        ([[["yes", "yes"]]], [[[1.0, 0.3]]]),
        ([[["yes", "no"]]], [[[1.0]]]),
        ([[["yes"]]], [[[]]]),
        ([[["yes"]]], [None]),
        ([[["yes"]]], [[None]]),
        ([[["yes"]]], [[[None]]]),
        ([[["yes"]]], [[["1"]]]),
        ([[["yes"]]], [[[True]]]),
        ([[[None]]], [[[1.0]]]),
        ([[[5]]], [[[1.0]]]),
        ([[[["yes"]]]], [[[1.0]]]),
    ],
)
def test_rows_of_a_table(tmp_path, answers, scores):
    with pytest.raises(RecordError, match="row 0, text 0"):
        ArrowDataset(table(tmp_path / "train.arrow", answers, scores), "vqa")[0]


def test_lists_that_are_too_short_for_their_questions(tmp_path):
    path = table(
        tmp_path / "train.arrow", [[["yes"]]], [[[1.0]]], questions=[["q", "r"]], question_id=[[5, 6]]
    )
    data = ArrowDataset(path, "vqa")
    assert data[0].question_id == 5
    with pytest.raises(RecordError, match="column answers has only 1 entries"):
        data[1]


@pytest.mark.parametrize(
    "columns",
    [
        {"question_id": [5]},
        {"answers": [["yes"]]},
        {"answers": ["yes"]},
        {"answer_scores": [[1.0]]},
        {"answer_scores": [1.0]},
        {"answer_labels": [[0]]},
    ],
)
def test_columns_of_other_shapes(tmp_path, columns):
    given = {"answers": [[["yes"]]], "answer_scores": [[[1.0]]], "questions": [["q"]], **columns}
    path = table(tmp_path / "train.arrow", **given)
    with pytest.raises(DataError, match=f"column {next(iter(columns))}: expected a list for each"):
        ArrowDataset(path, "vqa")


@pytest.mark.parametrize("kind", ["vqa", "entailment"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "train:0"), ("a", "a"), (7, "7"), (7.0, "7"), (NAN, ""), (0.5, ""), (True, ""), ("", "")],
)
def test_image_ids_of_tables(tmp_path, kind, value, expected):
    extra = {"sentences": [[["p", "h"]]], "labels": [[1]]} if kind == "entailment" else {}
    data = ArrowDataset(
        table(tmp_path / "train.arrow", [[["yes"]]], [[[1.0]]], image_id=[value], **extra), kind
    )
    if expected:
        assert data[0].image_id == data.image_id(0) == expected
        return
    for read in (data.__getitem__, data.image_id):
        with pytest.raises(RecordError, match="image_id"):
            read(0)


@pytest.mark.parametrize("label", ["Neutral", "-", "", 3, -1, 1.0, NAN, True, [1], "1"])
def test_labels_that_are_none(tmp_path, label):
    with pytest.raises(RecordError, match="is not one of contradiction, neutral, entailment"):
        check_label(label, "here")
    path = table(tmp_path / "train.arrow", [[["yes"]]], sentences=[[["p", "h"]]], labels=[[label]])
    with pytest.raises(RecordError, match="is not one of contradiction, neutral, entailment"):
        ArrowDataset(path, "entailment")[0]


def classes(folder, *tables):
    for number, columns in enumerate(tables):
        table(folder / f"train_{number}.arrow", **columns)
    return open_answers(CorpusConfig(str(folder)), DataConfig())


YES_NO = {"answers": [[["yes"], ["no"]]], "ids": [[[0], [1]]]}


@pytest.mark.parametrize(
    "columns",
    [
        {"answers": [[["yes"]], [["no"]], [["yes"]]], "ids": [[[0]], [[1]], [[1]]]},
        {"answers": [[["yes"], ["no"], ["maybe"]]], "ids": [[[0], [1], [1]]]},
        {"answers": [[["yes", "no", "yes"]]], "ids": [[[0, 1, 2]]]},
        {"answers": [[["yes", "no"], ["no"]]], "ids": [[[0], [1, 1]]]},
        {"answers": [[["yes", "no"]]], "ids": [[[0]]]},
        {"answers": [[["yes"]]], "ids": [[[-1]]]},
        {"answers": [[["yes"]]], "ids": [[["0"]]]},
        {"answers": [[["yes"]]], "ids": [[[0.0]]]},
        {"answers": [[["yes"]]], "ids": [[[None]]]},
        {"answers": [[["yes"]]], "ids": [[[10**15]]]},
    ],
)
@pytest.mark.parametrize("beside", [(), (YES_NO,)])
def test_labels_that_contradict_each_other(tmp_path, columns, beside):
    with pytest.raises(DataError, match="answer"):
        classes(tmp_path, *beside, columns)


def test_labels_that_contradict_those_of_another_table(tmp_path):
    with pytest.raises(DataError, match="'yes' is answer 2 here and 0 elsewhere"):
        classes(tmp_path, YES_NO, {"answers": [[["yes"]]], "ids": [[[2]]]})


def test_answers_that_are_none_have_no_class(tmp_path):
    """Their questions are broken records; the other classes keep their ids."""
    columns = {"answers": [[["yes"], [None], [""], ["no"]], [[]]], "ids": [[[0], [1], [2], [3]], [[]]]}
    assert classes(tmp_path, columns) == ["yes", "<answer 1>", "<answer 2>", "no"]


@pytest.mark.parametrize(
    "content",
    [
        ["yes", "yes"],
        ["yes", " yes"],
        ["yes", ""],
        ["yes", None],
        ["yes", 5],
        ["yes", ["no"]],
        ["a\0"],
        ["\u200b"],
        [],
        {},
        "yes",
        5,
        None,
    ],
)
def test_lists_of_classes(tmp_path, content):
    jsonl(tmp_path, [RIGHT])
    (tmp_path / "answers.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="answers.json"):
        open_answers(CorpusConfig(str(tmp_path)), DataConfig())
    assert check_classes(["yes", "no "], "here", DataError) == ["yes", "no"]


def test_scores_come_back_in_single_precision(tmp_path):
    scores = pa.array([[[1.0, 0.3]]], pa.list_(pa.list_(pa.float32())))
    record = ArrowDataset(table(tmp_path / "train.arrow", [[["yes", "no"]]], scores), "vqa")[0]
    assert record.answer_scores == {"yes": 1.0, "no": float(np.float32(0.3))}
