"""Own jsonl files to tables, and the command line."""

import json
import subprocess
import sys

import pytest
from picture_files import jpeg, write_pictures

from unimo.data.prepare.jsonl import prepare_jsonl
from unimo.data.readers.open import find_splits, open_answers, open_corpus
from unimo.errors import DataError
from unimo.settings import CorpusConfig, DataConfig


def lines(path, items):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(item if isinstance(item, str) else json.dumps(item) for item in items))
    return path


def opened(folder, split, kind):
    return open_corpus(CorpusConfig(str(folder)), split, kind, DataConfig())


def test_pairs_without_split_names(tmp_path):
    names = [f"images/{i}.jpg" for i in range(20)]
    write_pictures(tmp_path, names)
    items = [{"image": name, "texts": [f"{name} a", f"{name} b"]} for name in names]
    source = lines(tmp_path / "mine.jsonl", items)
    summary = prepare_jsonl(source, tmp_path / "out")
    assert sum(split["images"] for split in summary["splits"].values()) == 20
    for split, counts in summary["splits"].items():
        assert counts["files"] == [f"own_caption_{split}.arrow"] and counts["images"] >= 1
        before = {r.text: r.image.read_bytes() for r in opened(source, split, "pairs")}
        assert {r.text: r.image for r in opened(tmp_path / "out", split, "pairs")} == before


def test_questions_get_a_vocabulary(tmp_path):
    write_pictures(tmp_path / "pictures", ["1.jpg", "2.jpg"])
    lines(
        tmp_path / "in" / "train.jsonl",
        [
            {"image": "1.jpg", "question": "What?", "answer": "dog", "question_id": "first"},
            {"image": "2.jpg", "question": "How many?", "answers": ["2"] * 9 + ["3"]},
            {"image": "1.jpg", "question": "And?", "answer": {"dog": 0.6, "cat": 0.3}},
        ],
    )
    lines(tmp_path / "in" / "test.jsonl", [{"image": "2.jpg", "question": "What?"}])
    summary = prepare_jsonl(tmp_path / "in", tmp_path / "out", "vqa", "zoo", tmp_path / "pictures")
    corpus = CorpusConfig(str(tmp_path / "out"))
    assert open_answers(corpus, DataConfig()) == ["dog", "cat", "2", "3"] and summary["answers"] == 4
    records = list(opened(tmp_path / "out", "train", "vqa"))
    assert [(r.text, r.answer_scores, r.question_id) for r in records] == [
        ("What?", {"dog": 1.0}, "first"),
        ("And?", {"dog": 0.6, "cat": 0.3}, "train:3#0"),
        ("How many?", {"2": 1.0, "3": 0.3}, "train:2#0"),
    ]
    assert find_splits(corpus, "vqa", DataConfig()) == ["test", "train"]
    assert opened(tmp_path / "out", "test", "vqa")[0].answer_scores == {}
    prepare_jsonl(tmp_path / "in", tmp_path / "out", "vqa", "zoo", tmp_path / "pictures", min_count=2)
    assert open_answers(corpus, DataConfig()) == ["dog"]
    assert len(opened(tmp_path / "out", "train", "vqa")) == 2
    with pytest.raises(DataError, match="--min-count"):
        prepare_jsonl(tmp_path / "in", tmp_path / "out", "vqa", "zoo", tmp_path / "pictures", min_count=3)


def test_entailment(tmp_path):
    write_pictures(tmp_path, ["1.jpg"])
    items = [
        {"image": "1.jpg", "text": "A dog.", "label": "neutral"},
        {"image": "1.jpg", "text": "A cat.", "label": 0},
    ]
    lines(tmp_path / "train.jsonl", items)
    prepare_jsonl(tmp_path, tmp_path / "out", "entailment")
    records = opened(tmp_path / "out", "train", "entailment")
    assert [(r.text, r.label, r.image) for r in records] == [("A dog.", 1, jpeg(0)), ("A cat.", 0, jpeg(0))]


def test_broken_lines_are_reported_by_number(tmp_path, caplog):
    write_pictures(tmp_path, ["1.jpg", "2.jpg"])
    (tmp_path / "2.jpg").write_bytes(jpeg(1)[:-200])
    items = [{"image": "1.jpg", "text": "t"}] * 6 + [
        "{",
        {"image": "2.jpg", "text": "t"},
        {"image": "1.jpg", "text": ""},
    ]
    source = lines(tmp_path / "train.jsonl", items)
    with pytest.raises(DataError, match="3 of 9 samples .* are broken") as caught:
        prepare_jsonl(source, tmp_path / "out")
    assert "line 7" in str(caught.value) and "line 9" in str(caught.value) and "2.jpg" in str(caught.value)
    assert "line 7" in caplog.text and not (tmp_path / "out").exists()
    summary = prepare_jsonl(source, tmp_path / "out", max_missing_rate=0.5)
    assert summary["broken"] == 3 and summary["splits"]["train"]["samples"] == 6


