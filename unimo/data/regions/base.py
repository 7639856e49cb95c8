"""Region features of an image, and the interface of their sources.

Legend: R regions of an image, F width of a feature, C classes of the detector.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from unimo.data.record import Record
from unimo.errors import RecordError

MAX_FEATURE = float(np.finfo(np.float16).max)
"""Largest feature, 65,504: stores have half precision, and squares of much larger ones are infinite."""
_SLACK = 1e-3
"""Error of class probabilities in half precision."""


@dataclass(frozen=True)
class Regions:
    """The regions of one image, best first."""

    features: np.ndarray = field(repr=False)
    """[R, F] float32."""
    boxes: np.ndarray = field(repr=False)
    """[R, 4] float32: x1, y1, x2, y2 in pixels."""
    width: int
    """Width of the image in pixels."""
    height: int
    """Height of the image in pixels."""
    class_probs: np.ndarray | None = field(default=None, repr=False)
    """[R, C] float32: the detector's class probabilities without background; None without a detector."""

    def __len__(self) -> int:
        return len(self.features)

    def best(self, count: int) -> Regions:
        """Return the first `count` regions."""
        if len(self) <= count:
            return self
        probs = None if self.class_probs is None else self.class_probs[:count]
        return replace(self, features=self.features[:count], boxes=self.boxes[:count], class_probs=probs)

    @property
    def locations(self) -> np.ndarray:
        """[R, 5] float32: x1 / w, y1 / h, x2 / w, y2 / h and the share of the area (UNIMO's code)."""
        x1, y1, x2, y2 = self.boxes.T
        w, h = self.width, self.height
        columns = (x1 / w, y1 / h, x2 / w, y2 / h, (x2 - x1) * (y2 - y1) / (w * h))
        return np.stack(columns, axis=1).astype(np.float32)


class RegionSource(Protocol):
    """A source of the regions of records."""

    feature_size: int
    """F."""
    num_classes: int
    """C; 0 without class probabilities."""
    num_attributes: int
    """A; 0 without attributes."""

    def of(self, record: Record) -> Regions:
        """Return the regions of a record's image.

        Raises:
            RecordError: the image is unknown or broken, or its regions cannot be used.
        """


def check_regions(regions: Regions, name: str, feature_size: int, num_classes: int = 0) -> Regions:
    """Return the regions after checking that a model can read them.

    Args:
        name: name of the image, for messages.
        num_classes: C if class probabilities are required, else 0.

    Raises:
        RecordError: no regions, another width, no class probabilities or another number of classes, numbers
            that are not finite, features that half precision cannot hold, class probabilities outside of
            [0, 1], or a box outside of the image.
    """
    features, boxes, probs = regions.features, regions.boxes, regions.class_probs
    if len(features) == 0:
        raise RecordError(f"image {name} has no regions")
    if features.ndim != 2 or features.shape[1] != feature_size:
        raise RecordError(f"image {name}: features of shape {features.shape}, expected [R, {feature_size}]")
    if boxes.shape != (len(features), 4):
        raise RecordError(f"image {name}: {len(features)} features but boxes of shape {boxes.shape}")
    if num_classes and (probs is None or probs.shape != (len(features), num_classes)):
        found = "no class probabilities" if probs is None else f"class probabilities of shape {probs.shape}"
        raise RecordError(f"image {name}: {found}, expected [{len(features)}, {num_classes}]")
    numbers = (features, boxes) if probs is None else (features, boxes, probs)
    if not all(np.isfinite(array).all() for array in numbers):
        raise RecordError(f"image {name}: features, boxes or class probabilities are not finite")
    if (largest := float(np.abs(features).max(initial=0))) > MAX_FEATURE:
        raise RecordError(f"image {name}: a feature of {largest:.3g}; expected at most {MAX_FEATURE:g}")
    if probs is not None and probs.size and not (-_SLACK <= probs.min() and probs.max() <= 1 + _SLACK):
        raise RecordError(
            f"image {name}: class probabilities of {probs.min():.3g} to {probs.max():.3g}, expected 0 to 1"
        )
    if regions.width < 1 or regions.height < 1:
        raise RecordError(f"image {name} is {regions.width} x {regions.height} pixels")
    limits = np.array([regions.width, regions.height] * 2) + 1.0  # detectors round up to the next pixel
    if (boxes < -1.0).any() or (boxes > limits).any() or (boxes[:, :2] > boxes[:, 2:]).any():
        raise RecordError(
            f"image {name}: a box lies outside of its {regions.width} x {regions.height} pixels"
        )
    return regions
