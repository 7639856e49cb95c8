"""Reading and joining the regions of a batch.

Legend: B batch, R largest number of regions of an image in the batch, F width of a feature.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unimo.data.record import Record
from unimo.data.regions.base import Regions, check_regions
from unimo.data.regions.open import open_regions
from unimo.errors import ConfigError


class RegionInput:
    """Reader of the regions of records for a model.

    Args:
        source: name of the source, see `open_regions`.
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
