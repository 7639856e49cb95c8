"""Metrics of generated texts: ROUGE implemented again, BLEU and METEOR by pycocoevalcap, others by hand."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path

import pytest

from unimo.errors import ConfigError
from unimo.metrics import caption
from unimo.metrics.generation import Written, check_metrics, generation_scores, sentences, split

needs_rouge = pytest.mark.skipif(
    importlib.util.find_spec("rouge_score") is None, reason="rouge-score is not installed"
)


@pytest.fixture(scope="module")
def rows(shared: Path) -> list[Written]:
    """Two of five human captions of 60 images as a text of two sentences, and the others as references."""
    content = json.loads((shared / "data/flickr8k_800/dataset_flickr8k.json").read_text())
    texts = [[sentence["raw"] for sentence in image["sentences"]] for image in content["images"][:60]]
    return [
        Written(f"{text[0]} {text[1]}", (f"{text[2]} {text[3]}", f"{text[4]} {text[0]}")) for text in texts
    ]


def lcs(first: list[str], second: list[str]) -> set[int]:
    """Return the indices in `first` of a longest common subsequence with `second`."""
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, one in enumerate(first):
        for j, other in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if one == other else max(table[i][j + 1], table[i + 1][j])
    taken, i, j = set(), len(first), len(second)
    while i and j:
        if first[i - 1] == second[j - 1]:
            taken.add(i - 1)
            i, j = i - 1, j - 1
        elif table[i][j - 1] > table[i - 1][j]:
            j -= 1
        else:
            i -= 1
    return taken


def f1(hits: float, guessed: int, right: int) -> float:
    precision, recall = hits / max(guessed, 1), hits / max(right, 1)
    return 2 * precision * recall / (precision + recall) if hits else 0.0


def rouge_by_hand(text: str, reference: str) -> dict[str, float]:
    """Compute ROUGE-1, -2, -L and summary-level -L of Lin (2004), without stemming."""

    def words(sentence: str) -> list[str]:
        return "".join(c if c in "abcdefghijklmnopqrstuvwxyz0123456789" else " " for c in sentence).split()

    said, right = (
        [words(line) for line in sentences(one.lower(), marked=False).split("\n")]
        for one in (text, reference)
    )
    flat = [sum(part, []) for part in (said, right)]
    scores = {}
    for order in (1, 2):
        counts = [Counter(zip(*(part[i:] for i in range(order)), strict=False)) for part in flat]
        hits = sum((counts[0] & counts[1]).values())
        scores[f"rouge_{order}"] = f1(hits, sum(counts[0].values()), sum(counts[1].values()))
    scores["rouge_l"] = f1(len(lcs(flat[1], flat[0])), len(flat[0]), len(flat[1]))
    # The union of each reference sentence with the whole text; no word counts more often than it occurs.
    left = [Counter(part) for part in flat]
    union = 0
    for sentence in right:
        places = sorted(set().union(*(lcs(sentence, one) for one in said)))
        for word in (sentence[place] for place in places):
            if left[0][word] and left[1][word]:
                union += 1
                left[0][word] -= 1
                left[1][word] -= 1
    scores["rouge_lsum"] = f1(union, len(flat[0]), len(flat[1]))
    return scores


@needs_rouge
def test_rouge_is_that_of_lin_2004(rows: list[Written]) -> None:
    scores = generation_scores(rows, ["rouge"], stem=False)
    by_hand = [[rouge_by_hand(row.text, reference) for reference in row.references] for row in rows]
    for name, value in scores.items():
        best = [max(found[name] for found in group) for group in by_hand]
        assert value == pytest.approx(100 * sum(best) / len(best), abs=1e-9), name
    assert set(scores) == {"rouge_1", "rouge_2", "rouge_l", "rouge_lsum"}
    assert scores["rouge_lsum"] > scores["rouge_l"]  # sentences may come in another order


@needs_rouge
def test_stems_are_compared_unless_told_otherwise() -> None:
    row = [Written("The dogs were running.", ("a dog runs",))]
    assert generation_scores(row, ["rouge"], stem=False)["rouge_1"] == 0
    # dogs and running; words of three letters stay
    assert generation_scores(row, ["rouge"])["rouge_1"] == pytest.approx(100 * f1(2, 4, 3))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("He came. He saw .", ["He came.", "He saw ."]),
        ("he came . he saw . ", ["he came .", "he saw ."]),
        ("he came <q> he saw", ["he came", "he saw"]),
        ("he came [X_SEP] he saw? yes! 3.5", ["he came", "he saw? yes! 3.5"]),
        ("mr. smith met u.s. troops . <q> he left .", ["mr. smith met u.s. troops .", "he left ."]),
        ("first one. still\nsecond", ["first one. still", "second"]),
        ("he saw? yes! 3.5", ["he saw?", "yes!", "3.5"]),
        ("one", ["one"]),
    ],
)
def test_sentences(text: str, lines: list[str]) -> None:
    marked = any(mark in text for mark in ("<q>", "[X_SEP]", "\n"))
    assert sentences(text, marked).split("\n") == lines


def test_texts_are_split_as_bert_does() -> None:
    assert split("What's the U.S. GDP?") == ["what", "'", "s", "the", "u", ".", "s", ".", "gdp", "?"]


def test_bleu_and_rouge_l_are_those_of_the_coco_evaluation(rows: list[Written]) -> None:
    pytest.importorskip("pycocoevalcap")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.rouge.rouge import Rouge

    said = {row: [" ".join(split(one.text))] for row, one in enumerate(rows)}
    human = {row: [" ".join(split(text)) for text in one.references] for row, one in enumerate(rows)}
    scores = generation_scores(rows, ["bleu", "coco_rouge_l"])
    bleus, _ = Bleu(4).compute_score(human, said, verbose=0)
    assert [scores[f"bleu_{order}"] for order in (1, 2, 3, 4)] == pytest.approx([100 * b for b in bleus])
    assert scores["coco_rouge_l"] == pytest.approx(100 * Rouge().compute_score(human, said)[0])


@pytest.mark.slow
def test_meteor_is_that_of_the_java_program(rows: list[Written]) -> None:
    if caption.find_evaluation() is None:
        assert generation_scores(rows, ["meteor"]) == {}
        return
    from pycocoevalcap.meteor.meteor import Meteor

    said = {row: [" ".join(split(one.text))] for row, one in enumerate(rows)}
    human = {row: [" ".join(split(text)) for text in one.references] for row, one in enumerate(rows)}
    scores = generation_scores(rows, ["meteor"])
    assert set(scores) == {"meteor"}  # and not SPICE
    assert scores["meteor"] == pytest.approx(100 * Meteor().compute_score(human, said)[0], abs=1e-6)


def test_exact_and_coqa_and_nothing() -> None:
    rows = [Written("Red circle?", ("red circle ?", "x")), Written("red", ("blue",), "cnn")]
    assert generation_scores(rows, ["exact"]) == {"exact": 50.0}
    assert generation_scores(rows, ["coqa"])["f1/news"] == 0
    assert generation_scores([], ["exact", "bleu", "coqa"]) == {}


@pytest.mark.parametrize("name", ["rouge", "bleu", "coco_rouge_l", "coqa", "exact"])
@pytest.mark.parametrize("text", ["a dog \ud83d", "\udce9", "a\0b", "", " \n", "\u200b", "a ||| b", "\x1c"])
def test_texts_that_are_none_have_scores_too(name: str, text: str) -> None:
    for row in (Written(text, ("a dog",)), Written("a dog", (text,)), Written(text, (text, "a dog"))):
        scores = generation_scores([row, Written("a", ("a",))], [name])
        assert scores and all(0 <= value <= 100 for value in scores.values())


def test_metrics_that_cannot_be_computed_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="task.metrics is empty; known: rouge, bleu"):
        check_metrics([])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_metrics(["bleu", "coqa"])
    with pytest.raises(ConfigError, match="rouge-score.*pip install"):
        check_metrics(["bleu", "rouge"])


@needs_rouge
def test_marked_sentences_keep_their_order() -> None:
    """The first of two marked sentences is the second reference, in another order."""
    row = [Written("c . d . a <q> e", ("a . c . d <q> e",))]
    # The longest common subsequence of the first sentences is "c d", and that of the second ones "e".
    assert generation_scores(row, ["rouge"])["rouge_lsum"] == pytest.approx(100 * 3 / 4)


@needs_rouge
def test_one_sentence_is_not_cut_where_the_reference_has_marks() -> None:
    row = [Written("c . d . a", ("a . c . d <q> e",))]
    # "c d" of three and of four words; split at the full stops it would be "c", "d" and "a".
    assert generation_scores(row, ["rouge"])["rouge_lsum"] == pytest.approx(100 * f1(2, 3, 4))


def test_a_missing_meteor_is_said(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(caption, "find_evaluation", lambda: None)
    check_metrics(["bleu", "meteor"])
    assert "no METEOR" in caplog.text
