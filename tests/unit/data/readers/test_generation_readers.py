"""Readers of text generation: every format, and messages about malformed files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from micro import make_run

from unimo.errors import DataError, RecordError
from unimo.settings import CorpusConfig
from unimo.tasks.seq2seq.data import find_files, open_generation


def opened(folder: Path, split: str = "train", **task: Any) -> Any:
    return open_generation(CorpusConfig(str(folder)), split, make_run("seq2seq", task=task))


COQA = {
    "version": "1.0",
    "data": [
        {
            "source": "mctest",
            "id": "story1",
            "story": "Once upon a time there was a white cat named Cotton.",
            "questions": [
                {"input_text": "What color was Cotton?", "turn_id": 1},
                {"input_text": "What was she?", "turn_id": 2},
            ],
            "answers": [
                {"input_text": "white", "turn_id": 1, "span_text": "a white cat"},
                {"input_text": "a cat", "turn_id": 2, "span_text": "cat"},
            ],
            "additional_answers": {
                "0": [{"input_text": "White.", "turn_id": 1}, {"input_text": "cat", "turn_id": 2}],
                "1": [{"input_text": "white", "turn_id": 1}, {"input_text": "an animal", "turn_id": 2}],
            },
        }
    ],
}
SQUAD = {
    "version": "1.1",
    "data": [
        {
            "title": "Abbey",
            "paragraphs": [
                {
                    "context": "The abbey was built in 1211.",
                    "qas": [
                        {"id": "q1", "question": "When?", "answers": [{"text": "1211", "answer_start": 23}]},
                        {"id": "q2", "question": "What?", "answers": [{"text": "The abbey"}]},
                    ],
                }
            ],
        }
    ],
}


def test_coqa_gives_each_turn_with_what_was_said_before(tmp_path: Path) -> None:
    (tmp_path / "coqa-dev-v1.0.json").write_text(json.dumps(COQA))
    first, second = opened(tmp_path, "val")
    assert first.sources == ("What color was Cotton?",)
    assert first.references == ("white", "White.", "white")
    assert second.sources == ("What color was Cotton?", "white", "What was she?")
    assert second.references == ("a cat", "cat", "an animal")
    assert second.knowledge.startswith("Once upon a time")
    assert (second.question_id, second.turn_id, second.question_type) == ("story1", 2, "mctest")


def test_squad_asks_from_passage_and_answer(tmp_path: Path) -> None:
    (tmp_path / "train-v1.1.json").write_text(json.dumps(SQUAD))
    (tmp_path / "test.json").write_text(json.dumps(SQUAD["data"]))  # the split of Du et al.: a bare list
    first, second = opened(tmp_path)
    assert first.sources == ("The abbey was built in 1211.", "1211") and first.references == ("When?",)
    assert (second.sources[1], second.sample_id) == ("The abbey", "train-v1.1:q2")
    assert [record.references for record in opened(tmp_path, "test")] == [("When?",), ("What?",)]


@pytest.mark.parametrize(
    "names",
    [
        ("{}.source", "{}.target"),
        ("{}.src", "{}.tgt"),
        ("{}.src.txt", "{}.tgt.txt"),
        ("{}.article.txt", "{}.title.txt"),
        ("{}.article.filter.txt", "{}.title.filter.txt"),
    ],
)
def test_pairs_of_files(tmp_path: Path, names: tuple[str, str]) -> None:
    (tmp_path / names[0].format("valid")).write_text("a long text\r\nanother text\n")
    (tmp_path / names[1].format("valid")).write_text("short\nother")
    records = list(opened(tmp_path, "val"))
    assert [record.sources + record.references for record in records] == [
        ("a long text", "short"),
        ("another text", "other"),
    ]
    assert records[1].sample_id.endswith(":2")


def test_tsv_has_columns_in_any_order_and_knowledge(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text(
        "tgt\tknowledge\tsrc\nyes\ta story\tis it ? [SEP] no [SEP] sure ?\n\n"
    )
    (plain,) = opened(tmp_path)
    assert plain.sources == ("is it ? [SEP] no [SEP] sure ?",) and plain.knowledge == "a story"
    (dialog,) = opened(tmp_path, dialog=True, tokenized_input=True)
    assert dialog.sources == ("is it ?", "no", "sure ?") and dialog.is_tokenized
    assert dialog.references == ("yes",)


def test_jsonl_takes_texts_or_lists_of_them(tmp_path: Path) -> None:
    rows = [
        {"source": "a", "target": "b"},
        {"source": ["p", "q"], "target": ["r", "s"], "knowledge": "k", "more": 1},
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first, second = opened(tmp_path)
    assert (first.sources, first.references, first.knowledge) == (("a",), ("b",), None)
    assert (second.sources, second.references, second.knowledge) == (("p", "q"), ("r", "s"), "k")


def test_splits_join_and_formats_are_chosen(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("src\ttgt\na\tb\n")
    (tmp_path / "train.jsonl").write_text('{"source": "c", "target": "d"}\n')
    (tmp_path / "validation.tsv").write_text("src\ttarget\ne\tf\n")
    assert find_files(tmp_path, "train")[0] == "tsv"
    assert [record.sources for record in opened(tmp_path, format="jsonl")] == [("c",)]
    assert [record.sources for record in opened(tmp_path, "train+val")] == [("a",), ("e",)]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"no split 'train'; expected coqa-train-v1\.0\.json, .*train\.jsonl; found: nothing"),
        ({"train.source": "a\nb\n", "train.target": "c\n"}, r"train\.source has 2 lines and .* has 1"),
        ({"train.source": "a\n"}, r"train\.source has no train\.target beside it"),
        ({"train.tsv": "src\tother\na\tb\n"}, r"train\.tsv, line 1: expected a header with `tgt`"),
        ({"train.tsv": "src\ttgt\n"}, r"train\.tsv has no samples"),
        ({"train.tsv": ""}, r"train\.tsv, line 1: .*found: nothing"),
        ({"train-v1.1.json": "{"}, r"train-v1\.1\.json: not valid JSON"),
        ({"train-v1.1.json": '{"data": 3}'}, r"expected a JSON object with a list of objects `data`"),
        ({"train-v1.1.json": '[{"title": "x"}]'}, r"article 0: no list of objects 'paragraphs'; found title"),
        (
            {"coqa-train-v1.0.json": '[{"story": "x", "questions": [{}], "answers": []}]'},
            r"story 0: .*1 questions, 0 answers",
        ),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train.source": "a\nb\n", "train.target": "c\n \n"}, r"train\.target, line 2: the text is empty"),
        (
            {"train.source": "a\nb\n", "train.target": "c\n\udcff\n"},
            r"train\.target, line 2: not valid UTF-8",
        ),
        ({"train.tsv": "src\ttgt\na\tb\nc\n"}, r"train\.tsv, line 3: 1 columns, expected 2 \(src, tgt\)"),
        ({"train.tsv": "src\ttgt\na\tb\nc\t\n"}, r"train\.tsv, line 3, column tgt: the text is empty"),
        ({"train.jsonl": '{"source": "a", "target": "b"}\n{"source": "a"}'}, r"line 2: no 'target'"),
        ({"train.jsonl": '{"source": "a", "target": "b"}\n[1]'}, r"line 2: expected a JSON object"),
        ({"train.jsonl": '{"source": "a", "target": "b"}\n{"source": [], "target": "b"}'}, r"'source' is an"),
    ],
)
def test_broken_samples_are_named_and_spoil_only_themselves(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_bytes(text.encode("utf8", "surrogateescape"))
    dataset = opened(tmp_path)
    assert dataset[0].references
    with pytest.raises(RecordError, match=message):
        dataset[1]


def test_broken_answers_name_story_and_turn(tmp_path: Path) -> None:
    content = json.loads(json.dumps(COQA))
    content["data"][0]["answers"][1]["input_text"] = " "
    (tmp_path / "coqa-train-v1.0.json").write_text(json.dumps(content))
    dataset = opened(tmp_path)
    assert len(dataset) == 2 and dataset[0].references
    with pytest.raises(RecordError, match=r"story 0, turn 2, 'input_text': the text is empty"):
        dataset[1]
    with pytest.raises(DataError, match="no folder"):
        opened(tmp_path / "nowhere")
    with pytest.raises(IndexError):
        dataset[2]