def tool(root, *words):
    command = [sys.executable, str(root / "tools" / "prepare_data.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_command_line(root, tmp_path):
    write_pictures(tmp_path, ["1.jpg", "2.jpg", "3.jpg"])
    source = lines(tmp_path / "own.jsonl", [{"image": f"{i}.jpg", "text": "t"} for i in (1, 2, 3)])
    done = tool(root, "jsonl", "--input", source, "--out", tmp_path / "out")
    assert done.returncode == 0 and json.loads(done.stdout)["splits"]["val"]["images"] == 1
    failed = tool(
        root, "karpathy", "--annotations", tmp_path / "no.json", "--images", tmp_path, "--out", tmp_path
    )
    assert failed.returncode == 2 and failed.stderr.count("\n") == 1
    assert failed.stderr.startswith("error: cannot read") and "no.json" in failed.stderr
    assert "example: python tools/prepare_data.py vqa" in tool(root, "vqa", "--help").stdout.replace(
        "\n", " "
    )


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_a_file_of_nothing(tmp_path, content):
    (tmp_path / "train.jsonl").write_text(content)
    with pytest.raises(DataError, match="nothing of|is empty|no samples|holds no"):
        prepare_jsonl(tmp_path / "train.jsonl", tmp_path / "out", "vqa")


def pairs_of_pictures(folder):
    """Four pictures and sentences about pairs of them, one pair in both orders."""
    write_pictures(folder, [f"images/{i}.jpg" for i in range(4)])
    pairs = [(0, 1), (0, 1), (1, 0), (2, 3)]
    items = [
        {"images": [f"images/{i}.jpg" for i in pair], "text": f"sentence {n}", "label": n % 2 == 0}
        for n, pair in enumerate(pairs)
    ]
    items[1]["identifier"] = "mine-1"
    return items


def test_pairs_of_pictures(tmp_path):
    lines(tmp_path / "train.jsonl", pairs_of_pictures(tmp_path))
    summary = prepare_jsonl(tmp_path / "train.jsonl", tmp_path / "out", "nlvr2")
    files = ["own_nlvr2_train.arrow"]
    assert summary["splits"]["train"] == {"pairs": 3, "samples": 4, "files": files}
    assert summary["images_in_two_splits"] == 0
    records = list(opened(tmp_path / "out", "train", "nlvr2"))
    assert [(r.text, r.label, r.question_id, r.images) for r in records] == [
        ("sentence 0", 1, "train:1#0", (jpeg(0), jpeg(1))),
        ("sentence 1", 0, "mine-1", (jpeg(0), jpeg(1))),
        ("sentence 2", 1, "train:3#0", (jpeg(1), jpeg(0))),
        ("sentence 3", 0, "train:4#0", (jpeg(2), jpeg(3))),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": ["images/0.jpg"]}, "a list of two paths, the left and the right picture"),
        ({"images": None, "image": "images/0.jpg"}, "a list of two paths.*found 'images/0.jpg'"),
        ({"images": ["images/0.jpg", "images/cut.jpg"]}, "cut.jpg|truncated"),
        ({"images": ["images/0.jpg", "images/none.jpg"]}, "none.jpg"),
        ({"label": None}, "no label"),
        ({"label": "neither"}, "neither true nor false"),
    ],
)
def test_lines_that_are_no_pair_of_pictures(tmp_path, change, message):
    items = pairs_of_pictures(tmp_path)
    (tmp_path / "images/cut.jpg").write_bytes(jpeg(9)[:-200])
    items[1] = {**items[1], "label": True, **change}
    source = lines(tmp_path / "train.jsonl", items)
    with pytest.raises(DataError, match=f"1 of 4 samples .* broken.*{message}"):
        prepare_jsonl(source, tmp_path / "out", "nlvr2")
    summary = prepare_jsonl(source, tmp_path / "out", "nlvr2", max_missing_rate=0.5)
    assert summary["broken"] == 1
    texts = [r.text for r in opened(tmp_path / "out", "train", "nlvr2")]
    assert texts == ["sentence 0", "sentence 2", "sentence 3"]


def test_a_picture_of_pairs_in_two_splits_is_counted(tmp_path):
    items = pairs_of_pictures(tmp_path)
    lines(tmp_path / "in/train.jsonl", items[:2])
    lines(tmp_path / "in/val.jsonl", items[2:])
    summary = prepare_jsonl(tmp_path / "in", tmp_path / "out", "nlvr2", images=tmp_path)
    assert summary["images_in_two_splits"] == 2
