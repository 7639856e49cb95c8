"""What anchors and proposals should learn from one picture's objects. Legend: N boxes, G objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppdet_features.boxes import encode, iou
from ppdet_features.config import BoxAssignerConfig, RpnTargetConfig


@dataclass(frozen=True)
class Targets:
    """Objects of one picture in pixels of the network's input."""

    boxes: np.ndarray
    """[G, 4] float32."""
    labels: np.ndarray
    """[G] int64."""
    attributes: np.ndarray
    """[G, A] float32: 1 for each attribute that an object has; rows of zeros are not learned from."""


def match(
    boxes: np.ndarray, objects: np.ndarray, positive: float, negative: float, keep_best: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The object that each box stands for.

    Args:
        boxes: [N, 4].
        objects: [G, 4]; G may be 0.
        positive: overlap from which a box stands for an object.
        negative: overlap below which it is background.
        keep_best: the boxes that overlap an object most are positive whatever the overlap.

    Returns:
        Number of the most overlapping object [N], and 1 positive, 0 background, -1 neither [N].
    """
    if len(objects) == 0:
        return np.zeros(len(boxes), np.int64), np.zeros(len(boxes), np.int64)
    overlap = iou(boxes, objects)
    nearest, best = overlap.argmax(axis=1), overlap.max(axis=1)
    kind = np.where(best >= positive, 1, np.where(best < negative, 0, -1))
    if keep_best:
        highest = overlap.max(axis=0)
        kind[((overlap == highest) & (highest > 0)).any(axis=1)] = 1
    return nearest, kind


def sample(
    kind: np.ndarray, number: int, share: float, rng: np.random.Generator | None
) -> tuple[np.ndarray, np.ndarray]:
    """Positive and background boxes to learn from: `number` at most, positive at most `share` of them.

    Without `rng` the first ones are taken.
    """
    positive, background = np.flatnonzero(kind == 1), np.flatnonzero(kind == 0)
    if rng is not None:
        positive, background = rng.permutation(positive), rng.permutation(background)
    positive = positive[: int(number * share)]
    return positive, background[: number - len(positive)]


def rpn_targets(
    anchors: np.ndarray, targets: Targets, config: RpnTargetConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Anchors [N, 4] to numbers of the positive ones [P], of the background ones, and deltas [P, 4]."""
    nearest, kind = match(
        anchors, targets.boxes, config.positive_overlap, config.negative_overlap, keep_best=True
    )
    positive, background = sample(
        kind, config.batch_size_per_im, config.fg_fraction, rng if config.use_random else None
    )
    if len(positive) == 0:
        return positive, background, np.zeros((0, 4), np.float32)
    return positive, background, encode(anchors[positive], targets.boxes[nearest[positive]])


def region_targets(
    proposals: np.ndarray, targets: Targets, config: BoxAssignerConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The regions that the head learns from, positive ones first.

    The objects themselves are among the candidates, so that there is something to learn from the start.

    Returns:
        Boxes [R, 4] and, of the first ones that are positive, the number of the object [P].
    """
    candidates = np.concatenate([proposals, targets.boxes]).astype(np.float32)
    candidates = candidates[(candidates[:, 2:] > candidates[:, :2]).all(axis=1)]
    nearest, kind = match(candidates, targets.boxes, config.fg_thresh, config.bg_thresh, keep_best=False)
    positive, background = sample(
        kind, config.batch_size_per_im, config.fg_fraction, rng if config.use_random else None
    )
    return candidates[np.concatenate([positive, background])], nearest[positive]
