"""Regions without a detector: the cells of a grid."""

from __future__ import annotations

import numpy as np
from PIL import Image

from unimo.data.images.open import open_image
from unimo.data.record import Record
from unimo.data.regions.base import Regions
from unimo.errors import ConfigError, RecordError


class GridRegions:
    """The cells of a grid over the image as regions; the feature of a cell is its pixels, scaled down.

    Works for every image on a fresh machine; on `scenes` a cell of the 2 x 2 grid holds at most one object.

    Args:
        cells: number of cells along each side of the image.
        pixels: side of a cell after scaling; F is 3 * pixels ** 2.
    """

    num_classes = 0

    def __init__(self, cells: int = 2, pixels: int = 16) -> None:
        if cells < 1 or pixels < 1:
            raise ConfigError(f"grid of {cells} cells with {pixels} pixels: expected at least 1 of each")
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
