"""Which regions of a picture are kept. Legend: R proposals, C classes, N kept.

Both selections walk through (region, class) pairs from the most probable on; a pair falls away when a
stronger region of the same class overlaps it. The walk stops as soon as enough is found, so that 300
proposals of 1,600 classes cost a few hundred comparisons, not 1,600 separate suppressions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from ppdet_features.boxes import iou
from ppdet_features.config import NmsConfig, SelectionConfig


def select_regions(
    probs: np.ndarray, boxes: np.ndarray, config: SelectionConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The regions of a picture as bottom-up attention selects them, best first.

    A region counts with the best class in which no stronger one suppresses it. Those of at least
    `score_threshold` are kept, at most `max_boxes`, and filled up to `min_boxes` with the next best; regions
    that are suppressed in every class come last, with score 0.

    Args:
        probs: [R, C] without background.
        boxes: [R, 1, 4] or, of each class, [R, C, 4].
        config: thresholds and numbers.

    Returns:
        Numbers of the regions [N], their scores [N] float32 and classes [N].
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
    """Objects as the COCO metric counts them: (region, class) pairs, best first.

    Returns:
        Numbers of the regions [N], their scores [N] float32 and classes [N].
    """
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
    """Score, region and class of the pairs that no stronger one suppresses, strongest first."""
    kept: defaultdict[int, list[np.ndarray]] = defaultdict(list)
    for pair in _descending(probs.ravel(), likely):
        region, label = divmod(int(pair), probs.shape[1])
        box = boxes[region, label if boxes.shape[1] > 1 else 0]
        if kept[label] and iou(box[None], np.stack(kept[label])).max() > nms_threshold:
            continue
        kept[label].append(box)
        yield float(probs[region, label]), region, label


def _descending(values: np.ndarray, likely: float) -> Iterator[int]:
    """Positions from the largest value on; those below `likely` are sorted only when they are asked for."""
    for part in (values >= likely, values < likely):
        places = np.flatnonzero(part)
        yield from places[np.argsort(-values[places], kind="stable")]
