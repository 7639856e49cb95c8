"""GLUE's metrics against their formulas."""

from __future__ import annotations

import numpy as np
import pytest

from unimo.metrics.glue import accuracy, f1, majority, matthews, pearson, spearman


def test_accuracy_and_majority() -> None:
    assert accuracy([1, 0, 1, 1], [1, 1, 1, 0]) == 50.0
    assert majority([1, 1, 1, 0]) == 75.0


def test_matthews_is_the_correlation_of_the_table() -> None:
    guesses, labels = np.array([1, 1, 1, 0, 0, 1, 0, 1]), np.array([1, 1, 0, 0, 1, 1, 0, 0])
    tp, tn = ((guesses == labels) & (labels == value) for value in (1, 0))
    fp, fn = ((guesses != labels) & (guesses == value) for value in (1, 0))
    tp, tn, fp, fn = (int(part.sum()) for part in (tp, tn, fp, fn))
    expected = (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert matthews(guesses, labels) == pytest.approx(100 * expected)
    assert matthews([1, 1, 1], [1, 0, 1]) == 0.0


def test_correlations() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 5, 50)
    guesses = scores + rng.normal(size=50)
    assert pearson(guesses, scores) == pytest.approx(100 * np.corrcoef(guesses, scores)[0, 1])
    assert spearman(np.exp(scores), scores) == pytest.approx(100.0)
    assert pearson(np.exp(scores), scores) < 90
    # Ranks of [1, 2, 2, 3] are 1, 2.5, 2.5, 4.
    expected = 100 * np.corrcoef([1, 2.5, 2.5, 4], [1, 3, 2, 4])[0, 1]
    assert spearman([1, 2, 2, 3], [10, 30, 20, 40]) == pytest.approx(expected)
    assert pearson([2.0, 2.0], [1.0, 3.0]) == spearman([2.0, 2.0], [1.0, 3.0]) == 0.0


def test_what_cannot_be_scored() -> None:
    for guesses, labels in (([1], [1, 0]), ([], [])):
        with pytest.raises(ValueError, match="do not fit"):
            accuracy(guesses, labels)
    with pytest.raises(ValueError, match="not finite"):
        pearson([np.nan, 1.0], [1.0, 2.0])


def test_f1_is_the_harmonic_mean_of_precision_and_recall_of_class_1() -> None:
    guesses, labels = np.array([1, 1, 1, 0, 0]), np.array([1, 0, 1, 1, 0])
    precision, recall = 2 / 3, 2 / 3
    assert f1(guesses, labels) == pytest.approx(100 * 2 * precision * recall / (precision + recall))
    assert f1(np.zeros(3), np.ones(3)) == 0.0
