"""Text generation as a person uses it: from the files of each data set to scores, texts and answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from micro import TOWER, Tool, saved, words

from unimo.errors import CapabilityError, RecordError
from unimo.inference.pipeline import Pipeline

MODEL = {
    "name": "unimo_tiny",
    "text": {**TOWER, "vocab_size": 90, "max_position": 80},
    "regions": {"feature_size": 16},
}
SMALL = {
    "model": {"text": {**TOWER, "max_position": 80}},
    "task": {"max_target_len": 20, "beam.max_length": 8, "beam.min_length": 0, "beam.size": 2},
    "data": {"max_text_len": 40, "num_workers": 0},
    "train": {"max_steps": 2, "batch_size": 2, "device": "cpu", "log_every": 1},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def squad(questions: int = 3) -> str:
    asked = [
        {"id": str(n), "question": f"what is {n} ?", "answers": [{"text": "red"}]} for n in range(questions)
    ]
    return json.dumps({"data": [{"paragraphs": [{"context": "a red circle .", "qas": asked}]}]})


def coqa(turns: int = 3) -> str:
    said = [{"input_text": "red", "turn_id": turn + 1} for turn in range(turns)]
    story = {"id": "s", "source": "race", "story": "a red circle .", "questions": said, "answers": said}
    return json.dumps({"data": [story]})


# Files of a split, something to set, and some of the metrics that come out.
FILES = {
    "coqa": ({"coqa-{}-v1.0.json": coqa()}, "task.metrics=[coqa]", {"f1", "f1/mid-high_school"}),
    "squad_qg": ({"{}-v1.1.json": squad()}, "task.pool_references=true", {"bleu_4", "exact"}),
    "lines": (
        {"{}.source": "red circle\nblue\nred\n", "{}.target": "red\nblue\nred\n"},
        "task.metrics=[coco_rouge_l]",
        {"coco_rouge_l"},
    ),
    "tsv": ({"{}.tsv": "src\ttgt\n" + "red\tblue\n" * 3}, "task.end_token=mask", {"bleu_1"}),
    "jsonl": (
        {"{}.jsonl": '{"source": ["red", "blue"], "target": ["a", "b"]}\n' * 3},
        "task.format=jsonl",
        {"exact"},
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_from_files_to_scores(tool: Tool, kind: str) -> None:
    files, setting, names = FILES[kind]
    Path("data").mkdir()
    for name, text in files.items():
        for stem in ("train", "dev"):
            Path("data", name.format(stem)).write_text(text)
    dialog = ["task.dialog=true", "model.role_types=3", "model.turn_types=16"] * (kind == "coqa")
    options = ("--init", "none", *words(SMALL), *dialog, setting, "data.path=data", "output_dir=out")
    code, _, err = tool("finetune", "--task", "seq2seq", *options)
    assert code == 0, err
    assert json.loads(Path("out/summary.json").read_text())["model"] == "unimo_tiny"
    code, out, err = tool("evaluate", "--task", "seq2seq", "--model", "out", "--predictions", "said.txt")
    assert code == 0, err
    result = json.loads(out)
    assert names <= set(result["metrics"]) and result["samples"] == 3
    assert len(Path("said.txt").read_text().splitlines()) == 3


def test_what_is_wrong_with_files_is_named(tool: Tool, caplog: pytest.LogCaptureFixture) -> None:
    options = ("--task", "seq2seq", "--init", "none", *words(SMALL), "data.path=data")
    Path("data").mkdir()
    Path("data/train.source").write_text("red\n" * 4)
    Path("data/train.target").write_text("blue\n\nblue\nblue\n")
    code, _, err = tool("finetune", *options, "train.max_steps=4", "output_dir=one")
    assert code == 0 and "data/train.target, line 2: the text is empty" in caplog.text
    code, _, err = tool("finetune", *options, "train.max_steps=100", "output_dir=many")
    assert code == 2 and "data/train.target, line 2: the text is empty" in err
    Path("data/train.target").write_text("blue\n" * 3)
    code, _, err = tool("finetune", *options)
    assert code == 2 and "has 4 lines and data/train.target has 3" in err
    code, _, err = tool("finetune", *options, "task.format=tsv")
    assert code == 2 and "expected train.tsv; found: train.source, train.target" in err


def model_of(folder: Path, **changes: object) -> Path:
    task = {"max_target_len": 20, "beam": {"size": 2, "min_length": 0, "max_length": 8}, **changes}
    model = {**MODEL, "role_types": 3, "turn_types": 16} if changes.get("dialog") else MODEL
    return saved("seq2seq", folder, model=model, task=task, data={"max_text_len": 40})


def test_pipeline_and_command_line_write_the_same(tool: Tool, tmp_path: Path) -> None:
    directory = model_of(tmp_path)
    found = Pipeline(directory).ask(text=["a red circle .", "red"], count=3)
    assert len({one.text for one in found}) == 3 and found == sorted(found, key=lambda one: -one.score)
    assert Pipeline(directory).ask(text="a red circle .\tred", count=3) == found
    assert Pipeline(directory).ask(text="a red circle . red", count=3) != found
    about = ("predict", "--model", directory, "--generate", "a red circle .\tred")
    code, out, err = tool(*about, "--n-best", 3, "--json")
    assert code == 0, err
    (rows,) = json.loads(out)["answers"].values()
    assert [row["answer"] for row in rows] == [one.text for one in found]
    code, _, err = tool("predict", "--model", directory, "--text", "red")
    assert code == 2 and 'a model trained on seq2seq takes --generate "..."' in err
    code, _, err = tool(*about, "--caption")
    assert code == 2 and "give one of" in err
    with pytest.raises(RecordError, match="the text is empty"):
        Pipeline(directory).ask(text="red\t")
    with pytest.raises(CapabilityError, match="finetune.py --task caption"):
        Pipeline(directory).check_asked_with("caption")


def test_dialogs_begin_with_what_they_are_about(tmp_path: Path) -> None:
    pipeline = Pipeline(model_of(tmp_path, dialog=True))
    first = pipeline.ask(text=["a red circle .", "what is it ?"])
    assert first != pipeline.ask(text=["a blue cross .", "what is it ?"])
    assert pipeline.ask(text="\twhat is it ?") == pipeline.ask(text=["", "what is it ?"])
    with pytest.raises(RecordError, match="has no source"):
        pipeline.ask(text="a red circle .")
