"""Scores of GLUE: accuracy, F1 (QQP, MRPC), Matthews (CoLA), Pearson and Spearman correlation (STS-B).

All are in percent, as GLUE prints them. scikit-learn and SciPy compute the correlations; importing them takes
a second, so it happens where they are used.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Numbers = Sequence[float] | np.ndarray


def accuracy(predictions: Numbers, labels: Numbers) -> float:
    """Compute the share of equal entries, in percent."""
    predictions, labels = _pair(predictions, labels)
    return 100.0 * float(np.mean(predictions == labels))


def majority(labels: Numbers) -> float:
    """Compute the accuracy of always predicting the most frequent label, in percent."""
    return 100.0 * float(np.unique(labels, return_counts=True)[1].max() / len(labels))


def f1(predictions: Numbers, labels: Numbers) -> float:
    """Compute the F1 of class 1, in percent; 0 when it is never right."""
    from sklearn.metrics import f1_score

    predictions, labels = _pair(predictions, labels)
    return 100.0 * float(f1_score(labels, predictions, zero_division=0.0))


def matthews(predictions: Numbers, labels: Numbers) -> float:
    """Compute the Matthews correlation coefficient, times 100; 0 when either side is constant."""
    from sklearn.metrics import matthews_corrcoef

    predictions, labels = _pair(predictions, labels)
    return 100.0 * float(matthews_corrcoef(labels, predictions))


def pearson(predictions: Numbers, scores: Numbers) -> float:
    """Compute the Pearson correlation, times 100; 0 when either side is constant."""
    from scipy.stats import pearsonr

    predictions, scores = _pair(predictions, scores)
    if len(scores) < 2 or np.ptp(predictions) == 0 or np.ptp(scores) == 0:
        return 0.0
    return 100.0 * float(pearsonr(predictions.astype(np.float64), scores.astype(np.float64))[0])


def spearman(predictions: Numbers, scores: Numbers) -> float:
    """Compute the Spearman rank correlation (mean ranks for ties), times 100; 0 when a side is constant."""
    from scipy.stats import rankdata

    predictions, scores = _pair(predictions, scores)
    return pearson(rankdata(predictions), rankdata(scores))


def _pair(predictions: Numbers, truth: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """Convert both to arrays.

    Raises:
        ValueError: different lengths, no entries, or a prediction that is not finite.
    """
    predictions, truth = np.asarray(predictions), np.asarray(truth)
    if predictions.shape != truth.shape or predictions.ndim != 1 or not len(truth):
        raise ValueError(f"{predictions.shape} predictions do not fit {truth.shape} labels")
    if not np.isfinite(predictions).all():
        raise ValueError("a prediction is not finite")
    return predictions, truth
