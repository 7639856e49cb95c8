"""Spending a share of something in whole pieces, so that on average exactly that share is spent."""

from __future__ import annotations

import numpy as np


class Budget:
    """What may still be hidden of a text or a picture, whose words and groups of regions come whole.

    A piece that fits is paid. One of size s that is larger than what is left, l, is paid with probability
    l / s, and either way nothing is left then: on average l, so that the mean of what is spent is the
    amount, however large the pieces are, as long as there are enough of them.

    Args:
        amount: to spend, in the unit of the pieces; need not be whole.
        rng: decides about the last piece.
        overshoot: pay every piece while anything is left; no chance, and on average too much.

    Attributes:
        left: what is not spent; 0 or less when it is over.
    """

    def __init__(self, amount: float, rng: np.random.Generator, overshoot: bool = False) -> None:
        self.left = float(amount)
        self.rng = rng
        self.overshoot = overshoot

    def pays(self, size: float) -> bool:
        """Whether a piece of this size (> 0) is paid; it is off the budget then."""
        if self.left <= 0:
            return False
        paid = size <= self.left or self.overshoot or bool(self.rng.random() * size < self.left)
        self.left = max(self.left - size, 0.0)
        return paid
