"""CoQA's F1 and exact match, by hand and against a second implementation."""

from __future__ import annotations

import random
import re
import string

import pytest

from unimo.metrics.generation import answer_tokens, coqa_scores, token_f1, turn_score


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The  Cat!", ["cat"]),
        ("an apple, a day", ["apple", "day"]),
        ("U.S.A.", ["usa"]),
        ("mother-in-law", ["motherinlaw"]),
        ("theatre", ["theatre"]),
        ("the", []),
        ("", []),
    ],
)
def test_normalisation(text: str, tokens: list[str]) -> None:
    assert answer_tokens(text) == tokens


@pytest.mark.parametrize(
    ("answer", "right", "value"),
    [
        ("white", "white", 1.0),
        ("white cat", "white", 2 / 3),
        ("white white cat", "white cat cat", 2 / 3),
        ("dog", "cat", 0.0),
        ("", "cat", 0.0),
        ("the", "a", 1.0),  # both become empty
        ("unknown", "unknown", 1.0),
    ],
)
def test_f1_by_hand(answer: str, right: str, value: float) -> None:
    assert token_f1(answer_tokens(answer), answer_tokens(right)) == pytest.approx(value)


def test_several_references_leave_one_out_in_turn() -> None:
    # Without "white" the best is 0 twice and 1 once: each of three subsets of two answers.
    def f1(answer: str, *references: str) -> float:
        return turn_score([token_f1(answer_tokens(answer), answer_tokens(text)) for text in references])

    assert f1("white", "white", "black", "black") == pytest.approx(2 / 3)
    assert f1("white", "white", "white", "black") == pytest.approx(1)
    assert f1("white cat", "white", "black") == pytest.approx((0 + 2 / 3) / 2)
    assert f1("white cat", "white") == pytest.approx(2 / 3)


def slow_score(text: str, references: list[str]) -> tuple[float, float]:
    """Compute F1 and exact match of a turn step by step."""

    def clean(answer: str) -> str:
        kept = "".join(c for c in answer.lower() if c not in set(string.punctuation))
        return " ".join(re.sub(r"\b(?:an?|the)\b", " ", kept).split())

    def f1(answer: str, right: str) -> float:
        left, same = right.split(), 0
        for word in answer.split():
            if word in left:
                left.remove(word)
                same += 1
        if not answer or not right:
            return float(answer == right)
        if same == 0:
            return 0.0
        precision, recall = same / len(answer.split()), same / len(right.split())
        return 2 * precision * recall / (precision + recall)

    said, right = clean(text), [clean(reference) for reference in references]
    groups = [right] if len(right) == 1 else [right[:i] + right[i + 1 :] for i in range(len(right))]
    f1s = [max(f1(said, one) for one in group) for group in groups]
    exact = [max(float(said == one) for one in group) for group in groups]
    return sum(f1s) / len(groups), sum(exact) / len(groups)


def test_equals_the_definition_on_random_answers() -> None:
    chance = random.Random(0)
    words = ["the", "a", "cat", "white", "Dog!", "unknown", "yes", "it's", "no.", ""]

    def text() -> str:
        return " ".join(chance.choices(words, k=chance.randint(1, 4)))

    rows = [
        (text(), [text() for _ in range(chance.choice([1, 4]))], chance.choice(["cnn", "race"]))
        for _ in range(500)
    ]
    expected = [slow_score(answer, references) for answer, references, _ in rows]
    scores = coqa_scores(rows)
    assert scores["f1"] == pytest.approx(100 * sum(f1 for f1, _ in expected) / 500)
    assert scores["exact_match"] == pytest.approx(100 * sum(exact for _, exact in expected) / 500)
    news = [f1 for (f1, _), row in zip(expected, rows, strict=True) if row[2] == "cnn"]
    assert scores["f1/news"] == pytest.approx(100 * sum(news) / len(news))
    assert set(scores) == {"f1", "exact_match", "f1/news", "f1/mid-high_school"}
