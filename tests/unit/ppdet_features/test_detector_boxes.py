"""Arithmetic of boxes, anchors, matching and sampling against values worked out by hand and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ppdet_features.boxes import (
    MAX_LOG_SCALE,
    Targets,
    clip,
    decode,
    encode,
    iou,
    match,
    region_targets,
    rpn_targets,
    sample,
)
from ppdet_features.config import AnchorConfig, BoxAssignerConfig, RpnTargetConfig
from ppdet_features.heads import anchors_of


def random_boxes(rng: np.random.Generator, number: int) -> np.ndarray:
    corners = rng.uniform(0, 60, (number, 2))
    return np.concatenate([corners, corners + rng.uniform(3, 40, (number, 2))], axis=1).astype(np.float32)


def plain_iou(a: np.ndarray, b: np.ndarray) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def test_overlap_equals_a_plain_loop():
    rng = np.random.default_rng(0)
    first, second = random_boxes(rng, 9), random_boxes(rng, 7)
    expected = [[plain_iou(a, b) for b in second] for a in first]
    np.testing.assert_allclose(iou(first, second), expected, rtol=1e-5)
    empty = np.array([[3, 3, 3, 3]], np.float32)
    assert iou(empty, empty)[0, 0] == 0.0


def test_box_coding_by_hand():
    anchor, box = np.array([[0, 0, 10, 20]], np.float32), np.array([[5, 0, 25, 10]], np.float32)
    expected = [10 * (15 - 5) / 10, 10 * (5 - 10) / 20, 5 * math.log(2), 5 * math.log(0.5)]
    np.testing.assert_allclose(encode(anchor, box, (10, 10, 5, 5))[0], expected, rtol=1e-6)


def test_decoding_undoes_coding_and_bounds_growth():
    rng = np.random.default_rng(1)
    anchors, boxes, weights = random_boxes(rng, 50), random_boxes(rng, 50), (10.0, 10.0, 5.0, 5.0)
    back = decode(anchors, encode(anchors, boxes, weights)[:, None], weights)[:, 0]
    np.testing.assert_allclose(back, boxes, atol=1e-4)
    grown = decode(np.array([[0, 0, 16, 16]], np.float32), np.full((1, 1, 4), 50.0, np.float32))
    assert grown[0, 0, 2] - grown[0, 0, 0] == pytest.approx(16 * math.exp(MAX_LOG_SCALE))
    assert clip(np.array([[-5.0, 2.0, 99.0, 70.0]]), 64, 48).tolist() == [[0, 2, 64, 48]]


def test_anchors_by_hand():
    config = AnchorConfig(aspect_ratios=[0.5, 2.0], anchor_sizes=[32.0, 64.0], offset=0.5)
    anchors = anchors_of(2, 3, config)
    assert anchors.shape == (2, 3, 4, 4)
    width, height = 32 * math.sqrt(2), 32 / math.sqrt(2)  # ratio 0.5: half as high as wide
    at_row_1_column_2 = [40 - width / 2, 24 - height / 2, 40 + width / 2, 24 + height / 2]
    np.testing.assert_allclose(anchors[1, 2, 0], at_row_1_column_2, rtol=1e-6)
    sides = anchors[..., 2:] - anchors[..., :2]
    np.testing.assert_allclose(sides.prod(axis=-1)[0, 0], [32**2, 32**2, 64**2, 64**2], rtol=1e-5)
    np.testing.assert_allclose(sides[0, 0, :, 1] / sides[0, 0, :, 0], [0.5, 2, 0.5, 2], rtol=1e-5)


def test_matching_equals_a_plain_loop():
    rng = np.random.default_rng(2)
    boxes, objects = random_boxes(rng, 60), random_boxes(rng, 4)
    nearest, kind = match(boxes, objects, 0.5, 0.3, keep_best=True)
    overlap = np.array([[plain_iou(box, other) for other in objects] for box in boxes])
    for i, row in enumerate(overlap):
        best_of_some = any(row[g] == overlap[:, g].max() > 0 for g in range(4))
        expected = 1 if row.max() >= 0.5 or best_of_some else 0 if row.max() < 0.3 else -1
        assert (nearest[i], kind[i]) == (row.argmax(), expected)
    assert (kind == 1).any() and (kind == -1).any()


def test_without_objects_everything_is_background():
    _, kind = match(np.zeros((5, 4)), np.zeros((0, 4)), 0.5, 0.5, keep_best=True)
    assert kind.tolist() == [0] * 5


def test_samples_keep_their_share_and_fill_up_with_background():
    kind = np.array([1] * 30 + [0] * 50 + [-1] * 20)
    config = BoxAssignerConfig(batch_size_per_im=16, fg_fraction=0.25)
    positive, background = sample(kind, config, np.random.default_rng(0))
    assert len(positive) == 4 and len(background) == 12
    assert (kind[positive] == 1).all() and (kind[background] == 0).all()
    assert positive.tolist() != sample(kind, config, np.random.default_rng(1))[0].tolist()
    first = RpnTargetConfig(batch_size_per_im=4, fg_fraction=0.5, use_random=False)
    few, rest = sample(np.array([1, 0, 0, 0]), first, np.random.default_rng(0))
    assert few.tolist() == [0] and rest.tolist() == [1, 2, 3]


def test_anchor_targets_point_at_their_object():
    rng = np.random.default_rng(3)
    objects = random_boxes(rng, 3)
    targets = Targets(objects, np.zeros(3, np.int64), np.zeros((3, 0), np.float32))
    anchors = np.concatenate([objects + 1, random_boxes(rng, 40)])
    config = RpnTargetConfig(batch_size_per_im=16)
    positive, background, deltas = rpn_targets(anchors, targets, config, rng)
    assert {0, 1, 2} <= set(positive) and not set(positive) & set(background)
    boxes = decode(anchors[positive], deltas[:, None])[:, 0]
    nearest = iou(anchors[positive], objects).argmax(axis=1)
    np.testing.assert_allclose(boxes, objects[nearest], atol=1e-3)


def test_region_targets_include_the_objects_themselves():
    rng = np.random.default_rng(4)
    objects = np.array([[10, 10, 30, 30], [40, 5, 60, 25]], np.float32)
    targets = Targets(objects, np.array([2, 0]), np.zeros((2, 0), np.float32))
    far = np.array([[0, 50, 9, 60], [5, 5, 5, 5]], np.float32)  # background, and a box without area
    boxes, of = region_targets(far, targets, BoxAssignerConfig(batch_size_per_im=8, fg_fraction=0.5), rng)
    assert sorted(of.tolist()) == [0, 1]
    np.testing.assert_array_equal(boxes[:2], objects[of])
    np.testing.assert_array_equal(boxes[2:], far[:1])
