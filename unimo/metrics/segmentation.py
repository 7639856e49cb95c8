"""Scores of semantic segmentation, from the counts of pixels by true and predicted class."""

from __future__ import annotations

import numpy as np


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count pixels by true class (rows) and predicted class (columns), int64 [classes, classes].

    Pixels whose true class is not in 0 .. classes - 1, such as 255 for none, are left out.

    Args:
        truth, predicted: numbers of classes, of one shape.
    """
    truth, predicted = (np.asarray(each).ravel().astype(np.int64) for each in (truth, predicted))
    kept = (truth >= 0) & (truth < classes)
    counts = np.bincount(truth[kept] * classes + predicted[kept], minlength=classes**2)
    return counts.reshape(classes, classes)


def class_ious(counts: np.ndarray) -> np.ndarray:
    """Compute intersection over union of each class in percent, NaN for one that neither map has."""
    hits = np.diag(counts)
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    return 100.0 * hits / np.where(union == 0, np.nan, union)


def scores(counts: np.ndarray) -> dict[str, float]:
    """Compute the scores of a confusion matrix [classes, classes], in percent.

    Returns:
        `miou`, the mean over the classes that occur in truth or prediction; `mean_accuracy`, the mean over
        the classes that occur in truth of the share of their pixels that is found; `pixel_accuracy`; and
        `majority` and `majority_miou`, the pixel accuracy and the mIoU of the most frequent class everywhere.
        Nothing without pixels.
    """
    total = counts.sum()
    if not total:
        return {}
    true = counts.sum(axis=1)
    found = 100.0 * np.diag(counts) / np.where(true == 0, np.nan, true)
    majority = 100.0 * true.max() / total
    return {
        "miou": float(np.nanmean(class_ious(counts))),
        "mean_accuracy": float(np.nanmean(found)),
        "pixel_accuracy": float(100.0 * np.trace(counts) / total),
        "majority": float(majority),
        "majority_miou": float(majority / np.count_nonzero(true)),
    }
