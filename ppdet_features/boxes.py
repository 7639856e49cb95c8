"""Arithmetic of boxes, those that a detector is trained on, and those of an image to keep, in NumPy.

A box is x1, y1, x2, y2 in pixels, its width x2 - x1. Legend: N, M, K boxes, P positive ones, R regions or
proposals, G objects of an image, A attributes, C classes.

Both selections visit (region, class) pairs in the order of falling probability and drop a pair that overlaps
a stronger region of the same class. They stop as soon as enough is found, so 300 proposals of 1,600 classes
cost a few hundred comparisons instead of 1,600 separate suppressions. They take probabilities [R, C] without
the background and boxes [R, 1, 4] or, for each class, [R, C, 4], and return numbers of regions [N], their
scores [N] float32 and classes [N].
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ppdet_features.config import BoxAssignerConfig, NmsConfig, RpnTargetConfig, SelectionConfig

MAX_LOG_SCALE = float(np.log(1000.0 / 16.0))
"""Upper bound of dw and dh, as in Detectron: a box grows at most 62.5-fold."""


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute intersection over union of boxes [N, 4] and [M, 4]: [N, M], 0 for empty boxes."""
    upper = np.maximum(first[:, None, :2], second[None, :, :2])
    lower = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.clip(lower - upper, 0, None), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    return np.where(union > 0, shared / np.maximum(union, 1e-12), 0.0)


def encode(anchors: np.ndarray, boxes: np.ndarray, weights: Sequence[float] = (1, 1, 1, 1)) -> np.ndarray:
    """Compute the weighted deltas dx, dy, dw, dh [N, 4] float32 from `anchors` [N, 4] to `boxes` [N, 4].

    dx and dy are shifts of the centre over width and height of the anchor, dw and dh logarithms of the ratios
    of widths and heights (Ren et al. 2015, equation 2).
    """
    sizes, targets = anchors[:, 2:] - anchors[:, :2], boxes[:, 2:] - boxes[:, :2]
    shift = (boxes[:, :2] + boxes[:, 2:] - anchors[:, :2] - anchors[:, 2:]) / 2 / sizes
    return (np.concatenate([shift, np.log(targets / sizes)], axis=1) * weights).astype(np.float32)


def decode(anchors: np.ndarray, deltas: np.ndarray, weights: Sequence[float] = (1, 1, 1, 1)) -> np.ndarray:
    """Apply `deltas` [N, K, 4] to `anchors` [N, 4]: boxes [N, K, 4] float32. The inverse of `encode`."""
    deltas = deltas / np.asarray(weights, np.float32)
    sizes = (anchors[:, 2:] - anchors[:, :2])[:, None]
    centers = (anchors[:, 2:] + anchors[:, :2])[:, None] / 2 + deltas[..., :2] * sizes
    half = np.exp(np.minimum(deltas[..., 2:], MAX_LOG_SCALE)) * sizes / 2
    return np.concatenate([centers - half, centers + half], axis=-1).astype(np.float32)


def clip(boxes: np.ndarray, width: float, height: float) -> np.ndarray:
    """Clip boxes [..., 4] to an image of the given size."""
    return np.clip(boxes, 0, np.array([width, height, width, height], boxes.dtype))


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
    """Match boxes [N, 4] with objects [G, 4] by their overlap (intersection over union); G may be 0.

    Args:
        positive, negative: smallest overlap of a positive box, and that below which a box is background.
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
    kind: np.ndarray, config: RpnTargetConfig | BoxAssignerConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the boxes to train on, or take the first ones unless `use_random`.

    Returns:
        Numbers of positive and of background boxes, of those that are so by `kind` [N], see `match`.
    """
    positive, background = np.flatnonzero(kind == 1), np.flatnonzero(kind == 0)
    if config.use_random:
        positive, background = rng.permutation(positive), rng.permutation(background)
    positive = positive[: int(config.batch_size_per_im * config.fg_fraction)]
    return positive, background[: config.batch_size_per_im - len(positive)]


def rpn_targets(
    anchors: np.ndarray, targets: Targets, config: RpnTargetConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the anchors to train on: numbers of positive ones [P] and of background, and deltas [P, 4]."""
    nearest, kind = match(
        anchors, targets.boxes, config.positive_overlap, config.negative_overlap, keep_best=True
    )
    positive, background = sample(kind, config, rng)
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
    positive, background = sample(kind, config, rng)
    return candidates[np.concatenate([positive, background])], nearest[positive]


def select_regions(
    probs: np.ndarray, boxes: np.ndarray, config: SelectionConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Select the regions of an image as bottom-up attention does, best first.

    The score of a region is its largest probability among the classes in which no stronger region suppresses
    it. At most `max_boxes` regions with a score of at least `score_threshold` are kept, filled up to
    `min_boxes` with the next best; regions that are suppressed in every class come last, with score 0.
    """
    found: dict[int, tuple[float, int]] = {}
    for score, region, label in _surviving(probs, boxes, config.nms_threshold, config.score_threshold):
        if score < config.score_threshold and len(found) >= config.min_boxes:
            break
        found.setdefault(region, (score, label))
        if len(found) == config.max_boxes:
            break
    left = [r for r in np.argsort(-probs.max(axis=1), kind="stable") if r not in found]
    for region in left[: max(0, config.min_boxes - len(found))]:
        found[int(region)] = (0.0, int(probs[region].argmax()))
    scores, labels = (np.array(column) for column in zip(*found.values(), strict=True))
    return np.array(list(found), np.int64), scores.astype(np.float32), labels.astype(np.int64)


def select_objects(
    probs: np.ndarray, boxes: np.ndarray, config: NmsConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Select objects as the COCO metric counts them: (region, class) pairs, best first."""
    found = []
    for pair in _surviving(probs, boxes, config.nms_threshold, config.score_threshold):
        if pair[0] < config.score_threshold or len(found) == config.keep_top_k:
            break
        found.append(pair)
    scores, regions, labels = zip(*found, strict=True) if found else ((), (), ())
    return np.array(regions, np.int64), np.array(scores, np.float32), np.array(labels, np.int64)


def _surviving(
    probs: np.ndarray, boxes: np.ndarray, nms_threshold: float, likely: float
) -> Iterator[tuple[float, int, int]]:
    """Yield score, region and class of the pairs that no stronger one suppresses, strongest first."""
    kept: defaultdict[int, list[np.ndarray]] = defaultdict(list)
    values = probs.ravel()
    # Pairs below `likely`, nearly all of them, are sorted only when they are reached.
    places = (np.flatnonzero(part) for part in (values >= likely, values < likely))
    order = itertools.chain.from_iterable(part[np.argsort(-values[part], kind="stable")] for part in places)
    for pair in order:
        region, label = divmod(int(pair), probs.shape[1])
        box = boxes[region, label if boxes.shape[1] > 1 else 0]
        if kept[label] and iou(box[None], np.stack(kept[label])).max() > nms_threshold:
            continue
        kept[label].append(box)
        yield float(probs[region, label]), region, label
