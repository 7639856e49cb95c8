"""Blockwise masking of image patches (BEiT, Algorithm 1): rectangles of patches, until enough are hidden."""

from __future__ import annotations

import math

import numpy as np

from unimo.errors import ConfigError

HIDDEN = 75 / 196
"""Share of patches that are hidden at most: 75 of the 14 x 14 of an image of 224 pixels (BEiT's code)."""
SMALLEST = 16 / 196
"""Share of patches of the smallest block: 16 of 14 x 14 (BEiT, section 2.3)."""
ASPECT = 0.3
"""Smallest ratio of height to width; the largest is 1 / 0.3 (BEiT, section 2.3)."""
ATTEMPTS = 10
"""Draws of a block before the image is left as it is (BEiT's code)."""


class BlockMasker:
    """Hide blocks of the patches of an image.

    As in BEiT's code: a block is drawn by its area and the ratio of its sides; it may overlap earlier ones,
    but must hide something, and no more than is left to hide. So the last blocks are smaller, and a few
    patches fewer than the wanted number are hidden where no block fits any more.

    Args:
        grid: patches along a side of the image.

    Raises:
        ConfigError: an image of one patch, where nothing would be left to predict it from.
    """

    def __init__(self, grid: int) -> None:
        if grid < 2:
            raise ConfigError(f"images of {grid} x {grid} patches cannot be masked; try a larger image_size")
        self.grid = grid
        self.most = round(HIDDEN * grid**2)
        self.smallest = max(1, round(SMALLEST * grid**2))

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        """Draw which patches of an image are hidden, bool [grid, grid]."""
        hidden = np.zeros((self.grid, self.grid), bool)
        while (left := self.most - int(hidden.sum())) > 0:
            block = self._draw(hidden, left, rng)
            if block is None:
                break
            hidden[block] = True
        return hidden

    def _draw(self, hidden: np.ndarray, left: int, rng: np.random.Generator) -> tuple[slice, slice] | None:
        """Draw a block that hides 1 to `left` more patches; None if no attempt gave one."""
        areas = sorted((self.smallest, left))
        for _ in range(ATTEMPTS):
            area = rng.uniform(*areas)
            ratio = math.exp(rng.uniform(math.log(ASPECT), -math.log(ASPECT)))
            height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if not (0 < height < self.grid and 0 < width < self.grid):
                continue
            top, first = rng.integers(self.grid - height + 1), rng.integers(self.grid - width + 1)
            block = slice(top, top + height), slice(first, first + width)
            if 0 < np.count_nonzero(~hidden[block]) <= left:
                return block
        return None
