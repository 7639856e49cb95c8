"""Choice of the regions of an image to keep. Legend: R proposals, C classes, N kept.

Both selections visit (region, class) pairs in the order of falling probability and drop a pair that overlaps
a stronger region of the same class. They stop as soon as enough is found, so 300 proposals of 1,600 classes
cost a few hundred comparisons instead of 1,600 separate suppressions.

Both take probabilities [R, C] without the background and boxes [R, 1, 4] or, for each class, [R, C, 4], and
return numbers of regions [N], their scores [N] float32 and classes [N].
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from ppdet_features.boxes import iou
from ppdet_features.config import NmsConfig, SelectionConfig


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
