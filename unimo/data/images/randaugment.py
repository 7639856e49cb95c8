"""Random augmentations of RGB pictures: the list of UDA (METER) and the one of ALBEF and BLIP.

`RandAugment` and `RandomAugment` are different recipes of the literature despite their names; both draw
their operations with replacement, and all chance comes from the generator that they are given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Rng = np.random.Generator
Operation = Callable[[Image.Image, float], Image.Image]
GREY = (128, 128, 128)


def _shear_x(image: Image.Image, amount: float, fill: tuple[int, ...] | None = None) -> Image.Image:
    return _affine(image, (1, amount, 0, 0, 1, 0), fill)


def _shear_y(image: Image.Image, amount: float, fill: tuple[int, ...] | None = None) -> Image.Image:
    return _affine(image, (1, 0, 0, amount, 1, 0), fill)


def _translate_x(image: Image.Image, pixels: float, fill: tuple[int, ...] | None = None) -> Image.Image:
    return _affine(image, (1, 0, pixels, 0, 1, 0), fill)


def _translate_y(image: Image.Image, pixels: float, fill: tuple[int, ...] | None = None) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, pixels), fill)


def _affine(image: Image.Image, matrix: tuple[float, ...], fill: tuple[int, ...] | None) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, fillcolor=fill)


def _posterize(image: Image.Image, bits: float) -> Image.Image:
    return ImageOps.posterize(image, max(1, int(bits)))


def _solarize_add(image: Image.Image, addition: float, threshold: int = 128) -> Image.Image:
    brighter = [min(255, value + int(addition)) if value < threshold else value for value in range(256)]
    return image.point(brighter * len(image.getbands()))


def _enhance(kind: type) -> Operation:
    return lambda image, factor: kind(image).enhance(factor)


# Operation, lowest and highest value, and whether its sign is drawn too.
UDA_OPERATIONS: dict[str, tuple[Operation, float, float, bool]] = {
    "AutoContrast": (lambda image, _: ImageOps.autocontrast(image), 0, 1, False),
    "Equalize": (lambda image, _: ImageOps.equalize(image), 0, 1, False),
    "Rotate": (lambda image, degrees: image.rotate(degrees), 0, 30, False),
    "Posterize": (_posterize, 0, 4, False),
    "Solarize": (ImageOps.solarize, 0, 256, False),
    "SolarizeAdd": (_solarize_add, 0, 110, False),
    "Color": (_enhance(ImageEnhance.Color), 0.1, 1.9, False),
    "Contrast": (_enhance(ImageEnhance.Contrast), 0.1, 1.9, False),
    "Brightness": (_enhance(ImageEnhance.Brightness), 0.1, 1.9, False),
    "Sharpness": (_enhance(ImageEnhance.Sharpness), 0.1, 1.9, False),
    "ShearX": (_shear_x, 0.0, 0.3, True),
    "ShearY": (_shear_y, 0.0, 0.3, True),
    "TranslateX": (_translate_x, 0, 100, True),
    "TranslateY": (_translate_y, 0, 100, True),
}


@dataclass(frozen=True)
class RandAugment:
    """`count` operations of the UDA list at strength `level` of 30; new borders are black."""

    count: int
    level: int

    def __call__(self, image: Image.Image, rng: Rng) -> Image.Image:
        """Apply the drawn operations to an RGB picture."""
        names = list(UDA_OPERATIONS)
        for drawn in rng.integers(len(names), size=self.count):
            operation, low, high, signed = UDA_OPERATIONS[names[drawn]]
            value = low + (high - low) * self.level / 30
            if signed and rng.random() < 0.5:
                value = -value
            image = operation(image, value)
        return image


# Operation, its value at full strength (level 10), and whether its sign is drawn too.
ALBEF_OPERATIONS: dict[str, tuple[Operation, float, bool]] = {
    "Identity": (lambda image, _: image, 0, False),
    "AutoContrast": (lambda image, _: ImageOps.autocontrast(image), 0, False),
    "Equalize": (lambda image, _: ImageOps.equalize(image), 0, False),
    "Brightness": (lambda image, share: ImageEnhance.Brightness(image).enhance(share * 1.8 + 0.1), 1, False),
    "Sharpness": (lambda image, share: ImageEnhance.Sharpness(image).enhance(share * 1.8 + 0.1), 1, False),
    "ShearX": (lambda image, amount: _shear_x(image, amount, GREY), 0.3, True),
    "ShearY": (lambda image, amount: _shear_y(image, amount, GREY), 0.3, True),
    "TranslateX": (lambda image, pixels: _translate_x(image, pixels, GREY), 10, True),
    "TranslateY": (lambda image, pixels: _translate_y(image, pixels, GREY), 10, True),
    "Rotate": (lambda image, degrees: image.rotate(degrees, fillcolor=GREY), 30, True),
}


@dataclass(frozen=True)
class RandomAugment:
    """`count` operations of the ALBEF list, each with probability 0.5, at strength `level` of 10.

    New borders are grey (128). The original works with OpenCV; Pillow does the same arithmetic here.
    """

    count: int
    level: int
    probability: float = 0.5

    def __call__(self, image: Image.Image, rng: Rng) -> Image.Image:
        """Apply the drawn operations to an RGB picture."""
        names = list(ALBEF_OPERATIONS)
        for drawn in rng.integers(len(names), size=self.count):
            applied, negative = rng.random(2) < (self.probability, 0.5)
            operation, full, signed = ALBEF_OPERATIONS[names[drawn]]
            value = full * self.level / 10 * (-1 if signed and negative else 1)
            image = operation(image, value) if applied else image
        return image
