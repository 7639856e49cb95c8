"""Training targets of anchors and proposals from the objects of one image.

Legend: N boxes, G objects, A attributes, P positive ones, R regions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppdet_features.boxes import encode, iou
from ppdet_features.config import BoxAssignerConfig, RpnTargetConfig


@dataclass(frozen=True)
class Targets:
    """Objects of one image."""

    boxes: np.ndarray
    """[G, 4] float32, in pixels of the network's input."""
    labels: np.ndarray
    """[G] int64."""
    attributes: np.ndarray
    """[G, A] float32: 1 for each attribute of an object; objects without any have no attribute loss."""


def match(
    boxes: np.ndarray, objects: np.ndarray, positive: float, negative: float, keep_best: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Match boxes with objects by their overlap (intersection over union).

    Args:
        boxes: [N, 4].
        objects: [G, 4]; G may be 0.
        positive: smallest overlap of a positive box.
        negative: overlap below which a box is background.
        keep_best: the boxes that overlap an object most are positive, whatever the overlap.

    Returns:
        Number of the object with the largest overlap [N], and 1 positive, 0 background, -1 neither [N].
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
    """Draw positive and background boxes to train on.

    Args:
        kind: of each box, see `match`.
        number: most boxes to return.
        share: largest share of positive ones.
        rng: None takes the first ones.

    Returns:
        Numbers of positive and of background boxes.
    """
    positive, background = np.flatnonzero(kind == 1), np.flatnonzero(kind == 0)
    if rng is not None:
        positive, background = rng.permutation(positive), rng.permutation(background)
    positive = positive[: int(number * share)]
    return positive, background[: number - len(positive)]


def rpn_targets(
    anchors: np.ndarray, targets: Targets, config: RpnTargetConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the anchors to train on: numbers of positive ones [P] and of background, and deltas [P, 4]."""
    nearest, kind = match(
        anchors, targets.boxes, config.positive_overlap, config.negative_overlap, keep_best=True
    )
    positive, background = sample(
        kind, config.batch_size_per_im, config.fg_fraction, rng if config.use_random else None
    )
    return positive, background, encode(anchors[positive], targets.boxes[nearest[positive]])


def region_targets(
    proposals: np.ndarray, targets: Targets, config: BoxAssignerConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the regions that the head is trained on, positive ones first.

    The objects themselves are among the candidates, so there are positive regions from the first step on.

    Returns:
        Boxes [R, 4], and the number of the object [P] of each positive one.
    """
    candidates = np.concatenate([proposals, targets.boxes]).astype(np.float32)
    candidates = candidates[(candidates[:, 2:] > candidates[:, :2]).all(axis=1)]
    nearest, kind = match(candidates, targets.boxes, config.fg_thresh, config.bg_thresh, keep_best=False)
    positive, background = sample(
        kind, config.batch_size_per_im, config.fg_fraction, rng if config.use_random else None
    )
    return candidates[np.concatenate([positive, background])], nearest[positive]
