"""Colours for classes of pixels, and pictures of class maps."""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image

from unimo.data.images.class_maps import NO_CLASS

UNKNOWN = (255, 255, 255)
"""Colour of pixels without a class."""
_GOLDEN = 0.618034
"""Turn of the colour circle from one class to the next; any few of them in a row differ well."""


def colour_of(number: int) -> tuple[int, int, int]:
    """Return the colour of a class; `UNKNOWN` for none."""
    if number == NO_CLASS:
        return UNKNOWN
    if number == 0:  # often the background
        return (70, 74, 84)
    hue, round_ = (0.02 + number * _GOLDEN) % 1.0, number // 12
    strong, bright = ((0.72, 0.92), (0.45, 0.95), (0.85, 0.62))[round_ % 3]
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, strong, bright))
    return red, green, blue


def paint(class_map: np.ndarray) -> Image.Image:
    """Return a map [H, W] as an RGB picture in the colours of its classes."""
    table = np.array([colour_of(number) for number in range(256)], np.uint8)
    return Image.fromarray(table[class_map])
