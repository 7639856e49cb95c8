"""Region features of one picture, and where they come from.

Legend: R regions of a picture, F width of a feature, C classes of the detector.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from unimo.data.record import Record
from unimo.errors import RecordError


@dataclass(frozen=True)
class Regions:
    """The regions of one picture, best first."""

    features: np.ndarray = field(repr=False)
    """[R, F] float32."""
    boxes: np.ndarray = field(repr=False)
    """[R, 4] float32: x1, y1, x2, y2 in pixels of the picture."""
    width: int
    """Of the picture, pixels."""
    height: int
    """Of the picture, pixels."""
    class_probs: np.ndarray | None = field(default=None, repr=False)
    """[R, C] float32, what the detector takes each region for, without background; None without detector."""

    def __len__(self) -> int:
        return len(self.features)

    def best(self, count: int) -> Regions:
        """The first `count` regions."""
        if len(self) <= count:
            return self
        probs = None if self.class_probs is None else self.class_probs[:count]
        return replace(self, features=self.features[:count], boxes=self.boxes[:count], class_probs=probs)

    @property
    def locations(self) -> np.ndarray:
        """[R, 5] float32: x1 / w, y1 / h, x2 / w, y2 / h and the share of the picture's area (facts 1.5)."""
        x1, y1, x2, y2 = self.boxes.T
        w, h = self.width, self.height
        columns = (x1 / w, y1 / h, x2 / w, y2 / h, (x2 - x1) * (y2 - y1) / (w * h))
        return np.stack(columns, axis=1).astype(np.float32)


class RegionSource(Protocol):
    """Where the regions of a record come from."""

    feature_size: int
    """F."""
    num_classes: int
    """C; 0 where there are no class probabilities."""

    def of(self, record: Record) -> Regions:
        """The regions of a record's image.

        Raises:
            RecordError: the image is unknown or broken, or its regions cannot be used.
        """


def check_regions(regions: Regions, name: str, feature_size: int, num_classes: int = 0) -> Regions:
    """The regions themselves, if a model can read them.

    Args:
        regions, name: of a picture.
        feature_size: F.
        num_classes: C where class probabilities are wanted; 0 where it does not matter.

    Raises:
        RecordError: none, another width, no class probabilities or of other classes, numbers that are not
            finite, or a box outside of the picture.
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
    if regions.width < 1 or regions.height < 1:
        raise RecordError(f"image {name} is {regions.width} x {regions.height} pixels")
    limits = np.array([regions.width, regions.height] * 2) + 1.0  # detectors round to the pixel behind
    if (boxes < -1.0).any() or (boxes > limits).any() or (boxes[:, :2] > boxes[:, 2:]).any():
        raise RecordError(
            f"image {name}: a box lies outside of its {regions.width} x {regions.height} pixels"
        )
    return regions
