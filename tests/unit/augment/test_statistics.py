"""Counts of a corpus: resuming after a kill between two checkpoints; similar entries are computed once."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from unimo.augment import statistics as module
from unimo.augment import vocabulary as vocabularies
from unimo.augment.corpus import CaptionCorpus
from unimo.augment.parsers import open_parser
from unimo.augment.scene_graph import SceneGraph
from unimo.augment.statistics import CorpusStatistics
from unimo.errors import DataError

TEXTS = [
    f"A {c} {a} sits on a {p} ." for c in ("red", "blue") for a in ("dog", "cat") for p in ("hill", "boat")
]


@pytest.fixture
def corpus(tmp_path: Path) -> CaptionCorpus:
    (tmp_path / "train.txt").write_text("\n".join(TEXTS))
    return CaptionCorpus(str(tmp_path / "train.txt"))


def collect(corpus: CaptionCorpus, file: Path, parse=None) -> CorpusStatistics:
    statistics = CorpusStatistics(1)
    statistics.collect(corpus, parse or open_parser(), file, {}, lambda n: None)
    return statistics


def test_a_count_that_is_killed_between_two_notes_ends_as_an_unbroken_one(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHECKPOINT", 3)
    whole, parse, seen = collect(corpus, tmp_path / "whole.npz"), open_parser(), []

    def killed(text: str) -> SceneGraph:
        seen.append(text)
        if len(seen) == 6:
            raise KeyboardInterrupt
        return parse(text)

    with pytest.raises(KeyboardInterrupt):
        collect(corpus, tmp_path / "a.npz", killed)
    resumed = collect(corpus, tmp_path / "a.npz", killed)
    assert seen == [*TEXTS[:6], *TEXTS[3:]]  # the last checkpoint was after the third
    assert (
        (resumed.read, resumed.parsed, resumed.broken)
        == (whole.read, whole.parsed, whole.broken)
        == (8, 8, 0)
    )
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    again = collect(corpus, tmp_path / "a.npz", killed)
    assert len(seen) == 11 and again.trigrams.words == whole.trigrams.words


def test_similar_entries_are_found_once(corpus, tmp_path, monkeypatch):
    statistics, file = collect(corpus, tmp_path / "a.npz"), tmp_path / "vocabulary.npz"
    first = statistics.entries(1, 5, 0, file, {"corpus": "here"})
    other = statistics.entries(1, 2, 0, file, {"corpus": "here"})  # other settings
    assert first.similar("object", "NN", "dog")[0] == "cat" and other.neighbours.shape[1] == 2
    monkeypatch.setattr(vocabularies, "_nearest", lambda *_: pytest.fail("computed again"))
    again = collect(corpus, tmp_path / "a.npz").entries(1, 2, 0, file, {"corpus": "here"})
    assert again.entries == other.entries and again.similar("object", "NN", "dog")[0] == "cat"
    np.testing.assert_array_equal(again.neighbours, other.neighbours)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match="vocabulary.npz cannot be read"):
        statistics.entries(1, 2, 0, file, {"corpus": "here"})


@pytest.mark.parametrize("memory_mb", [0, 1, 100])
def test_neighbours_equal_brute_force_in_blocks_of_any_size(memory_mb: int):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(700, 8)).astype(np.float32)
    vectors[5] = 0
    entries = [("object", "NN" if at % 3 else "NNS", "people" if at == 1 else f"w{at}") for at in range(700)]
    found = vocabularies._nearest(entries, vectors, 6, memory_mb)
    assert found.dtype == np.int32 and found.shape == (700, 6)
    for at in (0, 1, 5, 350, 698):
        scores = np.where(
            [one[1] == entries[at][1] for one in entries], vectors.astype(float) @ vectors[at], -1
        )
        scores[[at, 1]] = -1
        best = np.argsort(-scores)[:6]
        assert found[at].tolist() == [number if scores[number] > 0 else -1 for number in best]
    assert vocabularies._nearest(entries, vectors, 0, 1).shape == (700, 0)


@pytest.mark.parametrize("header", [b"(((", b"{'descr': '<u8'", b"[" * 99, b'"""', b"{'descr': 1}"], ids=repr)
def test_headers_that_numpy_trips_over(corpus, tmp_path, header):
    collect(corpus, tmp_path / "a.npz")
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("note.npy", start + header)
    with pytest.raises(DataError, match="a.npz cannot be read"):
        collect(corpus, tmp_path / "a.npz")
