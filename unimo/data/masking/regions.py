"""Masked regions (UNIMO, section 2.2): what overlaps a hidden region is hidden with it."""

from __future__ import annotations

import numpy as np

from unimo.data.masking.budget import Budget
from unimo.errors import ConfigError


def overlaps(boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of each box with each, [R, R] float64; 0 where both are without area.

    Args:
        boxes: [R, 4]: x1, y1, x2, y2, in any unit.
    """
    low, high = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    sides = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    common = np.clip(sides, 0, None).prod(axis=-1)
    areas = (high - low).prod(axis=-1)
    union = areas[:, None] + areas - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


class RegionMasker:
    """Draws the regions of a picture that are hidden, groups of overlapping ones together.

    The paper masks "with a probability of 15%", and every region that overlaps an anchor with its anchor.
    If each region were an anchor with 15%, crowded pictures would lose most of their regions. We read 15% as
    the share that is hidden: anchors are drawn, by lot, from the regions still in sight, and hidden with all
    regions in sight that overlap them, until 15% of the regions are spent; see `Budget` for a group larger
    than what is left. An anchor that would leave no region in sight is passed over, so a picture with one
    region, or with regions that all overlap each other, keeps them all.

    Args:
        share: of the regions to hide.
        threshold: intersection over union above which a region is hidden with an anchor.

    Raises:
        ConfigError: one of them is not a share.
    """

    def __init__(self, share: float = 0.15, threshold: float = 0.3) -> None:
        for name, value in (("share", share), ("threshold", threshold)):
            if not 0 <= value < 1:
                raise ConfigError(f"region masking with {name} {value}: expected at least 0 and below 1")
        self.share, self.threshold = share, threshold

    def __call__(self, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Which regions are hidden, bool [R]; `draw` without the anchors."""
        return self.draw(boxes, rng)[0]

    def draw(self, boxes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Which regions are hidden, bool [R], and the indices of the anchors among them, int64 [A].

        Args:
            boxes: [R, 4]: x1, y1, x2, y2.
            rng: source of all chance.
        """
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
