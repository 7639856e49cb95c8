"""Several sources of stored region features as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unimo.data.regions.base import Regions
from unimo.data.regions.store import Place, StoredRegions
from unimo.errors import DataError, RecordError


class JoinedRegions(StoredRegions):
    """Several sources as one.

    An image comes from the first source that has it under its complete id. A shortened name that several
    sources know is refused, because it may belong to different images.

    Raises:
        DataError: the sources come from different detectors.
    """

    def __init__(self, sources: Sequence[StoredRegions]) -> None:
        self.sources: list[StoredRegions] = []
        for source in sources:
            self.sources += source.sources if isinstance(source, JoinedRegions) else [source]
        first = sources[0]
        self.feature_size, self.num_classes = first.feature_size, first.num_classes
        self.num_attributes = min(source.num_attributes for source in sources)
        self.classes = next((source.classes for source in sources if source.classes), ())
        self.where = ", ".join(source.where for source in sources)
        own = (self.feature_size, self.num_classes)
        for source in sources:
            widths = (source.feature_size, source.num_classes)
            if widths != own:
                raise DataError(
                    f"{first.where} and {source.where} are of different detectors: features and classes "
                    f"{own} and {widths}"
                )
            if source.classes and list(source.classes) != list(self.classes):
                raise DataError(f"{source.where} has other classes than the stores before it")

    def find(self, key: str, is_id: bool = False) -> tuple[StoredRegions, Place] | None:
        found = [(source, place) for source in self.sources if (place := source.find(key)) is not None]
        if not found:
            return None
        left_out = [source for source in self.sources if source._reason([key])]
        others = [*left_out, *(source for source in self.sources if source._has_several(key))]
        if len(found) + len(others) < 2:
            return found[0]
        for source, place in found if is_id else ():
            if source._has_id(key, place):
                return source, place
        if is_id and left_out:
            return None
        where = ", ".join(source.where for source in [*(source for source, _ in found), *others])
        raise RecordError(
            f"image {key} could be a picture of each of {where}; name only the store that is meant, or "
            "extract with the image_id that the records have"
        )

    def read(self, place: tuple[StoredRegions, Place]) -> Regions:
        return place[0].read(place[1])

    def _attributes(self, place: tuple[StoredRegions, Place]) -> np.ndarray:
        return place[0]._attributes(place[1])

    def _reason(self, keys: Sequence[str]) -> str:
        return "".join(source._reason(keys) for source in self.sources)
