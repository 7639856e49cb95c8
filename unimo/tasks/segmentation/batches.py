"""Batches of semantic segmentation: crops to learn from, whole pictures to test on.

Legend: B batch, S side of a crop, H, W height and width of a picture, h, w those it is tested at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from unimo.data.images.class_maps import augment, evaluation_size
from unimo.data.images.transforms import bytes_to_pixels, normalise
from unimo.data.loading.batch import Array, Batch, PairCollator, Prepared
from unimo.data.processor import Processor
from unimo.data.readers.pixel_classes import read_class_map
from unimo.data.record import Record
from unimo.errors import RecordError


@dataclass(kw_only=True)
class CropBatch(Batch):
    """Augmented crops."""

    images: Array
    """Pixels [B, 3, S, S] float32."""
    class_maps: Array
    """[B, S, S] int64, `NO_CLASS` where nothing is learned."""


@dataclass(kw_only=True)
class PictureBatch(Batch):
    """Whole pictures, each of its own size."""

    pictures: dict[int, dict[float, Array]]
    """Row -> factor on the size of the test -> pixels [3, h, w] float32."""
    sizes: list[tuple[int, int]]
    """H and W of each."""
    image_ids: list[str]
    """`Record.image_id` of each."""
    class_maps: dict[int, Array]
    """Row -> [H, W] uint8, `NO_CLASS` where nothing counts; empty where nobody knows."""


class SegmentationCollator(PairCollator):
    """Make a `CropBatch` in training, else a `PictureBatch` of pictures at the sizes of the test.

    Args:
        classes: names of the classes.
        ratios: factors on the size at which the shorter side is one crop long.
    """

    def __init__(
        self, processor: Processor, classes: Sequence[str], ratios: Sequence[float], train: bool
    ) -> None:
        super().__init__(processor, train)
        self.classes, self.ratios = classes, ratios
        self._statistics = bytes_to_pixels(processor.config.eval_transform)

    def prepare(self, record: Record, rng: np.random.Generator) -> Prepared:
        if record.image is None:
            raise RecordError(f"sample {record.sample_id} has no image")
        image = self.processor.open(record.image, reduce=False)
        class_map = read_class_map(record, image.size, self.classes)
        size, prepared = self.processor.config.image_size, {"record": record}
        if not self.train:
            pictures, shape = self.at_sizes(image), class_map.shape
            return {**prepared, "pictures": pictures, "size": shape, "class_map": class_map}
        colours, class_map, (columns, rows) = augment(image, class_map, size, rng)
        pixels = self._pixels(colours)
        pixels[:, rows:] = 0.0
        pixels[:, :, columns:] = 0.0
        return {**prepared, "image": pixels, "class_map": class_map.astype(np.int64)}

    def at_sizes(self, image: Image.Image) -> dict[float, np.ndarray]:
        """Return the pixels of a picture at the sizes of the test, by their factors."""
        found = {}
        for ratio in self.ratios:
            size = evaluation_size(image.size, self.processor.config.image_size, ratio)
            found[ratio] = self._pixels(np.asarray(image.resize(size, Image.Resampling.BILINEAR)))
        return found

    def _pixels(self, colours: np.ndarray) -> np.ndarray:
        if self.processor.config.blank_images:
            return np.zeros((3, *colours.shape[:2]), np.float32)
        return normalise(colours, *self._statistics)

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> CropBatch | PictureBatch:
        names = [sample["record"].sample_id for sample in prepared]
        if self.train:
            images, maps = (np.stack([sample[key] for sample in prepared]) for key in ("image", "class_map"))
            return CropBatch(images=images, class_maps=maps, sample_ids=names)
        return PictureBatch(
            pictures=dict(enumerate(sample["pictures"] for sample in prepared)),
            sizes=[sample["size"] for sample in prepared],
            image_ids=[sample["record"].image_id for sample in prepared],
            class_maps=dict(enumerate(sample["class_map"] for sample in prepared)),
            sample_ids=names,
        )
