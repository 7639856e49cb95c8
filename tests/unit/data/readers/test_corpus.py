"""Finding a split: names, aliases, several files and kinds in a folder, and error messages."""

import json

import pytest
from test_arrow import PAIRS, jpeg, write

from unimo.data.readers.open import find_splits, open_answers, open_corpus
from unimo.data.splits import read_split
from unimo.errors import DataError
from unimo.settings import CorpusConfig, DataConfig

VQA = {
    "image": [jpeg(9)],
    "questions": [["What?"]],
    "answers": [[["dog", "cat"]]],
    "answer_labels": [[[1, 0]]],
    "answer_scores": [[[1.0, 0.3]]],
    "image_id": [42],
    "question_id": [[420]],
    "split": ["train"],
}


def pairs(text):
    return PAIRS | {"caption": [[text], [], []]}


def texts(path, split, kind="pairs"):
    return [record.text for record in open_corpus(CorpusConfig(str(path)), split, kind, DataConfig())]


@pytest.mark.parametrize(
    ("stem", "split"),
    [
        ("coco_caption_karpathy_train", "train"),
        ("coco_caption_karpathy_restval", "restval"),
        ("conceptual_caption_train_12", "train"),
        ("vqav2_trainable_val", "trainable_val"),
        ("vqav2_rest_val_fix", "rest_val_fix"),
        ("vqav2_test-dev", "test-dev"),
        ("train-000123", "train"),
        ("val", "val"),
        ("snli_dev", "dev"),
        ("nlvr2_test1", "test1"),
        ("vg", ""),
        ("sbu_3", ""),
        ("00042", ""),
        ("training", "training"),
        ("interval", ""),
    ],
)
def test_split_of_a_file_name(stem, split):
    found = read_split(stem)
    assert (found.label if found else "") == split


def test_files_of_a_split_are_joined(tmp_path):
    for stem in ("coco_train_0", "coco_train_1", "coco_restval", "vg_train", "coco_val"):
        write(tmp_path / f"{stem}.arrow", pairs(stem))
    write(tmp_path / "vqav2_train.arrow", VQA)
    assert sorted(texts(tmp_path, "train")) == ["coco_restval", "coco_train_0", "coco_train_1", "vg_train"]
    assert texts(tmp_path, "restval") == ["coco_restval"]
    assert texts(tmp_path, "val") == ["coco_val"]
    assert texts(tmp_path, "val+restval") == ["coco_val", "coco_restval"]
    assert texts(tmp_path, "train", "vqa") == ["What?"]
    (tmp_path / "vg_train.arrow").rename(tmp_path / "vg.arrow")
    assert texts(tmp_path / "vg.arrow", "train") == ["vg_train"]
    with pytest.raises(DataError, match=r"no telling to which split vg belong, beside coco_restval"):
        texts(tmp_path, "train")
    (tmp_path / "vg.arrow").unlink()
    assert texts(tmp_path / "coco_train*", "train") == ["coco_train_0", "coco_train_1"]
    assert find_splits(CorpusConfig(str(tmp_path)), "pairs", DataConfig()) == ["restval", "train", "val"]


def test_joined_files_know_their_records_and_images(tmp_path):
    write(tmp_path / "a_train_0.arrow", PAIRS)
    write(tmp_path / "a_train_1.arrow", PAIRS | {"image": [jpeg(7), jpeg(8), jpeg(9)]})
    data = open_corpus(CorpusConfig(tmp_path.name), "train", "pairs", DataConfig(root=str(tmp_path.parent)))
    assert len(data) == 6 and data.name == tmp_path.name == data[5].corpus
    assert [data.image_source(i) for i in (2, 3, 5)] == [jpeg(3), jpeg(7), jpeg(9)]
    assert len({record.sample_id for record in data}) == 6


