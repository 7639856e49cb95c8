"""Drawing of regions into an image."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from unimo.data.regions.shard import StoredImage

MIN_SIDE = 600
"""Images whose longer side is shorter, in pixels, are enlarged to it."""


def draw_regions(
    image: Image.Image,
    found: StoredImage,
    classes: Sequence[str],
    attributes: Sequence[str] = (),
    least_score: float = 0.2,
    least_attribute: float = 0.1,
) -> Image.Image:
    """Draw the box of each region with its attribute, class and probability into an RGB copy of the image.

    Args:
        found: the regions of the image.
        classes, attributes: names; empty where regions have none.
        least_score: smallest probability of a region; the best one is always drawn.
        least_attribute: smallest probability of an attribute.
    """
    scale = max(1.0, MIN_SIDE / max(image.size))
    size = (round(image.width * scale), round(image.height * scale))
    canvas = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    shown = [i for i, score in enumerate(found.scores) if score >= least_score or i == found.scores.argmax()]
    for region in reversed(shown):  # the best ones on top
        label = int(found.labels[region])
        color = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(label * 0.618 % 1, 0.85, 0.8))
        x1, y1, x2, y2 = (float(side) * scale for side in found.regions.boxes[region])
        draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=color, width=2)
        text = f"{classes[label] if classes else ''} {found.scores[region]:.2f}"
        if found.attributes is not None and attributes:
            best = found.attributes[region].argmax()
            if found.attributes[region, best] >= least_attribute:
                text = f"{attributes[best]} {text}"
        left, top, right, bottom = draw.textbbox((x1, y1), text, font=font)
        draw.rectangle((left, top - 1, right + 4, bottom + 1), fill=color)
        draw.text((x1 + 2, y1), text, font=font, fill="white")
    return canvas
