"""The index on disk against brute force, going on after a kill, and indices of other corpora."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from unimo.augment import index as module
from unimo.augment.index import Entry, TfidfIndex, build_index
from unimo.augment.terms import terms_of
from unimo.errors import DataError

REAL = Path(__file__).resolve().parents[3] / "../shared/data/text/flickr8k_captions_unpaired.txt"
WORDS = "dog cat bird tree hill lake boat ball rope tent".split()


def invented(size: int) -> list[str]:
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, len(WORDS) + 1)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 8), p=weights / weights.sum())) for _ in range(size)]


def build(texts: list[str], folder: Path, about: str = "here") -> TfidfIndex:
    def entries(start: int) -> Iterator[Entry]:
        for at in range(start, len(texts)):
            yield Entry(f"s{at}", f"i{at // 5}", texts[at], terms_of(texts[at]))

    return build_index(entries, folder, {"corpus": about})


def check_against_brute_force(texts: list[str], index: TfidfIndex, queries: range, top: int = 100) -> None:
    table = TfidfVectorizer(analyzer=terms_of).fit_transform(texts)
    for query in queries:
        scores = np.asarray((table @ table[query].T).todense()).ravel()
        hits = index.search(terms_of(texts[query]), top)
        wanted = np.sort(scores[scores > 0])[::-1][:top]
        np.testing.assert_allclose([hit.score for hit in hits], wanted, atol=2e-6)
        above_the_tie = {at for at in np.flatnonzero(scores > wanted[-1] + 1e-5)}
        found = {hit.number for hit in hits}
        assert above_the_tie <= found and scores[list(found)].min() >= wanted[-1] - 1e-5


def test_equals_brute_force_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "BLOCK", 64)
    texts = invented(300)
    check_against_brute_force(texts, build(texts, tmp_path), range(0, 300, 13))


@pytest.mark.skipif(not REAL.is_file(), reason="no ../shared")
def test_equals_brute_force_on_2000_captions(tmp_path: Path):
    texts = REAL.read_text(encoding="utf8").splitlines()[:2000]
    check_against_brute_force(texts, build(texts, tmp_path), range(0, 2000, 40))


def test_a_killed_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "BLOCK", 64)
    texts, starts = invented(200), []

    def entries(start: int) -> Iterator[Entry]:
        starts.append(start)
        for at in range(start, len(texts)):
            if at == 150 and len(starts) == 1:
                raise KeyboardInterrupt
            yield Entry(f"s{at}", f"i{at // 5}", texts[at], terms_of(texts[at]))

    with pytest.raises(KeyboardInterrupt):
        build_index(entries, tmp_path / "a", {"corpus": "here"})
    with pytest.raises(DataError, match="not finished"):
        TfidfIndex(tmp_path / "a")
    whole, resumed = build(texts, tmp_path / "b"), build_index(entries, tmp_path / "a", {"corpus": "here"})
    assert starts == [0, 128] and len(resumed) == 200
    assert resumed.search(["dog", "hill"], 20) == whole.search(["dog", "hill"], 20)


def test_entries_of_an_image_are_left_out(tmp_path: Path):
    index = build(["dog tree"] * 5 + ["dog", "cat"], tmp_path)
    assert [hit.sample_id for hit in index.search(["dog", "tree"], 3, without_image="i0")] == ["s5"]
    assert index.texts_of_image("i1") == ["dog", "cat"] and index.search(["whale"], 5) == []


def test_other_corpora_and_other_files_are_refused(tmp_path: Path):
    build(["dog"], tmp_path / "a")
    with pytest.raises(DataError, match="another corpus or setting .*'here' there, 'elsewhere' here"):
        build(["cat"], tmp_path / "a", about="elsewhere")
    with pytest.raises(DataError, match="no index in"):
        TfidfIndex(tmp_path / "nothing")
    with pytest.raises(DataError, match="nothing to index"):
        build([], tmp_path / "empty")
