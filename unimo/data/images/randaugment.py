"""Random augmentation of RGB images: the operations of UDA (used by METER) and those of ALBEF and BLIP.

`RandAugment` and `RandomAugment` are different recipes of the literature despite their names. Both draw
operations with replacement, and all randomness comes from the generator passed to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Rng = np.random.Generator
Operation = Callable[[Image.Image, float], Image.Image]
GREY = (128, 128, 128)


def _affine(
    matrix: Callable[[float], tuple[float, ...]], fill: tuple[int, int, int] | None = None
) -> Operation:
    """Build an affine operation whose matrix depends on the strength; `fill` None means black borders."""
    return lambda image, amount: image.transform(
        image.size, Image.Transform.AFFINE, matrix(amount), fillcolor=fill
    )


SHEAR_X = partial(_affine, lambda amount: (1, amount, 0, 0, 1, 0))
SHEAR_Y = partial(_affine, lambda amount: (1, 0, 0, amount, 1, 0))
TRANSLATE_X = partial(_affine, lambda pixels: (1, 0, pixels, 0, 1, 0))
TRANSLATE_Y = partial(_affine, lambda pixels: (1, 0, 0, 0, 1, pixels))


def _solarize_add(image: Image.Image, addition: float) -> Image.Image:
    brighter = [min(255, value + int(addition)) if value < 128 else value for value in range(256)]
    return image.point(brighter * len(image.getbands()))


def _enhance(kind: type) -> Operation:
    return lambda image, factor: kind(image).enhance(factor)


# Operation, lowest and highest strength, and whether its sign is random.
UDA_OPERATIONS: dict[str, tuple[Operation, float, float, bool]] = {
    "AutoContrast": (lambda image, _: ImageOps.autocontrast(image), 0, 1, False),
    "Equalize": (lambda image, _: ImageOps.equalize(image), 0, 1, False),
    "Rotate": (lambda image, degrees: image.rotate(degrees), 0, 30, False),
    "Posterize": (lambda image, bits: ImageOps.posterize(image, max(1, int(bits))), 0, 4, False),
    "Solarize": (ImageOps.solarize, 0, 256, False),
    "SolarizeAdd": (_solarize_add, 0, 110, False),
    "Color": (_enhance(ImageEnhance.Color), 0.1, 1.9, False),
    "Contrast": (_enhance(ImageEnhance.Contrast), 0.1, 1.9, False),
    "Brightness": (_enhance(ImageEnhance.Brightness), 0.1, 1.9, False),
    "Sharpness": (_enhance(ImageEnhance.Sharpness), 0.1, 1.9, False),
    "ShearX": (SHEAR_X(), 0.0, 0.3, True),
    "ShearY": (SHEAR_Y(), 0.0, 0.3, True),
    "TranslateX": (TRANSLATE_X(), 0, 100, True),
    "TranslateY": (TRANSLATE_Y(), 0, 100, True),
}


@dataclass(frozen=True)
class RandAugment:
    """Apply `count` random operations of UDA at strength `level` of 30; new borders are black."""

    count: int
    level: int

    def __call__(self, image: Image.Image, rng: Rng) -> Image.Image:
        """Augment an RGB image."""
        names = list(UDA_OPERATIONS)
        for drawn in rng.integers(len(names), size=self.count):
            operation, low, high, signed = UDA_OPERATIONS[names[drawn]]
            value = low + (high - low) * self.level / 30
            if signed and rng.random() < 0.5:
                value = -value
            image = operation(image, value)
        return image


# Operation, its strength at level 10, and whether its sign is random.
ALBEF_OPERATIONS: dict[str, tuple[Operation, float, bool]] = {
    "Identity": (lambda image, _: image, 0, False),
    "AutoContrast": (lambda image, _: ImageOps.autocontrast(image), 0, False),
    "Equalize": (lambda image, _: ImageOps.equalize(image), 0, False),
    "Brightness": (lambda image, share: ImageEnhance.Brightness(image).enhance(share * 1.8 + 0.1), 1, False),
    "Sharpness": (lambda image, share: ImageEnhance.Sharpness(image).enhance(share * 1.8 + 0.1), 1, False),
    "ShearX": (SHEAR_X(GREY), 0.3, True),
    "ShearY": (SHEAR_Y(GREY), 0.3, True),
    "TranslateX": (TRANSLATE_X(GREY), 10, True),
    "TranslateY": (TRANSLATE_Y(GREY), 10, True),
    "Rotate": (lambda image, degrees: image.rotate(degrees, fillcolor=GREY), 30, True),
}


@dataclass(frozen=True)
class RandomAugment:
    """Apply `count` random operations of ALBEF, each with probability 0.5, at strength `level` of 10.

    New borders are grey (128). The original uses OpenCV; Pillow does the same arithmetic here.
    """

    count: int
    level: int
    probability: float = 0.5

    def __call__(self, image: Image.Image, rng: Rng) -> Image.Image:
        """Augment an RGB image."""
        names = list(ALBEF_OPERATIONS)
        for drawn in rng.integers(len(names), size=self.count):
            applied, negative = rng.random(2) < (self.probability, 0.5)
            operation, full, signed = ALBEF_OPERATIONS[names[drawn]]
            value = full * self.level / 10 * (-1 if signed and negative else 1)
            image = operation(image, value) if applied else image
        return image
