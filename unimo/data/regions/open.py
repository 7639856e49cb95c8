"""Sources of region features: finding and opening one, and what a model reads of it.

Legend: B batch, R largest number of regions of an image in the batch, F width of a feature.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from unimo.config import coerce
from unimo.data.images.open import open_image
from unimo.data.record import Record
from unimo.data.regions.base import Regions, RegionSource, check_regions
from unimo.data.regions.joined import JoinedRegions
from unimo.data.regions.store import INDEX, RegionStore, StoredRegions
from unimo.data.regions.tsv import TsvRegions
from unimo.errors import ConfigError, DataError, RecordError, shown
from unimo.files import checked_path, listed
from unimo.ranges import Pixels


class GridRegions:
    """The parts of an image, `cells` x `cells`, as regions.

    A feature is a part scaled to `pixels` x `pixels`: F is 3 * pixels ** 2.
    Works for every image on a fresh machine; on `scenes` a cell of the 2 x 2 grid holds at most one object.
    """

    num_classes = num_attributes = 0

    def __init__(self, cells: int = 2, pixels: int = 16) -> None:
        for what, number in (("cells", cells), ("pixels", pixels), ("cells times pixels", cells * pixels)):
            coerce(number, Pixels, f"grid: {what}")
        self.cells, self.pixels = cells, pixels
        self.feature_size = 3 * pixels**2

    def of(self, record: Record) -> Regions:
        """Return the cells of the image, row by row; features are colours in [-1, 1]."""
        if record.image is None:
            raise RecordError(f"sample {record.sample_id}: a grid needs the picture of {record.image_id}")
        side, image = self.cells * self.pixels, record.image
        image = image if isinstance(image, Image.Image) else open_image(image, side)
        image = image.convert("RGB")
        width, height = image.size
        colors = np.asarray(image.resize((side, side), Image.Resampling.BOX), np.float32) / 127.5 - 1.0
        cells = colors.reshape(self.cells, self.pixels, self.cells, self.pixels, 3).transpose(0, 2, 1, 3, 4)
        features = np.ascontiguousarray(cells.reshape(self.cells**2, -1))
        x, y = np.meshgrid(np.arange(self.cells), np.arange(self.cells))
        corners = np.stack([x, y, x + 1, y + 1], axis=-1).reshape(-1, 4) / self.cells
        boxes = (corners * [width, height, width, height]).astype(np.float32)
        return Regions(features, boxes, width, height)


def open_regions(name: str) -> RegionSource:
    """Open the source named by `data.regions`.

    Args:
        name: `grid`, `grid:CELLS:PIXELS`, or a path that `open_store` reads.

    Raises:
        ConfigError: malformed name of a grid.
        DataError: no features at that path, or damaged ones.
    """
    kind, *numbers = name.split(":")
    if kind == "grid" and all(number.isdecimal() for number in numbers) and len(numbers) in (0, 2):
        return GridRegions(*(coerce(number, Pixels, f"data.regions={shown(name)}") for number in numbers))
    if kind == "grid":
        raise ConfigError(f"data.regions={name}: expected grid or grid:CELLS:PIXELS, e.g. grid:2:16")
    return open_store(Path(name))


def open_store(path: Path) -> StoredRegions:
    """Open stored features.

    Args:
        path: a folder written by tools/extract_features.py, a TSV file in the format of UNIMO's release, a
            folder of such files, or several of these separated by commas.

    Raises:
        DataError: no features at that path, damaged ones, or features of different detectors.
    """
    names = str(path).split(",")
    if len(names) > 1 and not os.path.exists(path):
        return JoinedRegions([open_store(Path(name.strip())) for name in names])
    path = checked_path(path, DataError, "region features")
    if path.suffix == ".tsv" and path.is_file():
        return TsvRegions(path)
    if path.is_dir() and not (path / INDEX).exists() and (tables := listed(path, "*.tsv")):
        return JoinedRegions([TsvRegions(table) for table in tables])
    return RegionStore(path)


class RegionInput:
    """Reader of the regions of records for a model.

    Args:
        source: see `open_regions`.
        max_regions: largest number of regions of an image.
        blank: replace the regions of every image by one empty region of its size (for analysis).

    Raises:
        ConfigError, DataError: there is no such source.
    """

    def __init__(self, source: str, max_regions: int = 100, blank: bool = False) -> None:
        if max_regions < 1:
            raise ConfigError(f"data.max_regions {max_regions}: expected at least 1")
        self.source = open_regions(source)
        self.max_regions, self.blank = max_regions, blank

    @property
    def feature_size(self) -> int:
        """Width F of a feature."""
        return self.source.feature_size

    @property
    def num_classes(self) -> int:
        """Number of classes of the detector; 0 without one."""
        return self.source.num_classes

    @property
    def num_attributes(self) -> int:
        """Number of attributes that a region may have; 0 without any."""
        return self.source.num_attributes

    def attributes(self, record: Record) -> np.ndarray:
        """Return the likeliest attribute of each region that `read` returns, [R] int64; raises as it does."""
        if self.blank:
            return np.zeros(1, np.int64)
        return self.source.attributes_of(record)[: self.max_regions]

    def read(self, record: Record) -> Regions:
        """Return the best regions of a record's image.

        Raises:
            RecordError: the image is unknown or broken, or its regions cannot be used.
        """
        if self.blank:
            box = np.array([[0, 0, 1, 1]], np.float32)
            classes = np.full((1, self.num_classes), 1 / max(self.num_classes, 1), np.float32)
            features = np.zeros((1, self.feature_size), np.float32)
            return Regions(features, box, 1, 1, classes if self.num_classes else None)
        found = self.source.of(record)
        found = check_regions(found, record.image_id, self.feature_size, self.num_classes)
        return found.best(self.max_regions)

    def join(self, images: Sequence[Regions]) -> dict[str, np.ndarray]:
        """Pad and join regions to `features` [B, R, F], `locations` [B, R, 5], `mask` [B, R] (1 = region)."""
        longest = max(len(regions) for regions in images)
        size = len(images), longest
        features = np.zeros((*size, self.feature_size), np.float32)
        locations = np.zeros((*size, 5), np.float32)
        mask = np.zeros(size, np.int64)
        for row, regions in enumerate(images):
            count = len(regions)
            features[row, :count] = regions.features
            locations[row, :count] = regions.locations
            mask[row, :count] = 1
        return {"features": features, "locations": locations, "mask": mask}
