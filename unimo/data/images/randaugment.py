"""Random augmentation of RGB images: the operations of UDA (used by METER), those of ALBEF and BLIP, those of
timm (used by BEiT), BEiT's colours, and the views for contrastive learning on images (SimCLR, appendix A).

`RandAugment` and `RandomAugment` are different recipes of the literature despite their names. Both draw
operations with replacement. All randomness comes from the generator passed to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Rng = np.random.Generator
Operation = Callable[[Image.Image, float], Image.Image]
GREY = (128, 128, 128)


def _affine(
    matrix: Callable[[float], tuple[float, ...]],
    fill: tuple[int, int, int] | None = None,
    resampling: Image.Resampling = Image.Resampling.NEAREST,
) -> Operation:
    """Build an affine operation whose matrix depends on the strength; `fill` None means black borders."""
    return lambda image, amount: image.transform(
        image.size, Image.Transform.AFFINE, matrix(amount), resampling, fillcolor=fill
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


def _change(kind: type) -> Operation:
    return lambda image, change: kind(image).enhance(1 + change)


_TIMM = GREY, Image.Resampling.BICUBIC

# Operation, its strength at level 10, and whether its sign is random. Strengths of translations are shares of
# the image, those of colours the distance of the factor from 1.
TIMM_OPERATIONS: dict[str, tuple[Operation, float, bool]] = {
    "AutoContrast": (lambda image, _: ImageOps.autocontrast(image), 0, False),
    "Equalize": (lambda image, _: ImageOps.equalize(image), 0, False),
    "Invert": (lambda image, _: ImageOps.invert(image), 0, False),
    "Rotate": (lambda image, degrees: image.rotate(degrees, _TIMM[1], fillcolor=GREY), 30, True),
    "Posterize": (lambda image, bits: ImageOps.posterize(image, 4 - int(bits)), 4, False),
    "Solarize": (lambda image, reach: ImageOps.solarize(image, 256 - int(reach)), 256, False),
    "SolarizeAdd": (_solarize_add, 110, False),
    "Color": (_change(ImageEnhance.Color), 0.9, True),
    "Contrast": (_change(ImageEnhance.Contrast), 0.9, True),
    "Brightness": (_change(ImageEnhance.Brightness), 0.9, True),
    "Sharpness": (_change(ImageEnhance.Sharpness), 0.9, True),
    "ShearX": (SHEAR_X(*_TIMM), 0.3, True),
    "ShearY": (SHEAR_Y(*_TIMM), 0.3, True),
    "TranslateX": (lambda image, share: TRANSLATE_X(*_TIMM)(image, share * image.width), 0.45, True),
    "TranslateY": (lambda image, share: TRANSLATE_Y(*_TIMM)(image, share * image.height), 0.45, True),
}


OPERATIONS = {"albef": ALBEF_OPERATIONS, "timm": TIMM_OPERATIONS}


@dataclass(frozen=True)
class RandomAugment:
    """Apply `count` random operations, each with probability 0.5, at strength `level` of 10.

    `albef`: ALBEF's, at one level. The original uses OpenCV; Pillow does the same arithmetic here.
    `timm`: those of `rand-m9-mstd0.5-inc1`, all of which change more at a higher level (`inc1`).
    New borders are grey (128).
    """

    count: int
    level: float
    operations: Literal["albef", "timm"] = "albef"
    deviation: float = 0.0
    """Standard deviation of normal levels around `level`; 0 for all at it."""
    probability: float = 0.5

    def __call__(self, image: Image.Image, rng: Rng) -> Image.Image:
        """Augment an RGB image."""
        table = OPERATIONS[self.operations]
        names = list(table)
        for drawn in rng.integers(len(names), size=self.count):
            applied, negative = rng.random(2) < (self.probability, 0.5)
            level = self.level
            if self.deviation:
                level = min(10.0, max(0.0, rng.normal(level, self.deviation)))
            operation, full, signed = table[names[drawn]]
            value = full * level / 10 * (-1 if signed and negative else 1)
            image = operation(image, value) if applied else image
        return image


MEAN_COLOUR = (122, 117, 104)
"""Corners that a rotation leaves empty get the mean colour of CLIP's training images."""


_COLOURS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
_HUE = len(_COLOURS)


@dataclass(frozen=True)
class ColourJitter:
    """Change brightness, contrast and saturation in random order, as BEiT does."""

    reach: float
    """Each is changed by a factor of 1 - reach to 1 + reach."""

    def __call__(self, image: Image.Image, rng: Rng) -> Image.Image:
        """Augment an RGB image."""
        factors = rng.uniform(max(0.0, 1 - self.reach), 1 + self.reach, size=_HUE)
        return _distort(image, factors, rng.permutation(_HUE))


@dataclass(frozen=True)
class ViewAugment:
    """Random rotation, then random colour distortion, of an image that is already cropped and resized.

    Colours are distorted as in SimCLR: with probability 0.8 brightness, contrast, saturation and hue are
    changed in random order, and with probability 0.2 the image becomes grey.
    """

    degrees: float
    """Largest rotation to either side."""
    strength: float = 1.0
    """SimCLR's s: factors of 1 - 0.8 s to 1 + 0.8 s, hue shifted by up to 0.2 s of the colour circle."""

    def __call__(self, image: Image.Image, rng: Rng) -> Image.Image:
        """Augment an RGB image; its size stays."""
        angle = rng.uniform(-self.degrees, self.degrees)
        image = image.rotate(angle, Image.Resampling.BILINEAR, fillcolor=MEAN_COLOUR)
        jitter, grey = rng.random(2)
        if jitter < 0.8:
            reach = 0.8 * self.strength
            factors = rng.uniform(max(0.0, 1 - reach), 1 + reach, size=3)
            turn = rng.uniform(-0.2, 0.2) * self.strength
            image = _distort(image, factors, rng.permutation(_HUE + 1), turn)
        return image.convert("L").convert("RGB") if grey < 0.2 else image


def _distort(image: Image.Image, factors: np.ndarray, order: np.ndarray, turn: float = 0.0) -> Image.Image:
    """Change brightness, contrast and saturation by `factors`, and the hue by `turn`, in the given order."""
    for number in order:
        if number == _HUE:
            image = turn_hue(image, turn)
        else:
            image = _COLOURS[number](image).enhance(float(factors[number]))
    return image


def turn_hue(image: Image.Image, turn: float) -> Image.Image:
    """Shift the hue of an RGB image by a share of the colour circle."""
    hue, saturation, value = image.convert("HSV").split()
    shifted = [int(level + round(turn * 256)) % 256 for level in range(256)]
    return Image.merge("HSV", (hue.point(shifted), saturation, value)).convert("RGB")
