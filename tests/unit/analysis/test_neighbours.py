"""Streamed nearest neighbours against neighbours from all data at once."""

import numpy as np

from unimo.analysis.neighbours import Neighbours, most_shared

ENTRIES = 7


def stream(seed=0, batches=30, size=40, keys=200):
    rng = np.random.default_rng(seed)
    for _ in range(batches):
        yield (
            rng.integers(0, ENTRIES - 1, size),
            rng.standard_normal(size),
            rng.integers(0, keys, size).tolist(),
            [(int(a), int(b)) for a, b in rng.integers(0, 99, (size, 2))],
        )


def add_all(table):
    for part in stream():
        table.add(*part)
    return table


def test_nearest_are_those_of_the_whole_stream():
    table = add_all(Neighbours(ENTRIES, keep=5))
    for entry in range(ENTRIES):
        best = {}
        for entries, scores, keys, places in stream():
            for number, score, key, place in zip(entries, scores, keys, places, strict=True):
                if number == entry and score > best.get(key, (-np.inf,))[0]:
                    best[key] = (score, place)
        expected = sorted(best.items(), key=lambda item: -item[1][0])[:5]
        found = table.nearest(entry, 5)
        assert [item.key for item in found] == [key for key, _ in expected]
        assert [(item.score, item.place) for item in found] == [value for _, value in expected]
        assert table.nearest(entry, 2) == found[:2]
    assert table.nearest(ENTRIES - 1, 5) == []


def test_use_counts_every_thing_and_memory_is_bounded():
    table = add_all(Neighbours(ENTRIES, keep=5))
    expected = np.bincount(np.concatenate([part[0] for part in stream()]), minlength=ENTRIES)
    assert np.array_equal(table.usage, expected) and table.total == 30 * 40
    assert max(len(entries) for entries in table._tables.values()) <= 2 * 5


def test_counts_are_exact_where_everything_fits():
    table = Neighbours(2, keep=4)
    table.add(
        np.array([0, 0, 1, 0]), np.array([0.1, 0.5, 0.2, 0.3]), ["dog", "cat", "dog", "dog"], [1, 2, 3, 4]
    )
    table.add(np.array([0]), np.array([0.2]), ["dog"], [5])
    best = table.nearest(0, 4)
    assert [(item.key, item.count, item.score, item.place) for item in best] == [
        ("cat", 1, 0.5, 2),
        ("dog", 3, 0.3, 4),
    ]


def test_only_wanted_entries_are_kept():
    table = Neighbours(ENTRIES, 5, only=[2])
    reference = Neighbours(ENTRIES, 5)
    add_all(table), add_all(reference)
    assert np.array_equal(table.usage, reference.usage)
    assert table.nearest(2, 5) == reference.nearest(2, 5) and table.nearest(1, 5) == []


def test_entries_that_both_use_come_first():
    patches = np.array([50, 30, 20, 0, 0])
    words = np.array([0, 1, 5, 4, 0])
    # Smaller shares: 0, 0.1, 0.2, 0, 0; of the two entries used by one modality, 0.5 exceeds 0.4.
    assert most_shared(patches, words, 5) == [2, 1, 0, 3]
    assert most_shared(patches, words, 1) == [2]
