"""Counting the integer keys of a stream in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BYTES_PER_KEY = 48
"""Peak memory of one counted key: key and count, twice while they are merged, and the buffer."""


class KeyCounter:
    """Counts of 64-bit keys in sorted arrays.

    When there are more than `max_keys` different keys, the rarest are dropped: first all that were seen once,
    then twice, and so on. Their counts are lost; the counts of the others remain exact.

    Args:
        max_keys: largest number of different keys.
    """

    def __init__(self, max_keys: int) -> None:
        self.max_keys = max(1, max_keys)
        self.keys = np.zeros(0, np.int64)
        self.counts = np.zeros(0, np.int64)
        self._buffer: list[np.ndarray] = []
        self._waiting = 0

    def add(self, keys: Sequence[int] | np.ndarray) -> None:
        """Count each key once more."""
        array = np.asarray(keys, np.int64)
        self._buffer.append(array)
        self._waiting += len(array)
        if self._waiting >= min(max(self.max_keys // 2, 1), 1_000_000):
            self.settle()

    def settle(self) -> None:
        """Merge buffered keys, so that `keys` (sorted) and `counts` are up to date."""
        if not self._waiting:
            return
        new, counts = np.unique(np.concatenate(self._buffer), return_counts=True)
        self._buffer, self._waiting = [], 0
        keys = np.concatenate([self.keys, new])
        self.keys, inverse = np.unique(keys, return_inverse=True)
        self.counts = np.bincount(inverse, np.concatenate([self.counts, counts])).astype(np.int64)
        rarest = 1
        while len(self.keys) > self.max_keys:
            keep = self.counts > rarest
            self.keys, self.counts, rarest = self.keys[keep], self.counts[keep], rarest + 1


def look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the values of `wanted` keys among sorted `keys`; 0 for missing ones."""
    if len(keys) == 0:
        return np.zeros(len(wanted), values.dtype)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)
