"""One scene of the built-in corpus: coloured shapes in the quarters of a small image, and its rendering."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

CANVAS = 64
"""Side of an image in pixels."""
MAX_OBJECTS = 3

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "green": (44, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (240, 220, 40),
    "black": (15, 15, 15),
    "white": (250, 250, 250),
}
SHAPES = ("circle", "square", "triangle", "cross")
RADII = {"small": 8, "large": 13}
JITTER = 2
"""Largest shift of an object from the centre of its quarter, in pixels."""
PLACES = ("top left", "top right", "bottom left", "bottom right")


@dataclass(frozen=True)
class SceneObject:
    """A shape in one quarter of an image."""

    shape: str
    color: str
    size: str
    place: str
    box: tuple[int, int, int, int]
    """x1, y1, x2, y2 in pixels."""

    @property
    def name(self) -> str:
        """Colour and shape: `red circle`."""
        return f"{self.color} {self.shape}"

    @property
    def phrase(self) -> str:
        """Size, colour and shape with an article: `a small red circle`."""
        return f"a {self.size} {self.name}"

    @property
    def row(self) -> int:
        """0 for the top half, 1 for the bottom half."""
        return PLACES.index(self.place) // 2

    @property
    def column(self) -> int:
        """0 for the left half, 1 for the right half."""
        return PLACES.index(self.place) % 2


@dataclass(frozen=True)
class Scene:
    """The objects of one image and its background colour."""

    objects: tuple[SceneObject, ...]
    background: tuple[int, int, int]


def make_scene(rng: np.random.Generator) -> Scene:
    """Make a random scene of 1 to 3 objects, each in a quarter of its own."""
    half = CANVAS // 2
    objects = []
    for place in sorted(rng.permutation(4)[: rng.integers(1, MAX_OBJECTS + 1)]):
        size = ("small", "large")[rng.integers(2)]
        radius = RADII[size]
        x = half * (place % 2) + half // 2 + int(rng.integers(-JITTER, JITTER + 1))
        y = half * (place // 2) + half // 2 + int(rng.integers(-JITTER, JITTER + 1))
        objects.append(
            SceneObject(
                shape=SHAPES[rng.integers(len(SHAPES))],
                color=tuple(COLORS)[rng.integers(len(COLORS))],
                size=size,
                place=PLACES[place],
                box=(x - radius, y - radius, x + radius, y + radius),
            )
        )
    gray = int(rng.integers(110, 160))
    return Scene(tuple(objects), (gray, gray, gray))


def render(scene: Scene) -> Image.Image:
    """Render a scene as an RGB image [CANVAS, CANVAS]."""
    image = Image.new("RGB", (CANVAS, CANVAS), scene.background)
    draw = ImageDraw.Draw(image)
    for item in scene.objects:
        _draw(draw, item, COLORS[item.color])
    return image


def render_classes(scene: Scene) -> Image.Image:
    """Render the class of each pixel of `render`, a grey image: 0 the background, 1 + n a shape SHAPES[n]."""
    image = Image.new("L", (CANVAS, CANVAS), 0)
    draw = ImageDraw.Draw(image)
    for item in scene.objects:
        _draw(draw, item, 1 + SHAPES.index(item.shape))
    return image


def _draw(draw: ImageDraw.ImageDraw, item: SceneObject, fill: int | tuple[int, int, int]) -> None:
    x1, y1, x2, y2 = item.box
    radius = (x2 - x1) // 2
    x, y = x1 + radius, y1 + radius
    if item.shape == "circle":
        draw.ellipse(item.box, fill=fill)
    elif item.shape == "square":
        draw.rectangle(item.box, fill=fill)
    elif item.shape == "triangle":
        draw.polygon([(x, y1), (x2, y2), (x1, y2)], fill=fill)
    else:
        arm = max(2, radius // 3)
        draw.rectangle((x - arm, y1, x + arm, y2), fill=fill)
        draw.rectangle((x1, y - arm, x2, y + arm), fill=fill)
