"""Named image transforms: from an RGB image to the normalised pixels that a vision tower reads.

Most names and numbers are those of METER and BridgeTower. Each transform is one row of `RECIPES`: how the
image is cropped, mirrored and augmented. Cropping and scaling are one resampling, bicubic if not said.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from unimo.data.images.randaugment import (
    ColourJitter,
    RandAugment,
    RandomAugment,
    Rng,
    ViewAugment,
)
from unimo.errors import ConfigError, nearest

CLIP_MEAN = np.array((0.48145466, 0.4578275, 0.40821073))
CLIP_STD = np.array((0.26862954, 0.26130258, 0.27577711))
# pixels = bytes * SCALE + SHIFT is (bytes / 255 - mean) / std.
SCALE = (1 / (255 * CLIP_STD)).astype(np.float32).reshape(3, 1, 1)
SHIFT = (-CLIP_MEAN / CLIP_STD).astype(np.float32).reshape(3, 1, 1)

Transform = Callable[[Image.Image, Rng], np.ndarray]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Recipe:
    """One named transform; the fields are applied in this order."""

    augment_first: RandAugment | ColourJitter | None = None
    """Augmentation of the whole image, at its own size."""
    crop: Literal["centre", "all", "random"] = "centre"
    """`centre`: the largest square in the middle; `all`: the whole image, stretched; `random`: a part of
    its area with an aspect ratio of 3:4 to 4:3, stretched."""
    kept: float = 1.0
    """Share of the shorter side that a `centre` crop keeps."""
    smallest_crop: float = 0.5
    """Smallest share of the area of a `random` crop."""
    mirror: bool = False
    """Flip left and right with probability 0.5."""
    augment: RandAugment | RandomAugment | ViewAugment | None = None
    """Augmentation of the resized image."""
    statistics: Literal["clip", "half"] = "clip"
    """Mean and standard deviation for normalisation: CLIP's, or 0.5 for every colour (ViT)."""
    erased: float = 0.0
    """Probability that a random part of the normalised pixels becomes noise."""


RECIPES: dict[str, Recipe] = {
    "clip": Recipe(),
    "clip_randaug": Recipe(augment_first=RandAugment(2, 9)),
    "blip": Recipe(crop="all"),
    "blip_randaug": Recipe(crop="random", mirror=True, augment=RandomAugment(2, 5)),
    "blip_randaug_wc": Recipe(crop="random", mirror=True, augment=RandAugment(2, 7)),
    "blip_randaug_wohf": Recipe(crop="random", augment=RandomAugment(2, 5)),
    # Released code of UNIMO-2 and VLMo: stretched to a square, ViT's statistics; VLMo's training augments.
    "vit": Recipe(crop="all", statistics="half"),
    "vit_randaug": Recipe(crop="random", mirror=True, augment=RandomAugment(2, 7), statistics="half"),
    # The usual augmentation of ImageNet.
    "vit_crop": Recipe(crop="random", smallest_crop=0.08, mirror=True, statistics="half"),
    # Masked image modelling of BEiT's code.
    "beit_crop": Recipe(
        augment_first=ColourJitter(0.4), crop="random", smallest_crop=0.08, mirror=True, statistics="half"
    ),
    # Classification in BEiT's code, by timm: rand-m9-mstd0.5-inc1 and erasing; at 384 pixels and more it
    # evaluates the whole centre ("clip" with ViT's statistics), below 7/8 of it.
    "beit_randaug": Recipe(
        crop="random",
        smallest_crop=0.08,
        mirror=True,
        augment=RandomAugment(2, 9, "timm", 0.5),
        statistics="half",
        erased=0.25,
    ),
    "beit": Recipe(kept=7 / 8, statistics="half"),
    # Views for contrastive learning: UNIMO-2 (section 3.2) names the operations, SimCLR gives the numbers
    # except that of the rotation. Small images with few objects must keep more of the image.
    "vit_views": Recipe(crop="random", smallest_crop=0.08, augment=ViewAugment(30), statistics="half"),
    "clip_views": Recipe(crop="random", augment=ViewAugment(15, 0.5)),
}


