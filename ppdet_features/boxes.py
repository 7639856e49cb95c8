"""Arithmetic of boxes (x1, y1, x2, y2 in pixels; width is x2 - x1), in NumPy. Legend: N, M boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MAX_LOG_SCALE = float(np.log(1000.0 / 16.0))
"""Widths and heights never grow by more than this in one step."""


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Shared area of each box of [N, 4] and each of [M, 4] over their union, [N, M]; 0 for empty boxes."""
    upper = np.maximum(first[:, None, :2], second[None, :, :2])
    lower = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.clip(lower - upper, 0, None), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    return np.where(union > 0, shared / np.maximum(union, 1e-12), 0.0)


def encode(anchors: np.ndarray, boxes: np.ndarray, weights: Sequence[float] = (1, 1, 1, 1)) -> np.ndarray:
    """What means `boxes` [N, 4] at `anchors` [N, 4]: weighted dx, dy, dw, dh, [N, 4] float32."""
    sizes, targets = anchors[:, 2:] - anchors[:, :2], boxes[:, 2:] - boxes[:, :2]
    shift = (boxes[:, :2] + boxes[:, 2:] - anchors[:, :2] - anchors[:, 2:]) / 2 / sizes
    return (np.concatenate([shift, np.log(targets / sizes)], axis=1) * weights).astype(np.float32)


def decode(anchors: np.ndarray, deltas: np.ndarray, weights: Sequence[float] = (1, 1, 1, 1)) -> np.ndarray:
    """The boxes that `deltas` [N, K, 4] mean at `anchors` [N, 4], [N, K, 4] float32."""
    deltas = deltas / np.asarray(weights, np.float32)
    sizes = (anchors[:, 2:] - anchors[:, :2])[:, None]
    centers = (anchors[:, 2:] + anchors[:, :2])[:, None] / 2 + deltas[..., :2] * sizes
    half = np.exp(np.minimum(deltas[..., 2:], MAX_LOG_SCALE)) * sizes / 2
    return np.concatenate([centers - half, centers + half], axis=-1).astype(np.float32)


def clip(boxes: np.ndarray, width: float, height: float) -> np.ndarray:
    """Boxes [..., 4] cut off at the borders of the picture."""
    return np.clip(boxes, 0, np.array([width, height, width, height], boxes.dtype))
