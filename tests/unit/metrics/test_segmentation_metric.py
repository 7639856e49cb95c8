"""Scores of segmentation against their definitions, pixel by pixel and class by class."""

from __future__ import annotations

import numpy as np
import pytest

from unimo.metrics.segmentation import class_ious, confusion, scores

CLASSES = 5


def by_definition(truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Intersections and unions of sets of pixels."""
    known = truth != 255
    ious, recalls, sizes = [], [], []
    for number in range(CLASSES):
        true, guessed = known & (truth == number), known & (found == number)
        if (true | guessed).any():
            ious.append((true & guessed).sum() / (true | guessed).sum())
        if true.any():
            recalls.append((true & guessed).sum() / true.sum())
            sizes.append(true.sum())
    everywhere = [max(sizes) / known.sum()] + [0.0] * (len(sizes) - 1)
    return {
        "miou": 100 * np.mean(ious),
        "mean_accuracy": 100 * np.mean(recalls),
        "pixel_accuracy": 100 * (truth == found)[known].mean(),
        "majority": 100 * max(sizes) / known.sum(),
        "majority_miou": 100 * np.mean(everywhere),
    }


@pytest.mark.parametrize("missing", [None, 0, 4])
def test_scores_of_random_maps(missing: int | None) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, CLASSES, (3, 17, 23)).astype(np.uint8)
    found = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, CLASSES, truth.shape))
    if missing is not None:  # a class that truth never shows, and one that neither does
        truth[truth == missing] = 3
        found[found == 2] = 3
        truth[truth == 2] = 3
    truth[rng.random(truth.shape) < 0.2] = 255
    counts = sum(confusion(*pair, CLASSES) for pair in zip(truth, found, strict=True))
    assert counts.sum() == (truth != 255).sum()
    assert scores(counts) == pytest.approx(by_definition(truth, found))


def test_without_pixels_there_are_no_scores() -> None:
    counts = confusion(np.full((2, 2), 255), np.zeros((2, 2)), CLASSES)
    assert scores(counts) == {} and np.isnan(class_ious(counts)).all()
