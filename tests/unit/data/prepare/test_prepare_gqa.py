"""Preparation of GQA: tables with what its scores read, choices, classes, and what is broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from picture_files import jpeg, write_json, write_pictures

from unimo.data.prepare.gqa import prepare_gqa
from unimo.data.readers.open import open_answers, open_corpus
from unimo.data.record import Record
from unimo.errors import DataError
from unimo.metrics.gqa import QuestionFacts
from unimo.settings import CorpusConfig, DataConfig


def question(image: str, answer: str | None, **more: Any) -> dict[str, Any]:
    """A question with the keys of GQA's own files."""
    return {
        "semantic": [{"operation": "select", "dependencies": [], "argument": "dog (7)"}],
        "entailed": ["02"],
        "equivalent": ["01"],
        "question": f"What color is {image}?",
        "imageId": image,
        "isBalanced": True,
        "groups": {"global": None, "local": "10-q_color"},
        "answer": answer,
        "semanticStr": "select: dog (7)",
        "annotations": {"answer": {}, "question": {"3": "7"}, "fullAnswer": {}},
        "types": {"detailed": "color", "semantic": "attr", "structural": "query"},
        "fullAnswer": "It is red.",
        **more,
    }


def sources(folder: Path, inner: str = "", **more: Any) -> tuple[Path, Path]:
    """Folders of question files and of pictures; `more` are further questions of train."""
    files = {
        "train_balanced": {"01": question("n16", "red"), "02": question("7", "yes"), **more},
        "val_balanced": {"11": question("8", "blue", groups={"global": "color"})},
        "val_all": {"11": question("8", "blue"), "12": question("8", "mauve", isBalanced=False)},
        "testdev_balanced": {"21": question("9", "pink")},
        "submission_all": {"31": {"question": "Who?", "imageId": "9", "isBalanced": False}},
    }
    for name, content in files.items():
        write_json(folder / "gqa" / f"{name}_questions.json", content)
    write_json(folder / "gqa/val_choices.json", {"11": {"valid": ["red", "blue"], "plausible": ["blue"]}})
    write_pictures(folder / "images" / inner, [f"{name}.jpg" for name in ("n16", "7", "8", "9")])
    return folder / "gqa", folder / "images"


def records(folder: Path, split: str) -> list[Record]:
    return list(open_corpus(CorpusConfig(str(folder)), split, "gqa", DataConfig()))


@pytest.mark.parametrize("inner", ["", "images"])
def test_tables_have_what_the_scores_read(tmp_path: Path, inner: str) -> None:
    summary = prepare_gqa(*sources(tmp_path, inner), tmp_path / "out")
    assert summary["answers"] == 3 and summary["broken"] == 0
    lost = {name: part["answers_without_class"] for name, part in summary["splits"].items()}
    assert lost == {"train": 0, "val": 0, "val_all": 1, "testdev": 1, "test": 0}
    row = pa.ipc.open_file(str(tmp_path / "out/gqa_train.arrow")).read_all().to_pylist()[0]
    assert row == {
        "image": jpeg(0),
        "questions": ["What color is n16?"],
        "answers": [["red"]],
        "answer_labels": [[0]],
        "answer_scores": [[1.0]],
        "image_id": "n16",
        "question_id": ["01"],
        "split": "train",
        **{"structural": ["query"], "semantic": ["attr"], "detailed": ["color"], "group": [""]},
        **{"entailed": [["02"]], "balanced": [True], "valid": [[]], "plausible": [[]]},
    }
    (val,) = records(tmp_path / "out", "val")
    facts = QuestionFacts(
        "query", "attr", "color", "color", ("02",), valid=("red", "blue"), plausible=("blue",)
    )
    assert (val.question_id, val.best_answer, val.facts) == ("11", "blue", facts)
    assert [one.facts.balanced for one in records(tmp_path / "out", "val_all")] == [True, False]
    assert records(tmp_path / "out", "test")[0].answer_scores == {}
    corpus = CorpusConfig(str(tmp_path / "out"))
    assert open_answers(corpus, DataConfig()) == ["red", "yes", "blue"]


BROKEN = {
    "a list": [],
    "no picture": question("", "red"),
    "no question": question("7", "red", question=None),
    "no answer": question("7", None),
    "types of a list": question("7", "red", types=["query"]),
    "a type of a number": question("7", "red", types={"structural": 5}),
    "groups of a text": question("7", "red", groups="color"),
    "entailed of a text": question("7", "red", entailed="01"),
    "an id of a list": question("7", "red", entailed=[["01"]]),
    "balanced in words": question("7", "red", isBalanced="yes"),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_broken_questions_are_counted(tmp_path: Path, broken: Any) -> None:
    given = sources(tmp_path, **{"03": broken})
    assert prepare_gqa(*given, tmp_path / "out", max_missing_rate=0.5)["broken"] == 1
    assert len(records(tmp_path / "out", "train")) == 2
    with pytest.raises(DataError, match="train_balanced_questions.json: '03'"):
        prepare_gqa(*given, tmp_path / "again")


def test_files_that_are_something_else(tmp_path: Path) -> None:
    annotations, images = sources(tmp_path)
    path = annotations / "train_balanced_questions.json"
    for content, said in (
        ("[]", "expected a JSON object"),
        ('{"01"', "JSON"),
        ("{}", "train_balanced_questions.json: no question"),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match=said):
            prepare_gqa(annotations, images, tmp_path / "out")
    path.unlink()
    with pytest.raises(DataError, match="no train_balanced_questions.json"):
        prepare_gqa(annotations, images, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    sources(tmp_path)
    write_json(annotations / "val_choices.json", {"11": ["red"]})
    with pytest.raises(DataError, match="'11': expected a JSON object"):
        prepare_gqa(annotations, images, tmp_path / "out")
    write_json(annotations / "val_choices.json", {})
    assert json.loads((annotations / "val_choices.json").read_text()) == {}
    prepare_gqa(annotations, images, tmp_path / "out")
    assert records(tmp_path / "out", "val")[0].facts.valid == ()
