"""Augmentation for contrastive learning on images: rotation and colour distortion (SimCLR, appendix A)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

Rng = np.random.Generator
GREY = (122, 117, 104)
"""Corners that a rotation leaves empty get the mean colour of CLIP's training images."""


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
        image = image.rotate(angle, Image.Resampling.BILINEAR, fillcolor=GREY)
        jitter, grey = rng.random(2)
        if jitter < 0.8:
            reach = 0.8 * self.strength
            factors = rng.uniform(max(0.0, 1 - reach), 1 + reach, size=3)
            turn = rng.uniform(-0.2, 0.2) * self.strength
            kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
            for number in rng.permutation(len(kinds) + 1):
                if number == len(kinds):
                    image = turn_hue(image, turn)
                else:
                    image = kinds[number](image).enhance(float(factors[number]))
        return image.convert("L").convert("RGB") if grey < 0.2 else image


def turn_hue(image: Image.Image, turn: float) -> Image.Image:
    """Shift the hue of an RGB image by a share of the colour circle."""
    hue, saturation, value = image.convert("HSV").split()
    shifted = [int(level + round(turn * 256)) % 256 for level in range(256)]
    return Image.merge("HSV", (hue.point(shifted), saturation, value)).convert("RGB")
