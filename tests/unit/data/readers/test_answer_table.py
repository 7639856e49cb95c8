"""The answers that pre-training on questions knows: equal forms, draws by score, files, and corpora."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from unimo.data.prepare.answer_table import prepare_answers
from unimo.data.prepare.jsonl import prepare_jsonl
from unimo.data.prepare.scenes import prepare_scenes
from unimo.data.readers.answer_table import AnswerTable, common_form, open_answer_table
from unimo.data.readers.open import open_corpus
from unimo.data.record import Record
from unimo.errors import ConfigError, DataError
from unimo.settings import CorpusConfig, DataConfig

SCENES = CorpusConfig("scenes", questions=True)


@pytest.mark.parametrize(
    ("given", "form"),
    [
        ("A man.", "man"),
        ("an  apple", "apple"),
        ("The Two", "2"),
        ("grey", "gray"),
        ("grey cat", "grey cat"),  # words are replaced where they are the whole answer
        ("two dogs", "two dogs"),
        (" on the table. ", "on the table"),
        ("theatre", "theatre"),
        ("anchor", "anchor"),
        ("No", "no"),
        ("a", "a"),
        ("the", "the"),
        (".", ""),
    ],
)
def test_common_form(given: str, form: str) -> None:
    assert common_form(given) == form


def question(**scores: float) -> Record:
    return Record("1", "c", text="what ?", answer_scores=scores)


def test_classes_are_drawn_by_their_share_of_the_scores() -> None:
    table = AnswerTable(["red", "Grey", "gray", "two", "2", "."])
    assert table.answers == ["red", "gray", "2"]
    rng = np.random.default_rng(0)
    assert [table.draw(question(**one), rng) for one in ({}, {"rare": 1.0}, {"Two.": 0.3})] == [-1, -1, 2]
    drawn = Counter(table.draw(question(red=0.3, grey=0.6, rare=1.0), rng) for _ in range(3000))
    assert set(drawn) == {0, 1} and drawn[1] / 3000 == pytest.approx(2 / 3, abs=0.04)
    assert table.scores(question(gray=0.3, grey=0.9)) == {1: 0.9}


def test_questions_stand_in_place_of_captions() -> None:
    data = DataConfig(pairs=[CorpusConfig(), SCENES])
    asked, told = (open_corpus(corpus, "val", "pairs", data)[0] for corpus in (SCENES, CorpusConfig()))
    assert asked.image == told.image and asked.image_group == told.image_group
    assert asked.text.endswith("?") and asked.answer_scores and not told.answer_scores
    table = open_answer_table("auto", data)
    assert len(table) == 23 and table.draw(asked, np.random.default_rng(0)) >= 0
    assert len(open_answer_table("auto", DataConfig())) == 0
    with pytest.raises(ConfigError, match="no corpus of data.pairs has questions"):
        open_answer_table("answers.json", DataConfig())


def test_list_of_frequent_answers_by_the_command(tmp_path: Path) -> None:
    prepare_scenes(tmp_path / "files", "gqa", 12)
    prepare_jsonl(tmp_path / "files", tmp_path / "gqa", "gqa")
    summary = prepare_answers([str(tmp_path / "gqa")], tmp_path / "out", count=5)
    corpus = CorpusConfig(str(tmp_path / "gqa"))
    counts = Counter(r.best_answer for r in open_corpus(corpus, "train", "vqa", DataConfig()))
    found = json.loads((tmp_path / "out/answers.json").read_text())
    assert [counts[answer] for answer in found] == sorted(counts.values(), reverse=True)[:5]
    covered = sum(counts[answer] for answer in found) / counts.total()
    assert (summary["answers"], summary["share_of_questions"]) == (5, round(covered, 4))
    data = DataConfig(pairs=[SCENES], root=str(tmp_path))
    assert open_answer_table("out/answers.json", data).answers == found
    for name, content in (("none", None), ("empty", "[]"), ("no_list", '{"a": 1}'), ("cut", '["a"')):
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=name):
            open_answer_table(name, data)
