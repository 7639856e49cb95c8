"""Reading the regions of a batch, for models of regions.

Legend: B batch, R most regions of a picture of the batch, F width of a feature.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unimo.data.record import Record
from unimo.data.regions.base import Regions, check_regions
from unimo.data.regions.open import open_regions
from unimo.errors import ConfigError


class RegionInput:
    """Reads the regions of records and joins them.

    Args:
        source: name of the source, see `open_regions`.
        max_regions: of a picture.
        blank: show one empty region the size of the picture instead (an analysis).

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
        """F."""
        return self.source.feature_size

    @property
    def num_classes(self) -> int:
        """Classes of the detector; 0 without one."""
        return self.source.num_classes

    def read(self, record: Record) -> Regions:
        """The best regions of a record's image.

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
        """Return `features` [B, R, F], `locations` [B, R, 5] and `mask` [B, R] (1 = region)."""
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
