"""Nearest vectors by FAISS: all of them compared, or inverted lists of product codes for many.

Codes only choose candidates, which are then compared exactly with the vectors on disk. How many lists and
candidates that takes depends on the vectors, so it is measured when the lists are made: the cheapest choice
that finds nearly all of the ten nearest is kept.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from unimo.digests import digest
from unimo.errors import ConfigError, DataError
from unimo.files import replacing
from unimo.inference.search.store import Lists, Store, lists_file, open_store, vectors_file
from unimo.progress import Progress

logger = logging.getLogger(__name__)
MOST_FLAT = 100_000
"""Largest number of vectors that are all compared with a query: 0.3 GB with E = 768."""
GROWTH = 4
"""Times that an index may grow before its lists are trained anew."""
MEASURED_AGAIN = 1.1
"""Times that it may grow before its recall is measured anew, which takes longer than to add a little."""
WANTED_RECALL = 0.95
MEASURED_AT = 10
_QUERIES = 256
_POINTS_OF_LIST = 40
"""Vectors that each list is trained on; FAISS warns below 39."""
_CANDIDATES = (128, 256, 512, 1024, 2048, 4096)
_SEED = 0


@dataclass(frozen=True)
class Found:
    """The K nearest of Q queries, best first."""

    rows: np.ndarray
    """Row numbers [Q, K], int64; -1 at the end where lists have no more."""
    scores: np.ndarray
    """Cosines [Q, K], float32; -inf at these ends."""


def faiss() -> Any:
    """Import FAISS.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import faiss as library
    except ImportError as error:
        raise ConfigError("search needs faiss; install it: pip install 'unimo[search]'") from error
    return library


class Flat:
    """Compare a query with all vectors."""

    name = "flat: every vector is compared"

    def __init__(self, store: Store, first_part: int = 0) -> None:
        parts = range(first_part, len(store.state.parts))
        self._start = sum(part.rows for part in store.state.parts[:first_part])
        self._index = faiss().IndexFlatIP(store.state.width)
        for part in parts:
            self._index.add(store.vectors(part))

    def search(self, queries: np.ndarray, count: int) -> Found:
        """Return the nearest vectors of unit queries [Q, E]; fewer than `count` if there are no more."""
        scores, rows = self._index.search(queries, min(count, self._index.ntotal))
        return Found(rows + self._start, scores)


class InvertedLists:
    """Compare a query with the candidates of product codes in the lists nearest to it.

    Vectors that were appended after the lists were made are all compared.
    """

    def __init__(self, store: Store) -> None:
        self._store, self.lists = store, store.state.lists
        path = store.folder / lists_file(self.lists)
        store.check(path, self.lists.sha256)  # before FAISS reads it
        self._index = faiss().read_index(str(path))
        if (self._index.ntotal, self._index.d) != (self.lists.rows, store.state.width):
            raise DataError(f"{path} has other vectors than index.json says; build the index anew")
        self._rest = Flat(store, self.lists.parts)
        self.name = (
            f"IVF-PQ: {self.lists.probes} of {self._index.nlist} lists, {self.lists.candidates} candidates "
            f"compared exactly; recall@{MEASURED_AT} {self.lists.recall:.3f} when it was made"
        )

    def search(self, queries: np.ndarray, count: int) -> Found:
        """Return the nearest vectors of unit queries [Q, E]; fewer than `count` if there are no more."""
        self._index.nprobe = self.lists.probes
        candidates = max(self.lists.candidates, 2 * count)
        near = _exact(self._store, self._index, queries, candidates, count)
        if self.lists.rows == self._store.state.rows:
            return near
        rest = self._rest.search(queries, count)
        rows = np.concatenate([near.rows, rest.rows], axis=1)
        return _best(rows, np.concatenate([near.scores, rest.scores], axis=1), count)


def open_newest(folder: str | Path) -> tuple[Store, Flat | InvertedLists]:
    """Open the present state of a folder and its search.

    A writer that was through with this state, and is at work again, removes its lists; then the next one is
    opened.

    Raises:
        ConfigError: there is no index, or faiss is not installed.
        DataError: it is damaged.
    """
    while True:
        store = open_store(folder)
        try:
            return store, open_nearest(store)
        except DataError:
            if open_store(folder).state == store.state:
                raise


def open_nearest(store: Store) -> Flat | InvertedLists:
    """Return the search that an index has been prepared for.

    Raises:
        ConfigError: faiss is not installed.
        DataError: a file is damaged.
    """
    if store.state.lists is None:
        for number, part in enumerate(store.state.parts):  # read whole in any case
            store.check(store.folder / vectors_file(number), part.vectors)
        return Flat(store)
    return InvertedLists(store)


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    """Compute the share of the exact results, row numbers [Q, K], that was found, over all queries."""
    pairs = zip(found, exact, strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / max(len(b), 1) for a, b in pairs]))


