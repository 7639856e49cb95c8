"""From images to the input of the detector: size, order and scale of the colours, batches of one size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from ppdet_features.config import DetectorConfig

_FILTERS = {1: Image.Resampling.BILINEAR, 2: Image.Resampling.BICUBIC}


def resized_size(width: int, height: int, config: DetectorConfig) -> tuple[int, int]:
    """Return width and height of the network's input for an image of the given size, in pixels.

    The shorter side is scaled to the first target, unless the longer one would exceed the second.
    """
    short, long = sorted(config.reader.sample_transforms.Resize.target_size)
    scale = min(short / min(width, height), long / max(width, height))
    return max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))


def preprocess(image: Image.Image, config: DetectorConfig) -> np.ndarray:
    """Convert an image to the network's input, [3, H, W] float32."""
    steps = config.reader.sample_transforms
    size = resized_size(*image.size, config)
    image = image.convert("RGB")
    if image.size != size:
        image = image.resize(size, _FILTERS[steps.Resize.interp])
    pixels = np.asarray(image, np.float32)
    if not steps.Decode.to_rgb:
        pixels = pixels[..., ::-1]
    if steps.NormalizeImage.is_scale:
        pixels = pixels / 255.0
    mean, std = (np.array(x, np.float32) for x in (steps.NormalizeImage.mean, steps.NormalizeImage.std))
    return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1), np.float32)


@dataclass(frozen=True)
class Prepared:
    """A decoded image."""

    number: int
    """Number in the image list."""
    image_id: str
    size: tuple[int, int]
    """Width and height of the image itself."""
    pixels: np.ndarray = field(repr=False)
    """[3, H, W] float32, the network's input."""


def group_by_shape(images: Iterable[Prepared], batch_size: int, look_ahead: int) -> Iterator[list[Prepared]]:
    """Yield batches of equal shape; at most `look_ahead` images wait for others of their shape.

    When that many wait, the largest group is yielded (the oldest of equally large ones). The batches depend
    on the order of the images only.
    """
    groups: dict[tuple[int, ...], list[Prepared]] = {}
    waiting = 0
    for image in images:
        group = groups.setdefault(image.pixels.shape, [])
        group.append(image)
        waiting += 1
        if len(group) == batch_size:
            yield groups.pop(image.pixels.shape)
            waiting -= batch_size
        elif waiting >= look_ahead:
            largest = max(groups, key=lambda shape: len(groups[shape]))
            waiting -= len(groups[largest])
            yield groups.pop(largest)
    yield from groups.values()
