"""Box arithmetic in NumPy. A box is x1, y1, x2, y2 in pixels, its width x2 - x1. Legend: N, M, K boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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
