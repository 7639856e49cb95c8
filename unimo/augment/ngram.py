"""Counts in bounded memory, and a trigram language model that ranks rewrites by fluency.

The model has interpolated Kneser-Ney smoothing (Chen and Goodman 1999, equation 4.35), with one discount
n1 / (n1 + 2 n2) for each order. It is our own, because KenLM's wheel cannot train, and NLTK's models are
nested Python dicts, which need about a hundred times the memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

BYTES_PER_KEY = 48
"""Peak memory of one counted key: key and count, twice while they are merged, and the buffer."""
_BITS = 21
_MASK = (1 << _BITS) - 1
UNKNOWN, BEGIN, END = 0, 1, 2
MAX_WORDS = 1 << 20


class KeyCounter:
    """Counts of 64-bit keys in sorted arrays.

    When there are more than `max_keys` different keys, the rarest are dropped: first all that were seen once,
    then twice, and so on. Their counts are lost; the counts of the others remain exact.
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


class TrigramCounter:
    """Counts of the trigrams of sentences, of at most `max_keys` different ones; the rarest are dropped."""

    def __init__(self, max_keys: int) -> None:
        self.words: dict[str, int] = {"<unk>": UNKNOWN, "<s>": BEGIN, "</s>": END}
        self.trigrams = KeyCounter(max_keys)

    def add(self, words: Sequence[str]) -> None:
        """Count one sentence; new words beyond a million different ones are unknown."""
        for word in words:
            if word not in self.words and len(self.words) < MAX_WORDS:
                self.words[word] = len(self.words)
        self.trigrams.add(_trigrams(self.words, words))


class TrigramModel:
    """Kneser-Ney probabilities from counts of trigrams."""

    def __init__(self, counter: TrigramCounter) -> None:
        self.words = counter.words
        counter.trigrams.settle()
        keys = counter.trigrams.keys
        self._high = _Order(keys, counter.trigrams.counts)
        pairs, histories = np.unique(keys & ((1 << 2 * _BITS) - 1), return_counts=True)
        self._middle = _Order(pairs, histories)
        singles, histories = np.unique(pairs & _MASK, return_counts=True)
        self._low = _Order(singles, histories)

    def log_probability(self, sentences: Iterable[Sequence[str]]) -> np.ndarray:
        """Return for each sentence the mean log probability of its words and its end, in nats."""
        keys = [_trigrams(self.words, sentence) for sentence in sentences]
        if not keys:
            return np.zeros(0)
        different, where = np.unique(np.concatenate(keys), return_inverse=True)
        logs = np.log(self.probability(different))[where]
        lengths = np.array([len(row) for row in keys])
        return np.add.reduceat(logs, np.cumsum(lengths) - lengths) / lengths

    def probability(self, trigrams: np.ndarray) -> np.ndarray:
        """Return p(w | u, v) of trigrams packed as `u << 42 | v << 21 | w`."""
        pairs = trigrams & ((1 << 2 * _BITS) - 1)
        lowest = self._low.interpolate(pairs & _MASK, np.full(len(pairs), 1.0 / max(len(self.words), 1)))
        return self._high.interpolate(trigrams, self._middle.interpolate(pairs, lowest))


class _Order:
    """One order of the model: discounted counts, and the probability mass left to the next lower order."""

    def __init__(self, keys: np.ndarray, counts: np.ndarray) -> None:
        self.keys, self.counts = keys, counts
        ones, twos = int((counts == 1).sum()), int((counts == 2).sum())
        self.discount = ones / (ones + 2 * twos) if ones and twos else 0.5
        self.contexts, inverse = np.unique(keys >> _BITS, return_inverse=True)
        self.totals = np.bincount(inverse, counts, len(self.contexts))
        self.types = np.bincount(inverse, minlength=len(self.contexts)).astype(float)

    def interpolate(self, keys: np.ndarray, lower: np.ndarray) -> np.ndarray:
        total = look_up(self.contexts, self.totals, keys >> _BITS)
        types = look_up(self.contexts, self.types, keys >> _BITS)
        known = np.maximum(look_up(self.keys, self.counts, keys) - self.discount, 0.0)
        seen = np.maximum(total, 1.0)
        return np.where(total > 0, known / seen + self.discount * types / seen * lower, lower)


def _trigrams(words: dict[str, int], sentence: Sequence[str]) -> np.ndarray:
    """Return the trigrams of a sentence between two beginnings and an end, each three numbers of 21 bits."""
    numbers = [BEGIN, BEGIN, *(words.get(word, UNKNOWN) for word in sentence), END]
    row = np.array(numbers, np.int64)
    return row[:-2] << 2 * _BITS | row[1:-1] << _BITS | row[2:]
