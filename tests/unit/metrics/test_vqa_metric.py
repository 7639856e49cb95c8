"""VQA normalisation, soft scores, official accuracy."""

import pytest
from official_vqa import vqa_accuracy

from unimo.metrics.vqa import (
    accuracy_by_type,
    answer_type,
    normalise_answer,
    soft_score,
    soft_scores,
)


@pytest.mark.parametrize(
    ("raw", "normalised"),
    [
        ("Yes", "yes"),
        ("  two   dogs ", "2 dogs"),
        ("none", "0"),
        ("Ten", "10"),
        ("eleven", "eleven"),
        ("a cat and the dog", "cat and dog"),
        # A mark between letters becomes a blank; a mark next to a blank is removed.
        ("black-white", "black white"),
        ("black/ white", "black white"),
        ("black -white", "black white"),
        # The decision depends on the original string, once for all occurrences of the mark.
        ("t-shirt - red", "tshirt red"),
        # A comma between digits deletes every mark, not only itself.
        ("1,000-2,000", "10002000"),
        ("10,5", "105"),
        ("yes,no", "yes no"),
        # Colons and apostrophes are not among the 21 marks.
        ("10:30", "10:30"),
        ("dog's", "dog's"),
        # Periods are removed unless a digit follows; the mistyped look-behind does not keep "5.".
        ("5.", "5"),
        ("5.5", "5.5"),
        ("p.m.", "pm"),
        ("u.s.a.", "usa"),
        # The flag passed as the count: only 32 periods are removed.
        ("x" + "." * 40, "x" + "." * 8),
        # Contractions are repaired if exactly one apostrophe is missing.
        ("dont", "don't"),
        ("couldntve", "couldntve"),
        ("couldnt've", "couldn't've"),
        ("ow's'at", "'ow's'at"),
        ("yall'd've", "y'all'd've"),
        ("somebody'd", "somebodyd"),
        ("its", "its"),
        # Number words come first, so "none" never survives as an article would.
        ("the", ""),
        ("<br>", "br"),
        ("what?", "what"),
        ("@home", "home"),
    ],
)
def test_normalise_answer(raw, normalised):
    assert normalise_answer(raw) == normalised


def test_soft_scores_equal_the_official_accuracy_of_ten_annotators():
    for count in range(11):
        answers = ["yes"] * count + [f"other {i}" for i in range(10 - count)]
        assert soft_score(count) == pytest.approx(vqa_accuracy("yes", answers))


def test_soft_scores_count_and_scale_to_ten_annotators():
    answers = ["red"] * 3 + ["blue"] * 2 + ["green"] + ["pink"] * 4
    assert soft_scores(answers) == {"red": 0.9, "blue": 0.6, "green": 0.3, "pink": 1.0}
    assert soft_scores(["red"]) == {"red": 1.0}
    assert soft_scores(["red", "red", "blue"]) == {"red": 1.0, "blue": 0.9}
    # 1.67 and 3.75 of ten are rounded, not cut.
    assert soft_scores(["red"] * 5 + ["blue"]) == {"red": 1.0, "blue": 0.6}
    assert soft_scores(["red"] * 5 + ["blue"] * 3) == {"red": 1.0, "blue": 1.0}


def test_accuracy_normalises_unless_all_annotators_agree():
    assert vqa_accuracy("Two", ["2"] * 9 + ["three"]) == 1.0
    assert vqa_accuracy("two", ["2"] * 10) == 0.0
    assert vqa_accuracy("2\n", ["2"] * 10) == 1.0
    assert vqa_accuracy("cat", ["dog"] * 10) == 0.0
    assert vqa_accuracy("cat", []) == 0.0


def test_answer_type_follows_the_best_answer():
    assert answer_type({"yes": 0.3, "maybe": 1.0}) == "other"
    assert answer_type({"yes": 1.0, "maybe": 0.3}) == "yes/no"
    assert answer_type({"2": 1.0}) == answer_type({"2.5": 1.0}) == "number"
    assert answer_type({}) == ""


def test_accuracy_by_type():
    result = accuracy_by_type([1.0, 0.0, 0.3], ["yes/no", "yes/no", ""])
    assert result == pytest.approx({"overall": 130 / 3, "unknown": 30.0, "yes/no": 50.0})
    assert accuracy_by_type([], []) == {}
