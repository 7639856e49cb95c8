"""VQA v2 preparation on a hand-made miniature of the official files."""

import json

import pyarrow as pa
import pytest
from small_vqa import write_official

from unimo.data.prepare.vqa import build_vocabulary, prepare_vqa, score_answers
from unimo.data.readers.open import open_answers, open_corpus
from unimo.errors import DataError
from unimo.settings import CorpusConfig, DataConfig


def read(path):
    return pa.ipc.open_file(str(path)).read_all().to_pylist()


@pytest.fixture
def prepared(tmp_path):
    write_official(tmp_path / "vqa", tmp_path / "coco")
    return tmp_path


def test_raw_variant(prepared):
    summary = prepare_vqa(prepared / "vqa", prepared / "coco", prepared / "out", rest_images=1)
    # "Yes" is not a class after normalisation, so only the raw strings "yes" and "2" score.
    assert json.loads((prepared / "out" / "answers.json").read_text()) == ["yes", "2"]
    rows = read(prepared / "out" / "vqav2_train.arrow")
    assert list(rows[0]) == [
        "image",
        "questions",
        "answers",
        "answer_labels",
        "answer_scores",
        "image_id",
        "question_id",
        "split",
    ]
    assert rows[0]["questions"] == ["is circle 1000 red?", "is circle 1001 red?"] and rows[0][
        "question_id"
    ] == [1000, 1001]
    assert rows[0]["answers"] == [["yes"], ["2"]] and rows[0]["answer_labels"] == [[0], [1]]
    assert rows[0]["answer_scores"] == [[1.0], [1.0]] and rows[0]["image_id"] == 1
    images = {
        split: [row["image_id"] for row in read(prepared / "out" / f"vqav2_{split}.arrow")]
        for split in ("train", "val", "trainable_val", "rest_val", "test", "test-dev")
    }
    assert images == {
        "train": [1, 2, 3, 4, 5, 6],
        "val": [11, 12, 13, 14],
        "trainable_val": [11, 12, 13],
        "rest_val": [14],
        "test": [21],
        "test-dev": [21],
    }
    assert read(prepared / "out" / "vqav2_test.arrow")[0]["answers"] == [[], []]
    assert summary["splits"]["train"]["questions"] == summary["splits"]["train"]["questions_read"] == 12


def test_normalised_variant_and_reading_back(prepared):
    prepare_vqa(prepared / "vqa", prepared / "coco", prepared / "out", variant="normalised", rest_images=1)
    corpus = CorpusConfig(str(prepared / "out"))
    data = open_corpus(corpus, "train", "vqa", DataConfig())
    assert [data[0].answer_scores, data[1].answer_scores] == [{"yes": 1.0}, {"2": 1.0}]
    assert [record.question_type for record in data][:2] == ["yes/no", "number"]
    assert open_answers(corpus, DataConfig()) == ["yes", "2"]
    (prepared / "out" / "answers.json").unlink()
    assert open_answers(corpus, DataConfig()) == ["yes", "2"]
    assert {path.stem for path in (prepared / "out").glob("*.arrow")} == {
        f"vqav2_{split}_fix" for split in ("train", "val", "trainable_val", "rest_val", "test", "test-dev")
    }


def test_questions_without_a_class_are_left_out(prepared):
    # Ten "yes" and ten "2": a higher minimum leaves nothing, and a class that only val has stays.
    path = prepared / "vqa" / "v2_mscoco_val2014_annotations.json"
    content = json.loads(path.read_text())
    content["annotations"][0] |= {"multiple_choice_answer": "odd", "answers": [{"answer": "odd"}] * 10}
    path.write_text(json.dumps(content))
    summary = prepare_vqa(prepared / "vqa", prepared / "coco", prepared / "out")
    assert summary["splits"]["val"]["questions"] == 7 and summary["splits"]["val"]["questions_read"] == 8
    assert "rest_val" not in summary["splits"]
    with pytest.raises(DataError, match="none of 3 answers occurs 99 times"):
        prepare_vqa(prepared / "vqa", prepared / "coco", prepared / "out", min_count=99)


def test_without_rest_val_all_of_val_is_trainable(prepared):
    summary = prepare_vqa(prepared / "vqa", prepared / "coco", prepared / "out", rest_images=0)
    assert summary["splits"]["trainable_val"]["images"] == 4 and "rest_val" not in summary["splits"]


def test_vocabulary_is_in_first_seen_order():
    answers = ["b"] * 9 + ["A"] * 5 + ["c"] * 8 + ["a"] * 3 + ["the a"] + ["None"] * 9
    # An answer of articles only becomes the empty answer, a class like any other.
    assert build_vocabulary(answers) == ["b", "", "0"]
    assert build_vocabulary(["two", "a dog", "2", "dog"], min_count=2) == ["2", "dog"]


def test_scores_of_both_variants():
    answers = ["Dog"] + ["dog"] * 2 + ["a dog"] + ["cat"] * 6
    labels = {"dog": 4, "cat": 7}
    assert score_answers(answers, labels, "raw") == [("dog", 4, 0.6), ("cat", 7, 1.0)]
    assert score_answers(answers, labels, "normalised") == [("dog", 4, 1.0), ("cat", 7, 1.0)]


def test_what_is_missing_is_said(prepared):
    with pytest.raises(DataError, match="annotations without images"):
        prepare_vqa(prepared / "vqa", prepared / "vqa", prepared / "out")
    annotations = prepared / "vqa" / "v2_mscoco_val2014_annotations.json"
    annotations.write_text('{"annotations": []}')
    with pytest.raises(DataError, match="11000 is missing"):
        prepare_vqa(prepared / "vqa", prepared / "coco", prepared / "out")
    annotations.unlink()
    with pytest.raises(DataError, match="has no file .*val2014_annotations.json"):
        prepare_vqa(prepared / "vqa", prepared / "coco", prepared / "out")
    with pytest.raises(DataError, match=r"no \*train2014_questions.json"):
        prepare_vqa(prepared / "coco", prepared / "coco", prepared / "out")
