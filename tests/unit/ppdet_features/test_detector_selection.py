"""Selection of regions and objects against literal readings of how they are defined."""

from __future__ import annotations

import numpy as np
import pytest

from ppdet_features.boxes import iou, select_objects, select_regions
from ppdet_features.config import NmsConfig, SelectionConfig


def suppress(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """Greedy non-maximum suppression, one box after the other."""
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if all(iou(boxes[i : i + 1], boxes[j : j + 1])[0, 0] <= threshold for j in kept):
            kept.append(int(i))
    return kept


def plain_regions(probs: np.ndarray, boxes: np.ndarray, config: SelectionConfig) -> dict[int, float]:
    """Bottom-up attention: the highest score of each box over the classes in which it survives."""
    highest = np.zeros(len(probs))
    for label in range(probs.shape[1]):
        own = boxes[:, label if boxes.shape[1] > 1 else 0]
        for i in suppress(own, probs[:, label], config.nms_threshold):
            highest[i] = max(highest[i], probs[i, label])
    keep = np.flatnonzero(highest >= config.score_threshold)
    order = np.argsort(-highest, kind="stable")
    if len(keep) < config.min_boxes:
        keep = order[: config.min_boxes]
    elif len(keep) > config.max_boxes:
        keep = order[: config.max_boxes]
    return {int(i): float(highest[i]) for i in keep}


def proposals(seed: int, regions: int, classes: int, sharp: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(regions, classes + 1)) * sharp
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    corners = rng.uniform(0, 40, (regions, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(10, 30, (regions, 2))], axis=1)
    return probs[:, :-1].astype(np.float32), boxes[:, None].astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sharp", [0.1, 2.0, 6.0])  # none above 0.2; some; nearly all
@pytest.mark.parametrize("of_each_class", [False, True])
def test_regions_are_those_of_bottom_up_attention(seed: int, sharp: float, of_each_class: bool):
    probs, boxes = proposals(seed, 60, 9, sharp)
    if of_each_class:
        boxes = boxes + np.random.default_rng(seed).normal(size=(60, 9, 4)).astype(np.float32)
    config = SelectionConfig(score_threshold=0.2, min_boxes=10, max_boxes=25, nms_threshold=0.3)
    regions, scores, labels = select_regions(probs, boxes, config)
    expected = plain_regions(probs, boxes, config)
    assert dict(zip(regions.tolist(), scores.tolist(), strict=True)) == pytest.approx(expected)
    assert 10 <= len(regions) <= 25 and (np.diff(scores) <= 0).all()
    np.testing.assert_array_equal(scores, probs[regions, labels])


def test_suppressed_regions_fill_up_to_the_least_number():
    probs = np.tile(np.array([[0.9, 0.05]], np.float32), (12, 1)) - np.arange(12)[:, None] / 1000
    boxes = np.tile(np.array([[[0, 0, 9, 9]]], np.float32), (12, 1, 1))
    regions, scores, labels = select_regions(probs, boxes, SelectionConfig())
    assert regions.tolist() == list(range(10)) and labels.tolist() == [0] * 10
    assert scores[0] == pytest.approx(0.9) and (scores[1:] == 0).all()  # one box cannot be ten objects


def test_fewer_proposals_than_the_least_number_are_all_kept():
    probs, boxes = proposals(0, 4, 3, 1.0)
    assert sorted(select_regions(probs, boxes, SelectionConfig())[0]) == [0, 1, 2, 3]


def test_objects_equal_suppression_class_by_class():
    probs, boxes = proposals(7, 50, 5, 3.0)
    config = NmsConfig(keep_top_k=30, score_threshold=0.1, nms_threshold=0.5)
    regions, scores, labels = select_objects(probs, boxes, config)
    expected = sorted(
        (
            (float(probs[i, label]), i, label)
            for label in range(5)
            for i in suppress(boxes[:, 0], probs[:, label], 0.5)
            if probs[i, label] >= 0.1
        ),
        reverse=True,
    )[:30]
    assert list(zip(scores.tolist(), regions.tolist(), labels.tolist(), strict=True)) == expected
    assert len(select_objects(probs, boxes, NmsConfig(score_threshold=1.1))[0]) == 0