def test_variants_and_aliases_of_vqa(tmp_path):
    for split in ("train", "rest_val"):
        write(tmp_path / f"vqav2_{split}_fix.arrow", VQA | {"questions": [[f"{split} fix"]]})
    assert texts(tmp_path, "train", "vqa") == ["train fix"]
    assert texts(tmp_path, "val", "vqa") == ["rest_val fix"]
    write(tmp_path / "vqav2_train.arrow", VQA | {"questions": [["raw"]]})
    assert texts(tmp_path, "train", "vqa") == ["raw"]
    assert texts(tmp_path, "train_fix", "vqa") == ["train fix"]


def test_dev_serves_as_val(tmp_path):
    columns = {"image": [jpeg(1)], "sentences": [[["p", "h"]]], "labels": [[1]]}
    write(tmp_path / "snli_dev.arrow", columns)
    assert texts(tmp_path, "val", "entailment") == ["h"]


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(DataError, match="no data at .*nowhere; make it with tools/prepare_data.py"):
        texts(tmp_path / "nowhere", "train")
    with pytest.raises(DataError, match="holds no pairs data.*found nothing"):
        texts(tmp_path, "train")
    write(tmp_path / "f30k_train.arrow", PAIRS)
    with pytest.raises(DataError, match="no split 'test' of pairs; found: train"):
        texts(tmp_path, "test")
    with pytest.raises(DataError, match="holds no vqa data.*questions.*f30k_train.arrow"):
        texts(tmp_path, "train", "vqa")
    write(tmp_path / "f30k_val.arrow", PAIRS | {"caption": [[], [], []]})
    with pytest.raises(DataError, match="has no samples"):
        texts(tmp_path, "val")


def test_jsonl_without_split_names(tmp_path):
    lines = [json.dumps({"image": f"{i}.jpg", "text": str(i)}) for i in range(20)]
    for i in range(20):
        (tmp_path / f"{i}.jpg").write_bytes(b"x")
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    parts = {split: set(texts(tmp_path, split)) for split in ("train", "val", "test")}
    assert set.union(*parts.values()) == set(map(str, range(20))) and all(parts.values())
    assert sorted(texts(tmp_path, "train+val"), key=int) == sorted(parts["train"] | parts["val"], key=int)
    assert set(texts(tmp_path, "dev")) == parts["val"]
    with pytest.raises(DataError, match="no split 'dev3'"):
        texts(tmp_path, "dev3")


def test_scenes_is_built_in():
    data = open_corpus(CorpusConfig(), "val", "vqa", DataConfig())
    assert data.name == "scenes" and data[0].text.endswith("?")
    assert "yes" in open_answers(CorpusConfig(), DataConfig())
    assert find_splits(CorpusConfig(), "pairs", DataConfig()) == ["train", "val", "test"]


def test_answers_of_a_corpus(tmp_path):
    write(tmp_path / "vqav2_train.arrow", VQA)
    corpus = CorpusConfig(str(tmp_path))
    assert open_answers(corpus, DataConfig()) == ["cat", "dog"]
    write(tmp_path / "vqav2_val.arrow", VQA | {"answers": [[["dog", "cow"]]]})
    with pytest.raises(DataError, match="answer 0 is 'cow' here and 'cat' elsewhere"):
        open_answers(corpus, DataConfig())
    write(tmp_path / "vqav2_val.arrow", VQA | {"answer_labels": [[[1, 3]]], "answers": [[["dog", "cow"]]]})
    assert open_answers(corpus, DataConfig()) == ["cat", "dog", "<answer 2>", "cow"]
    (tmp_path / "answers.json").write_text('["x", "y"]')
    assert open_answers(corpus, DataConfig()) == ["x", "y"]
    (tmp_path / "answers.json").write_text('{"x": 1}')
    with pytest.raises(DataError, match="expected a JSON list of answers"):
        open_answers(corpus, DataConfig())


def test_answers_of_jsonl_are_in_first_seen_order(tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"x")
    lines = [{"image": "1.jpg", "question": "q", "answer": answer} for answer in ("b", "a", "b", "")]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert open_answers(CorpusConfig(str(tmp_path)), DataConfig()) == ["b", "a"]
