"""Region masking (UNIMO, section 2.2): regions that overlap a masked one are masked with it."""

from __future__ import annotations

import numpy as np

from unimo.data.masking.budget import Budget
from unimo.errors import ConfigError


def overlaps(boxes: np.ndarray) -> np.ndarray:
    """Compute the intersection over union of all pairs of boxes [R, 4] (x1, y1, x2, y2 in any unit).

    Returns:
        [R, R] float64; 0 where both have no area.
    """
    low, high = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    sides = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    common = np.clip(sides, 0, None).prod(axis=-1)
    areas = (high - low).prod(axis=-1)
    union = areas[:, None] + areas - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


class RegionMasker:
    """Draw the masked regions of an image, groups of overlapping regions together.

    The paper masks regions "with a probability of 15%", and with each anchor all regions that overlap it. If
    every region were an anchor with probability 15%, crowded images would lose most of their regions. We read
    15% as the share that is masked: anchors are drawn at random from the visible regions and masked with all
    visible regions that overlap them, until 15% of the regions are spent; see `Budget` for a group larger
    than the remainder. An anchor that would leave no region visible is skipped, so an image with one region,
    or whose regions all overlap each other, keeps them all.

    Args:
        threshold: intersection over union above which a region is masked with an anchor.

    Raises:
        ConfigError: one of them is not in [0, 1).
    """

    def __init__(self, share: float = 0.15, threshold: float = 0.3) -> None:
        for name, value in (("share", share), ("threshold", threshold)):
            if not 0 <= value < 1:
                raise ConfigError(f"region masking with {name} {value}: expected at least 0 and below 1")
        self.share, self.threshold = share, threshold

    def __call__(self, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return which regions are masked, bool [R]; see `draw`."""
        return self.draw(boxes, rng)[0]

    def draw(self, boxes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return which regions are masked, bool [R], and the indices of the anchors, int64 [A]."""
        near = overlaps(boxes) > self.threshold
        np.fill_diagonal(near, True)
        budget = Budget(self.share * len(boxes), rng)
        masked, anchors = np.zeros(len(boxes), bool), []
        for anchor in rng.permutation(len(boxes)):
            group = near[anchor] & ~masked
            if masked[anchor] or (masked | group).all():
                continue
            if not budget.pays(int(group.sum())):
                break
            masked |= group
            anchors.append(anchor)
        return masked, np.array(anchors, np.int64)