def prepare(store: Store, say: Callable[[str], None] = logger.info, most_flat: int = MOST_FLAT) -> None:
    """Make what searching an index needs: nothing for few vectors; else lists, trained or added to.

    Killed meanwhile, the index is what it was: vectors outside the lists are compared one by one.

    Args:
        store: result of `writing`.
        say: told what is done.
        most_flat: vectors up to which there are no lists.
    """
    state = store.state
    if state.rows <= most_flat or (state.lists and state.lists.rows == state.rows):
        return
    lists = state.lists
    if lists and state.rows <= GROWTH * lists.trained_on:
        path = store.folder / lists_file(lists)
        store.check(path, lists.sha256)
        index = faiss().read_index(str(path))
        say(f"adding {state.rows - lists.rows:,} vectors to {index.nlist} lists")
        _add(index, store, lists.parts)
    else:
        index = _train(store, say)
        _add(index, store, 0)
        lists = Lists(0, 0, "", trained_on=state.rows, probes=1, candidates=_CANDIDATES[0], recall=0.0)
    lists = replace(lists, parts=len(state.parts), rows=state.rows)
    if state.rows > MEASURED_AGAIN * lists.chosen_for:
        probes, candidates, found = _choose(index, store, (lists.probes, lists.candidates))
        say(f"{probes} of {index.nlist} lists, {candidates} candidates: recall@{MEASURED_AT} {found:.3f}")
        changes = {"probes": probes, "candidates": candidates, "recall": round(found, 4)}
        lists = replace(lists, chosen_for=state.rows, **changes)
    path = store.folder / lists_file(lists)
    with replacing(path) as temporary:
        temporary.write_bytes(faiss().serialize_index(index).data)  # FAISS itself hides a full disk
    store.write(lists=replace(lists, sha256=digest(path)))


def _train(store: Store, say: Callable[[str], None]) -> Any:
    """Train lists and codes on a sample: 4 sqrt(N) lists, a byte for each 8 numbers of a vector."""
    library, rows, width = faiss(), store.state.rows, store.state.width
    count = 2 ** round(math.log2(4 * math.sqrt(rows)))
    codes = next(c for c in range(max(1, width // 8), 0, -1) if width % c == 0)
    sample = _sample(store, _POINTS_OF_LIST * count)
    say(f"training {count} lists and codes of {codes} bytes on {len(sample):,} of {rows:,} vectors")
    index = library.index_factory(width, f"IVF{count},PQ{codes}x8np", library.METRIC_INNER_PRODUCT)
    index.cp.spherical, index.cp.seed, index.cp.niter = True, _SEED, 10
    with Progress("training the lists"):
        index.train(sample)
    return index


def _add(index: Any, store: Store, first_part: int) -> None:
    parts = store.state.parts[first_part:]
    with Progress("putting into lists", sum(part.rows for part in parts), unit="vectors") as progress:
        for number, part in enumerate(parts, first_part):
            index.add(np.ascontiguousarray(store.vectors(number)))
            progress.update(part.rows)


def _choose(index: Any, store: Store, start: tuple[int, int]) -> tuple[int, int, float]:
    """Choose the fewest lists, then the fewest candidates, that find the nearest vectors of some of them.

    Args:
        start: lists and candidates to begin with.

    Returns:
        Lists, candidates, and the recall that was measured.
    """
    queries, wanted = _sample(store, _QUERIES), MEASURED_AT + 1
    exact = _compare_all(store, queries, wanted).rows[:, 1:]

    def measure(candidates: int) -> float:
        rows = _exact(store, index, queries, candidates, wanted).rows[:, 1:]
        return recall(rows, exact)  # without the query itself, which is always found

    probes = min(start[0], index.nlist)
    while True:  # with many candidates only the number of lists matters
        index.nprobe = probes
        if measure(max(_CANDIDATES)) >= (1 + WANTED_RECALL) / 2 or probes == index.nlist:
            break
        probes = min(2 * probes, index.nlist)
    for candidates in (number for number in _CANDIDATES if number >= start[1]):
        found = measure(candidates)
        if found >= WANTED_RECALL:
            break
    return probes, candidates, found


def _compare_all(store: Store, queries: np.ndarray, count: int) -> Found:
    """Return the nearest vectors of all, a part in memory at a time."""
    best: Found | None = None
    start = 0
    for part in range(len(store.state.parts)):
        scores = queries @ store.vectors(part).T
        rows = np.broadcast_to(np.arange(start, start + scores.shape[1]), scores.shape)
        start += scores.shape[1]
        if best is not None:
            rows = np.concatenate([best.rows, rows], axis=1)
            scores = np.concatenate([best.scores, scores], axis=1)
        best = _best(rows, scores, count)
    return best


def _exact(store: Store, index: Any, queries: np.ndarray, candidates: int, count: int) -> Found:
    """Return the nearest of the candidates by product codes, compared with the vectors themselves."""
    _, rows = index.search(queries, min(candidates, index.ntotal))
    scores = np.empty(rows.shape, np.float32)
    for number, (query, own) in enumerate(zip(queries, rows, strict=True)):
        there = own >= 0  # lists may have fewer
        scores[number, there] = store.take(own[there]) @ query
        scores[number, ~there] = -np.inf
    return _best(rows, scores, count)


def _best(rows: np.ndarray, scores: np.ndarray, count: int) -> Found:
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return Found(np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1))


def _sample(store: Store, count: int) -> np.ndarray:
    rows = np.random.default_rng(_SEED).permutation(store.state.rows)[:count]
    return store.take(np.sort(rows))
