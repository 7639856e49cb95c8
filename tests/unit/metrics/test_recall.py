"""Recall at k against a plain count, ties, and excluded candidates."""

import numpy as np
import pytest

from unimo.metrics import recall
from unimo.metrics.recall import retrieval_recall


def test_hand_made_matrix():
    # Texts 0 and 1 belong to image a, text 2 to image b.
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.4]])
    result = retrieval_recall(scores, ["a", "a", "b"], ["a", "b"])
    # Images for texts: right, wrong, right. Texts for images: a best is text 0; b best is text 1 (wrong).
    assert result["ir_r1"] == pytest.approx(200 / 3)
    assert result["tr_r1"] == 50.0
    assert result["ir_r5"] == result["tr_r10"] == 100.0
    assert result["rsum"] == pytest.approx(200 / 3 + 50 + 400)
    assert result["rmean"] == pytest.approx(result["rsum"] / 6)


def test_equals_sorting_when_there_are_no_ties(monkeypatch):
    monkeypatch.setattr(recall, "_ROWS_AT_ONCE", 7)
    rng = np.random.default_rng(0)
    images = np.arange(20)
    texts = np.repeat(images, 5)
    scores = rng.normal(size=(100, 20)) + 1.5 * (texts[:, None] == images)
    result = retrieval_recall(scores, texts, images)
    for k in (1, 5, 10):
        by_text = np.argsort(-scores, axis=1)[:, :k]
        by_image = np.argsort(-scores.T, axis=1)[:, :k]
        assert result[f"ir_r{k}"] == pytest.approx(100 * np.mean((by_text == texts[:, None]).any(1)))
        assert result[f"tr_r{k}"] == pytest.approx(100 * np.mean((texts[by_image] == images[:, None]).any(1)))


def test_constant_scores_do_not_count_as_found():
    result = retrieval_recall(np.zeros((11, 11)), np.arange(11), np.arange(11))
    assert result["rsum"] == 0.0


def test_left_out_candidates_are_never_found():
    scores = np.full((2, 2), -np.inf)
    scores[0, 0] = 1.0
    result = retrieval_recall(scores, ["a", "b"], ["a", "b"])
    assert result["ir_r10"] == 50.0 and result["tr_r10"] == 50.0


@pytest.mark.parametrize(
    ("scores", "texts", "images", "message"),
    [
        (np.zeros((2, 3)), ["a", "b"], ["a", "b"], "do not fit"),
        (np.full((1, 1), np.nan), ["a"], ["a"], "NaN"),
        (np.zeros((1, 1)), ["a"], ["b"], "matches image id 'a'"),
    ],
)
def test_bad_input(scores, texts, images, message):
    with pytest.raises(ValueError, match=message):
        retrieval_recall(scores, texts, images)
