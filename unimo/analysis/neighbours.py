"""What lies nearest to each entry of a dictionary, gathered from a stream in bounded memory. NumPy only."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Neighbour:
    """Something that was mapped to an entry: a word, or the picture that a patch is from."""

    key: Hashable
    """What counts as the same thing."""
    score: float
    """Largest similarity that it was seen with."""
    count: int
    """How often it was mapped to the entry."""
    place: Any
    """Where it was seen with that similarity."""


class Neighbours:
    """For each of C entries how often it was used, and the things with the largest similarities.

    Memory is at most C times 2 `keep` neighbours, however long the stream: a table that grows to that is
    cut to its `keep` best. Scores are exact all the same; the count of a thing that was cut off and came
    back counts from then on.

    Args:
        num_entries: C.
        keep: neighbours of an entry that are never lost.
        only: entries of interest; the tables of others stay empty.
    """

    def __init__(self, num_entries: int, keep: int, only: Sequence[int] | None = None) -> None:
        self.usage = np.zeros(num_entries, np.int64)
        self.keep = keep
        self._only = None if only is None else np.asarray(only, np.int64)
        self._tables: dict[int, dict[Hashable, Neighbour]] = {}

    @property
    def total(self) -> int:
        """Things seen so far, repeats counted."""
        return int(self.usage.sum())

    def add(
        self, entries: np.ndarray, scores: np.ndarray, keys: Sequence[Hashable], places: Sequence[Any]
    ) -> None:
        """Take N things at once.

        Args:
            entries: int [N], the entry that each was mapped to.
            scores: float [N], its similarity to that entry.
            keys, places: N each, see `Neighbour`.
        """
        self.usage += np.bincount(entries, minlength=len(self.usage))
        wanted = range(len(entries)) if self._only is None else np.flatnonzero(np.isin(entries, self._only))
        numbers, values = entries.tolist(), scores.tolist()
        for row in wanted:
            self._add_one(numbers[row], values[row], keys[row], places[row])

    def _add_one(self, entry: int, score: float, key: Hashable, place: Any) -> None:
        table = self._tables.setdefault(entry, {})
        known = table.get(key)
        if known is None:
            table[key] = Neighbour(key, score, 1, place)
            if len(table) > 2 * self.keep:
                best = sorted(table.values(), key=lambda item: -item.score)[: self.keep]
                self._tables[entry] = {item.key: item for item in best}
            return
        known.count += 1
        if score > known.score:
            known.score, known.place = score, place

    def nearest(self, entry: int, number: int) -> list[Neighbour]:
        """The `number` (at most `keep`) neighbours of an entry with the largest similarity, best first."""
        return sorted(self._tables.get(entry, {}).values(), key=lambda item: -item.score)[:number]


def most_shared(first: np.ndarray, second: np.ndarray, number: int) -> list[int]:
    """Entries that two modalities use most, by the smaller of their two shares of use.

    Entries that only one of them uses come last, by its share; unused ones never.

    Args:
        first, second: int [C], uses by each modality.
    """
    shares = np.stack([first / max(1, first.sum()), second / max(1, second.sum())])
    order = np.lexsort((-shares.sum(0), -shares.min(0)))
    return [int(entry) for entry in order[:number] if shares[:, entry].any()]