def build_transform(name: str, size: int) -> Transform:
    """Build the transform of a name in `RECIPES`, to a square of `size` S pixels.

    Returns:
        A function from an RGB image and a generator to normalised pixels, float32 [3, S, S]. Deterministic
        transforms do not use the generator.

    Raises:
        ConfigError: unknown name.
    """
    cut = build_cut(name, size)
    scale_and_shift, erased = bytes_to_pixels(name), RECIPES[name].erased

    def transform(image: Image.Image, rng: Rng) -> np.ndarray:
        pixels = normalise(cut(image, rng), *scale_and_shift)
        return erase(pixels, rng) if erased and rng.random() < erased else pixels

    return transform


def build_cut(
    name: str, size: int, resampling: Image.Resampling = Image.Resampling.BICUBIC
) -> Callable[[Image.Image, Rng], Image.Image]:
    """Build a transform without its normalisation, from an RGB image to one of S x S pixels.

    Transforms of one name and several sizes take the same part of an image if their generators agree.

    Raises:
        ConfigError: unknown name.
    """
    if name not in RECIPES:
        raise ConfigError(f"unknown image transform {name!r}; {nearest(name, RECIPES)}")
    recipe = RECIPES[name]

    def cut(image: Image.Image, rng: Rng) -> Image.Image:
        if recipe.augment_first:
            image = recipe.augment_first(image, rng)
        if image.size != (size, size) or recipe.crop == "random" or recipe.kept < 1:
            box = _crop_box(recipe, image.size, size, rng)
            image = image.resize((size, size), resampling, box=box)
        if recipe.mirror and rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return recipe.augment(image, rng) if recipe.augment else image

    return cut


def bytes_to_pixels(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and shift, float32 [3, 1, 1], of a transform: its pixels are bytes * scale + shift."""
    if RECIPES[name].statistics == "clip":
        return SCALE, SHIFT
    return np.full((3, 1, 1), 2 / 255, np.float32), np.full((3, 1, 1), -1.0, np.float32)


def normalise(
    image: Image.Image | np.ndarray, scale: np.ndarray = SCALE, shift: np.ndarray = SHIFT
) -> np.ndarray:
    """Convert an RGB image [H, W] to float32 [3, H, W] as bytes * scale + shift; by default CLIP's."""
    # order="C" makes NumPy write planes in one pass; by default it keeps pixels together, 7 times slower.
    pixels = np.multiply(np.asarray(image).transpose(2, 0, 1), scale, dtype=np.float32, order="C")
    return np.add(pixels, shift, out=pixels)


def erase(pixels: np.ndarray, rng: Rng) -> np.ndarray:
    """Replace a random rectangle of pixels [3, S, S] by noise N(0, 1) for each, in place (random erasing).

    It has a fiftieth to a third of the area and an aspect ratio of 3:10 to 10:3; when ten draws do not fit
    inside, nothing is erased.
    """
    _, height, width = pixels.shape
    for _ in range(10):
        area = height * width * rng.uniform(0.02, 1 / 3)
        ratio = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if h < height and w < width:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            pixels[:, top : top + h, left : left + w] = rng.standard_normal((3, h, w), np.float32)
            break
    return pixels


def blank_pixels(size: int) -> np.ndarray:
    """Return pixels [3, S, S] without content: the mean colour of CLIP's training images everywhere.

    All images get the same colour; the mean colour of each would still hint at its content.
    """
    return np.zeros((3, size, size), np.float32)


def _crop_box(recipe: Recipe, image: tuple[int, int], size: int, rng: Rng) -> Box:
    width, height = image
    if recipe.crop == "random":
        return _random_box(width, height, rng, recipe.smallest_crop)
    if recipe.crop == "all":
        return 0, 0, width, height
    # The shorter side is scaled to `size` or more and the middle cut out. Scaled sides and offsets are whole
    # pixels, as in torchvision's Resize and CenterCrop.
    shorter, scaled = min(width, height), int(size / recipe.kept)
    scaled_width, scaled_height = scaled * width // shorter, scaled * height // shorter
    left, top = round((scaled_width - size) / 2), round((scaled_height - size) / 2)
    x_scale, y_scale = width / scaled_width, height / scaled_height
    return left * x_scale, top * y_scale, (left + size) * x_scale, (top + size) * y_scale


def _random_box(width: int, height: int, rng: Rng, smallest: float) -> Box:
    """Draw a random part of the image; its middle when ten draws do not fit inside."""
    for _ in range(10):
        area = width * height * rng.uniform(smallest, 1.0)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
