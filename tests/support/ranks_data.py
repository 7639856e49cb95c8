"""Numbers that test_losses_ranks.py and its ranks share."""

import numpy as np

BATCH = 4
GROUPS = np.array([1, 2, 1, 3])
SHARES = {"even": (2, 2), "uneven": (3, 1)}
"""Rows of the batch that the first and the second rank have."""
TEMPERATURE = 0.2
# Positions and labels of masked tokens of each rank; three on one, one on the other.
MASKED = (
    (np.array([0, 1, 3]), np.array([2, 0, 4])),
    (np.array([2]), np.array([1])),
)


def data() -> tuple[np.ndarray, np.ndarray]:
    """Text and image vectors [4, 6]."""
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal((BATCH, 6)).astype("float32") for _ in range(2))


def table() -> np.ndarray:
    """A vocabulary of five for states of width 3."""
    return np.random.default_rng(1).standard_normal((3, 5)).astype("float32")


def maps() -> np.ndarray:
    """Maps of states [4, 3, 2, 2]."""
    return np.random.default_rng(2).standard_normal((BATCH, 3, 2, 2)).astype("float32") + 1


def pixels() -> tuple[np.ndarray, np.ndarray]:
    """True and predicted classes of four pictures [4, 5, 5]; 255 is none."""
    truth, found = np.random.default_rng(3).integers(0, 3, (2, BATCH, 5, 5))
    truth[:, 0] = 255
    return truth, found
