"""Vocabularies of objects, attributes and relations with the similarity of their entries.

Similarity is distributional: entries of the same kind and grammatical form are similar if they occur between
the same words. For every entry the two words before and after it are counted, weighted by positive pointwise
mutual information (PPMI), and reduced by a truncated SVD; similarity is the cosine.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unimo.augment.ngram import KeyCounter
from unimo.augment.scene_graph import SceneGraph
from unimo.data.masking.tagging import split_words

Entry = tuple[str, str, str]
"""Kind, grammatical form, words."""

_FEATURE_BITS = 15
_WINDOW = 2
MAX_ENTRIES = 200_000
_BYTES_PER_SCORE = 12
"""A similarity, and its index while the largest are selected."""
_TOO_GENERAL = frozenset("person people someone thing things object objects something item items".split())
"""Words true of nearly any image, which as replacements would make positives."""


class VocabularyCounter:
    """Counts of the entries of scene graphs, and of at most `max_keys` (entry, neighbouring word) pairs."""

    def __init__(self, max_keys: int) -> None:
        self.entries: dict[Entry, int] = {}
        self._entries = KeyCounter(MAX_ENTRIES)
        self._contexts = KeyCounter(max_keys)
        self.counters = {"entries": self._entries, "contexts": self._contexts}
        """The counts by name, for saving."""

    def add(self, graph: SceneGraph, text: str) -> None:
        """Count the nodes of one caption."""
        numbers, contexts = [], []
        for node in graph.nodes():
            entry = (node.kind, node.form, node.text)
            if entry not in self.entries and len(self.entries) >= MAX_ENTRIES:
                continue
            number = self.entries.setdefault(entry, len(self.entries))
            numbers.append(number)
            before = split_words(text[: node.start])[-_WINDOW:]
            after = split_words(text[node.end :])[:_WINDOW]
            features = [f"-{at}{word}" for at, word in enumerate(reversed(before))]
            features += [f"+{at}{word}" for at, word in enumerate(after)]
            hashes = (zlib.crc32(feature.encode()) & ((1 << _FEATURE_BITS) - 1) for feature in features)
            contexts += [number << _FEATURE_BITS | feature for feature in hashes]
        self._entries.add(numbers)
        self._contexts.add(contexts)

    def named(self, numbers: np.ndarray) -> list[Entry]:
        """Return entries by their numbers."""
        names = list(self.entries)
        return [names[number] for number in numbers]

    def finish(self, min_count: int, neighbours: int, seed: int, memory_mb: int = 100) -> Vocabulary:
        """Return the entries seen at least `min_count` times, each with up to `neighbours` similar ones.

        `seed` is that of the decomposition, `memory_mb` for the similarities computed at a time.
        """
        self._entries.settle()
        self._contexts.settle()
        counts = np.zeros(len(self.entries), np.int64)
        counts[self._entries.keys] = self._entries.counts
        kept = np.flatnonzero(counts >= min_count)
        entries = self.named(kept)
        place = np.full(len(counts), -1, np.int32)
        place[kept] = np.arange(len(kept))
        rows = place[self._contexts.keys >> _FEATURE_BITS]
        columns = (self._contexts.keys & ((1 << _FEATURE_BITS) - 1)).astype(np.int32)
        inside = rows >= 0
        pair_counts = self._contexts.counts[inside].astype(np.float32)
        vectors = _vectors(rows[inside], columns[inside], pair_counts, len(entries), seed)
        return Vocabulary(entries, counts[kept], _nearest(entries, vectors, neighbours, memory_mb))


@dataclass(frozen=True)
class Vocabulary:
    """Entries with their most similar ones."""

    entries: list[Entry]
    counts: np.ndarray
    """[entries] int64: how often each occurs."""
    neighbours: np.ndarray
    """[entries, most similar] int32: numbers of similar entries, best first; -1 where there are fewer."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_numbers", {entry: number for number, entry in enumerate(self.entries)})

    def similar(self, kind: str, form: str, text: str) -> list[str]:
        """Return entries of the same kind and form, most similar first; none for an unknown entry."""
        number = self._numbers.get((kind, form, text))
        others = [] if number is None else self.neighbours[number]
        return [self.entries[other][2] for other in others if other >= 0]


def _vectors(rows: np.ndarray, columns: np.ndarray, counts: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Reduce the PPMI of entries to rows of 64 dimensions and length one; zeros without contexts."""
    from scipy.sparse import csr_matrix
    from sklearn.decomposition import TruncatedSVD

    if not len(rows):
        return np.zeros((size, 1), np.float32)
    row_sums = np.bincount(rows, counts, size).astype(np.float32)
    column_sums = np.bincount(columns, counts, 1 << _FEATURE_BITS).astype(np.float32)
    column_sums **= 0.75  # smoothing: otherwise rare contexts weigh too much
    information = np.log(counts * column_sums.sum() / (row_sums[rows] * column_sums[columns]))
    table = csr_matrix((np.maximum(information, 0.0), (rows, columns)), (size, len(column_sums)))
    reduced = TruncatedSVD(max(1, min(64, size - 1)), random_state=seed).fit_transform(table)
    return reduced / np.maximum(np.linalg.norm(reduced, axis=1, keepdims=True), 1e-12)


def _nearest(entries: Sequence[Entry], vectors: np.ndarray, neighbours: int, memory_mb: int) -> np.ndarray:
    groups: dict[tuple[str, str], list[int]] = {}
    for number, (kind, form, _) in enumerate(entries):
        groups.setdefault((kind, form), []).append(number)
    found = np.full((len(entries), min(neighbours, len(entries))), -1, np.int32)
    for members in map(np.array, groups.values()):
        own, size = vectors[members], min(neighbours, len(members))
        too_general = [entries[number][2] in _TOO_GENERAL for number in members]
        together = max(1, memory_mb * 1_000_000 // (_BYTES_PER_SCORE * len(members)))
        for start in range(0, len(members) if size else 0, together):
            block = np.arange(start, min(start + together, len(members)))
            scores = own[block] @ own.T
            scores[:, too_general] = -np.inf
            scores[block - start, block] = -np.inf
            best = np.argpartition(scores, -size, axis=1)[:, -size:]
            top = np.take_along_axis(scores, best, 1)
            order = np.lexsort((best, -top))
            best, top = np.take_along_axis(best, order, 1), np.take_along_axis(top, order, 1)
            found[members[block], :size] = np.where(top > 0, members[best], -1)
    return found
