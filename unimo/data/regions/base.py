"""Region features: what a detector saw in a picture, or what a grid over it shows.

Legend: R regions of a picture, F width of a feature, C classes of the detector.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from unimo.data.images.open import open_image
from unimo.data.record import Record
from unimo.errors import ConfigError, RecordError


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


class GridRegions:
    """Regions without a detector: the cells of a grid over the picture, each as its shrunken pixels.

    Works for every picture on a fresh machine; on `scenes` a cell of the 2 x 2 grid holds one object at most.

    Args:
        cells: along each side of the picture.
        pixels: side of the shrunken cell; F is 3 * pixels ** 2.
    """

    num_classes = 0

    def __init__(self, cells: int = 2, pixels: int = 16) -> None:
        if cells < 1 or pixels < 1:
            raise ConfigError(f"grid of {cells} cells with {pixels} pixels: expected at least 1 of each")
        self.cells, self.pixels = cells, pixels
        self.feature_size = 3 * pixels**2

    def of(self, record: Record) -> Regions:
        """The cells of the picture, row by row; features are colours in [-1, 1]."""
        if record.image is None:
            raise RecordError(f"sample {record.sample_id}: a grid needs the picture of {record.image_id}")
        if isinstance(record.image, Image.Image):
            return self.of_image(record.image)
        return self.of_image(open_image(record.image, self.cells * self.pixels))

    def of_image(self, image: Image.Image) -> Regions:
        """The cells of an opened picture."""
        image = image.convert("RGB")
        width, height = image.size
        side = self.cells * self.pixels
        colors = np.asarray(image.resize((side, side), Image.Resampling.BOX), np.float32) / 127.5 - 1.0
        cells = colors.reshape(self.cells, self.pixels, self.cells, self.pixels, 3).transpose(0, 2, 1, 3, 4)
        features = np.ascontiguousarray(cells.reshape(self.cells**2, -1))
        x, y = np.meshgrid(np.arange(self.cells), np.arange(self.cells))
        corners = np.stack([x, y, x + 1, y + 1], axis=-1).reshape(-1, 4) / self.cells
        boxes = (corners * [width, height, width, height]).astype(np.float32)
        return Regions(features, boxes, width, height)


def open_regions(name: str) -> RegionSource:
    """The source that `data.regions` names.

    Args:
        name: `grid`; `grid:CELLS:PIXELS`; a folder that tools/extract_features.py wrote; or a TSV file of
            the released format.
    Raises:
        ConfigError: a grid that cannot be read.
        DataError: no features at that place, or damaged ones.
    """
    kind, *numbers = name.split(":")
    if kind == "grid" and all(number.isdigit() for number in numbers) and len(numbers) in (0, 2):
        return GridRegions(*map(int, numbers))
    if kind == "grid":
        raise ConfigError(f"data.regions={name}: expected grid or grid:CELLS:PIXELS, e.g. grid:2:16")
    from unimo.data.regions.store import open_store

    return open_store(Path(name).expanduser())
