"""Pictures with a class for each pixel: the augmentation of training, and the sizes of tests.

Both are those of BEiT's code for ADE20K, which takes them from MMSegmentation. A picture is scaled with its
map, which keeps whole numbers: nearest pixels, where those of the picture are interpolated.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from unimo.data.images.randaugment import Rng, turn_hue

NO_CLASS = 255
"""Number of pixels without a class, which neither learn nor count."""
RATIOS = (0.5, 2.0)
"""Smallest and largest factor on the scale at which the shorter side is as long as the crop."""
MOST_OF_ONE_CLASS = 0.75
"""Largest share of one class in a crop; after ten draws any crop is taken."""
_DRAWS = 10
_LONGEST = 4
"""Largest length of the longer side, in shorter sides: 2048 to 512 pixels."""


def reduce_zero_label(class_map: np.ndarray) -> np.ndarray:
    """Return a map [H, W] whose classes count from 1, 0 being none, as one whose classes count from 0.

    That is how ADE20K numbers its 150 classes and how its scores are computed.
    """
    return np.where(class_map == 0, NO_CLASS, np.clip(class_map, 1, NO_CLASS) - 1).astype(np.uint8)


def encode_class_map(class_map: np.ndarray) -> bytes:
    """Encode a map [H, W] as a PNG file of 8 bits a pixel."""
    buffer = io.BytesIO()
    Image.fromarray(class_map).save(buffer, format="PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class PhotometricDistortion:
    """Random brightness, contrast, saturation and hue, each with probability 0.5 (SSD).

    Contrast comes before saturation and hue or after them.
    """

    brightness: float = 32.0
    """Largest number that is added to the bytes of the colours."""
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: float = 0.1
    """Largest shift, as a share of the colour circle."""

    def __call__(self, image: Image.Image, rng: Rng) -> Image.Image:
        """Augment an RGB image."""
        brighter, stronger, fuller, turned, contrast_first = rng.random(5) < 0.5
        added = rng.uniform(-self.brightness, self.brightness)
        contrast, saturation = rng.uniform(*self.contrast), rng.uniform(*self.saturation)
        turn = rng.uniform(-self.hue, self.hue)
        image = _change(image, 1.0, added) if brighter else image
        if stronger and contrast_first:
            image = _change(image, contrast)
        if fuller:
            hue, amount, value = image.convert("HSV").split()
            image = Image.merge("HSV", (hue, _change(amount, saturation), value)).convert("RGB")
        image = turn_hue(image, turn) if turned else image
        return _change(image, contrast) if stronger and not contrast_first else image


def _change(image: Image.Image, factor: float, added: float = 0.0) -> Image.Image:
    """Compute bytes * factor + added in every band."""
    table = np.clip(np.arange(256) * factor + added, 0, 255).astype(int).tolist()
    return image.point(table * len(image.getbands()))


def augment(
    image: Image.Image, class_map: np.ndarray, size: int, rng: Rng
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Return a random crop of a picture and its map for training.

    The picture is scaled by a random factor, a part of at most S x S pixels is cut out, mirrored or not, and
    its colours are distorted. Below and right of a part that is smaller the map says `NO_CLASS`.

    Args:
        class_map: uint8 [H, W].
        size: S.

    Returns:
        Colours uint8 [S, S, 3], classes uint8 [S, S], and width and height of the part that is picture.
    """
    shorter = size * rng.uniform(*RATIOS)
    width, height = scaled_size(image.size, shorter)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    classes = np.asarray(Image.fromarray(class_map).resize((width, height), Image.Resampling.NEAREST))
    for _ in range(_DRAWS):
        left, top = (int(rng.integers(max(side - size, 0) + 1)) for side in (width, height))
        part = classes[top : top + size, left : left + size]
        counts = np.bincount(part.ravel(), minlength=256)[:NO_CLASS]
        if np.count_nonzero(counts) > 1 and counts.max() < MOST_OF_ONE_CLASS * counts.sum():
            break
    rows, columns = part.shape
    image = image.crop((left, top, left + columns, top + rows))
    if rng.random() < 0.5:
        image, part = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), part[:, ::-1]
    colours = np.zeros((size, size, 3), np.uint8)
    padded = np.full((size, size), NO_CLASS, np.uint8)
    colours[:rows, :columns] = np.asarray(PhotometricDistortion()(image, rng))
    padded[:rows, :columns] = part
    return colours, padded, (columns, rows)


def scaled_size(size: tuple[int, int], shorter: float) -> tuple[int, int]:
    """Return width and height scaled so that the shorter side has a length, or the longer four times that."""
    factor = min(shorter / min(size), _LONGEST * shorter / max(size))
    width, height = (max(1, round(side * factor)) for side in size)
    return width, height


def evaluation_size(size: tuple[int, int], crop: int, ratio: float) -> tuple[int, int]:
    """Return width and height of a picture in tests: the shorter side is `ratio` crops long, at least one."""
    factor = max(crop, int(crop * ratio)) / min(size)
    width, height = (max(crop, round(side * factor)) for side in size)
    return width, height
