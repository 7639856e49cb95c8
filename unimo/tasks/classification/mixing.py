"""Mixup and cutmix of a batch of images as in timm, DeiT and BEiT: each image with another of its batch.

Legend: B batch, S image side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mixing:
    """How images are mixed: with both kinds, each batch is of one of them, with equal chances.

    Kind, share and place are one for a batch of a rank; where a step has several rounds, for each of them.
    """

    mixup: float = 0.0
    """Alpha of the Beta distribution of mixup's shares (Zhang et al., 2018); 0 leaves mixup out."""
    cutmix: float = 0.0
    """Alpha of the Beta distribution of cutmix's shares (Yun et al., 2019); 0 leaves cutmix out."""

    @property
    def alphas(self) -> list[float]:
        """Alpha of each kind that takes part."""
        return [alpha for alpha in (self.mixup, self.cutmix) if alpha]

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> float:
        """Mix each image of a batch [B, 3, S, S] with that at the same place from its end, in place.

        Returns:
            lambda, the share of itself that every image keeps: of each pixel by mixup, of its area by cutmix.
        """
        chosen = int(rng.integers(len(self.alphas)))
        share = float(rng.beta(self.alphas[chosen], self.alphas[chosen]))
        others = pixels[::-1].copy()
        if self.mixup and chosen == 0:
            pixels *= np.float32(share)
            pixels += np.float32(1 - share) * others
            return share
        top, bottom, left, right = cut_box(*pixels.shape[2:], share, rng)
        pixels[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
        return 1 - (bottom - top) * (right - left) / (pixels.shape[2] * pixels.shape[3])


def cut_box(height: int, width: int, share: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw the rectangle that cutmix replaces: top, bottom, left, right.

    It has a share `1 - share` of the area around a centre that may lie anywhere, and less where it would
    reach beyond the image.
    """
    part = math.sqrt(1 - share)
    edges = []
    for side in (height, width):
        length, centre = int(side * part), int(rng.integers(side))
        edges += [max(0, centre - length // 2), min(side, centre + length // 2)]
    return edges[0], edges[1], edges[2], edges[3]
