"""The nearest neighbours of each entry of a dictionary, collected from a stream in bounded memory."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Neighbour:
    """An item that was mapped to an entry: a word, or the image of a patch."""

    key: Hashable
    """Identity of the item."""
    score: float
    """Largest similarity of its occurrences."""
    count: int
    """Number of occurrences mapped to the entry."""
    place: Any
    """Position of the occurrence with that similarity."""


class Neighbours:
    """The use of C entries, and for each of them the items with the largest similarities.

    Memory is at most C times 2 `keep` neighbours for any length of the stream: a table that exceeds this is
    cut to its `keep` best items. Scores remain exact; the count of an item that was cut and returns starts
    again.

    Args:
        num_entries: C.
        keep: number of neighbours of an entry that are never lost.
        only: entries of interest; the tables of others stay empty.
    """

    def __init__(self, num_entries: int, keep: int, only: Sequence[int] | None = None) -> None:
        self.usage = np.zeros(num_entries, np.int64)
        self.keep = keep
        self._only = None if only is None else np.asarray(only, np.int64)
        self._tables: dict[int, dict[Hashable, Neighbour]] = {}

    @property
    def total(self) -> int:
        """Number of occurrences so far."""
        return int(self.usage.sum())

    def add(
        self, entries: np.ndarray, scores: np.ndarray, keys: Sequence[Hashable], places: Sequence[Any]
    ) -> None:
        """Add N occurrences.

        Args:
            entries: int [N], the entry of each.
            scores: float [N], its similarity to that entry.
            keys, places: N each, see `Neighbour`.
        """
        self.usage += np.bincount(entries, minlength=len(self.usage))
        wanted = range(len(entries)) if self._only is None else np.flatnonzero(np.isin(entries, self._only))
        numbers, values = entries.tolist(), scores.tolist()
        for row in wanted:
            entry, score, key, place = numbers[row], values[row], keys[row], places[row]
            table = self._tables.setdefault(entry, {})
            known = table.setdefault(key, Neighbour(key, score, 0, place))
            known.count += 1
            if score > known.score:
                known.score, known.place = score, place
            if len(table) > 2 * self.keep:
                self._tables[entry] = {item.key: item for item in self.nearest(entry, self.keep)}

    def nearest(self, entry: int, number: int) -> list[Neighbour]:
        """Return the `number` (at most `keep`) most similar neighbours of an entry, best first."""
        return sorted(self._tables.get(entry, {}).values(), key=lambda item: -item.score)[:number]


def most_shared(first: np.ndarray, second: np.ndarray, number: int) -> list[int]:
    """Return the entries most used by two modalities, ordered by the smaller of their two shares.

    Entries used by only one of them come last, ordered by its share; unused ones are never returned.

    Args:
        first, second: int [C], number of uses by each modality.
    """
    shares = np.stack([first / max(1, first.sum()), second / max(1, second.sum())])
    order = np.lexsort((-shares.sum(0), -shares.min(0)))
    return [int(entry) for entry in order[:number] if shares[:, entry].any()]
