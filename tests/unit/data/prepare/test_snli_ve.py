"""SNLI-VE preparation."""

import json

import pyarrow as pa
import pytest
from picture_files import jpeg, write_pictures

from unimo.data.prepare.snli_ve import prepare_snli_ve
from unimo.data.readers.open import open_corpus
from unimo.errors import DataError
from unimo.settings import CorpusConfig, DataConfig


def line(image, hypothesis, label):
    return json.dumps(
        {"Flickr30K_ID": image, "sentence1": "A dog runs.", "sentence2": hypothesis, "gold_label": label}
    )


def test_rows_are_images(tmp_path):
    lines = [
        line("10", "An animal.", "entailment"),
        line("20", "A cat.", "contradiction"),
        line("10", "It is happy.", "neutral"),
        line("10", "Unclear.", "-"),
    ]
    for split in ("train", "dev"):
        (tmp_path / f"snli_ve_{split}.jsonl").write_text("\n".join(lines))
    write_pictures(tmp_path / "images", ["10.jpg", "20.jpg"])
    summary = prepare_snli_ve(tmp_path, tmp_path / "images", tmp_path / "out")
    table = pa.ipc.open_file(str(tmp_path / "out" / "snli_train.arrow")).read_all()
    assert table.to_pylist() == [
        {
            "image": jpeg(0),
            "sentences": [["A dog runs.", "An animal."], ["A dog runs.", "It is happy."]],
            "labels": [2, 1],
        },
        {"image": jpeg(1), "sentences": [["A dog runs.", "A cat."]], "labels": [0]},
    ]
    assert summary["splits"]["dev"] == {
        "images": 2,
        "sentences": 3,
        "without_label": 1,
        "files": ["snli_dev.arrow"],
    }
    data = open_corpus(CorpusConfig(str(tmp_path / "out")), "val", "entailment", DataConfig())
    assert [(r.text, r.label) for r in data] == [("An animal.", 2), ("It is happy.", 1), ("A cat.", 0)]


def test_bad_input_is_named(tmp_path):
    with pytest.raises(DataError, match="no snli_ve_train.jsonl"):
        prepare_snli_ve(tmp_path, tmp_path, tmp_path / "out")
    path = tmp_path / "snli_ve_test.jsonl"
    path.write_text(line("1", "h", "neutral"))
    with pytest.raises(DataError, match="annotations without images.*1.jpg"):
        prepare_snli_ve(tmp_path, tmp_path, tmp_path / "out")
    for content, message in (
        ('{"gold_label": "neutral"}', "'sentence1' is missing"),
        ("{", "not valid JSON"),
    ):
        path.write_text(line("1", "h", "neutral") + "\n" + content)
        with pytest.raises(DataError, match=f"line 2: .*{message}"):
            prepare_snli_ve(tmp_path, tmp_path, tmp_path / "out")
