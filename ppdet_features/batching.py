"""Batches of images with the same input size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np


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
