"""Masking a share of a sample in whole pieces, such that exactly this share is masked on average."""

from __future__ import annotations

import numpy as np


class Budget:
    """Amount of a text or image that may still be masked, in whole words or groups of regions.

    A piece that fits is accepted. A piece of size s larger than the remainder r is accepted with probability
    r / s, and the budget is spent in either case. That takes r on average, so the mean amount masked equals
    the budget however large the pieces are, as long as there are enough of them.

    Args:
        amount: the budget, in the unit of the pieces; need not be an integer.
        rng: decides whether the last piece is accepted.
        overshoot: accept every piece while anything is left; deterministic, and too much on average.

    Attributes:
        left: remaining amount; 0 when the budget is spent.
    """

    def __init__(self, amount: float, rng: np.random.Generator, overshoot: bool = False) -> None:
        self.left = float(amount)
        self.rng = rng
        self.overshoot = overshoot

    def pays(self, size: float) -> bool:
        """Decide whether a piece of this size (> 0) is accepted, and subtract it from the budget."""
        if self.left <= 0:
            return False
        accepted = size <= self.left or self.overshoot or bool(self.rng.random() * size < self.left)
        self.left = max(self.left - size, 0.0)
        return accepted
