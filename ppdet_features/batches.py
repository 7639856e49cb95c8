"""Training batches of a detector: which image comes when, mirrored or not, and padded to one size.

Everything random follows from `Training.seed` and a place: the number of a sample in the endless stream of
images, where the images come in one random order after the other. An order is an epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from ppdet_features.annotated_images import AnnotatedImages, Annotations
from ppdet_features.boxes import Targets
from ppdet_features.config import DetectorConfig, TrainingConfig
from ppdet_features.detector import preprocess
from unimo.data.loading.batch import Array, Batch
from unimo.data.loading.loader import TrainLoader
from unimo.data.loading.sampler import MixtureSampler
from unimo.errors import DataError, RecordError

STREAM = "images"
"""Name of the only corpus."""
_ORDER, _FLIP, _DRAW = range(3)
"""Distinguish the three uses of the seed."""


@dataclass(kw_only=True)
class DetectionBatch(Batch):
    """Images with their objects. Legend: B images, H x W size of the largest one."""

    images: Array
    """[B, 3, H, W] float32; smaller images are padded with zeros at the right and the bottom."""
    targets: list[Targets]
    """Objects of each image; NumPy arrays, because anchors and regions are chosen on the host."""
    draw_seed: tuple[int, ...]
    """Seed of the draw of the anchors and regions to learn from."""


@dataclass(frozen=True)
class Appearance:
    """One use of an image."""

    place: int
    index: int
    """Number of the image."""
    flip: bool
    """Whether it is mirrored."""


@dataclass(frozen=True)
class Example:
    """An image ready for the network."""

    place: int
    sample_id: str
    image: np.ndarray = field(repr=False)
    """[3, H, W] float32."""
    targets: Targets = field(repr=False)


class ImageStream:
    """The endless stream of images; item `place` says which image is there."""

    name = STREAM

    def __init__(self, number: int, train: TrainingConfig, images: AnnotatedImages | None = None) -> None:
        self._number, self._train, self._images = number, train, images
        self._order = lru_cache(maxsize=2)(
            lambda epoch: np.random.default_rng([train.seed, _ORDER, epoch]).permutation(number)
        )

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, place: int) -> Appearance:
        epoch, turn = divmod(place, self._number)
        flip = self._train.flip and np.random.default_rng([self._train.seed, _FLIP, place]).random() < 0.5
        return Appearance(place, int(self._order(epoch)[turn]), flip)

    def describe(self, index: int) -> tuple[Annotations, Path | None]:
        """Return the annotations and the file of an image, for the fingerprint of the corpus."""
        return self._images.annotations(index), self._images.file(index)


class PlaceSampler(MixtureSampler):
    """Walks along the stream: the indices of an epoch are its places, in their order."""

    def order(self, name: str, epoch: int) -> np.ndarray:
        """Return the places of an epoch, [number of images]."""
        return np.arange(epoch * self.sizes[name], (epoch + 1) * self.sizes[name])


class DetectionCollator:
    """Decodes, mirrors and scales images with their boxes, and joins them."""

    needs_false_image = False

    def __init__(self, images: AnnotatedImages, config: DetectorConfig) -> None:
        self._images, self._config = images, config

    def prepare(self, sample: Appearance, rng: np.random.Generator) -> Example:
        """Decode an image and scale its boxes; crowds are left out.

        Raises:
            DataError: the image cannot be read, or has another size than its annotations say.
        """
        known = self._images.annotations(sample.index)
        try:
            image = self._images.image(sample.index)
        except RecordError as error:  # which the loader would skip
            raise DataError(str(error)) from error
        boxes = known.boxes
        if sample.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            boxes = np.stack(
                [known.width - boxes[:, 2], boxes[:, 1], known.width - boxes[:, 0], boxes[:, 3]], axis=1
            )
        pixels = preprocess(image, self._config)
        scale = np.array([pixels.shape[2] / known.width, pixels.shape[1] / known.height] * 2, np.float32)
        single = ~known.crowd
        targets = Targets((boxes * scale)[single], known.labels[single], known.attributes[single])
        return Example(sample.place, str(known.image_id), pixels, targets)

    def collate(self, prepared: Sequence[Example], rng: np.random.Generator) -> DetectionBatch:
        """Join images; the draw of anchors and regions is seeded by the step and the place within it."""
        height, width = (max(example.image.shape[axis] for example in prepared) for axis in (1, 2))
        images = np.zeros((len(prepared), 3, height, width), np.float32)
        for row, example in zip(images, prepared, strict=True):
            row[:, : example.image.shape[1], : example.image.shape[2]] = example.image
        train = self._config.train
        # NumPy fills up seeds with zeros: the first rank, at offset 0, draws as if it were alone.
        step, offset = divmod(prepared[0].place, train.batch_size)
        return DetectionBatch(
            images=images,
            targets=[example.targets for example in prepared],
            draw_seed=(train.seed, _DRAW, step, offset),
            sample_ids=[example.sample_id for example in prepared],
        )


def train_loader(
    images: AnnotatedImages, config: DetectorConfig, rank: int = 0, ranks: int = 1
) -> TrainLoader:
    """Return the endless training batches of one rank.

    Raises:
        ConfigError: no images, or a batch size that does not divide among the ranks.
    """
    train, sizes = config.train, {STREAM: len(images)}
    sampler = PlaceSampler(sizes, None, train.batch_size, train.seed, rank, ranks)
    stream, collator = ImageStream(len(images), train, images), DetectionCollator(images, config)
    return TrainLoader({STREAM: stream}, sampler, collator, prefetch=2, seed=train.seed)
