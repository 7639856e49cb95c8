"""The index on disk against brute force, resuming after a kill, and indices of other corpora."""

from __future__ import annotations

import contextlib
import re
import sqlite3
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


def test_a_damaged_or_hardly_begun_index_is_told(tmp_path: Path):
    build(["dog"], tmp_path / "a")
    (tmp_path / "a/norms.f32").unlink()
    with pytest.raises(
        DataError, match="norms.f32 is missing or cut off .*remove .* to build the index anew"
    ):
        TfidfIndex(tmp_path / "a")
    (tmp_path / "b").mkdir()
    sqlite3.connect(tmp_path / "b/index.sqlite").close()  # killed before its tables were created
    (tmp_path / "b/index.sqlite").touch()
    with pytest.raises(DataError, match="not finished; run the same command again"):
        TfidfIndex(tmp_path / "b")
    assert len(build(["dog"], tmp_path / "b")) == 1
    (tmp_path / "c").mkdir()
    with sqlite3.connect(tmp_path / "c/index.sqlite") as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(DataError, match="no index of ours .*name another folder"):
        TfidfIndex(tmp_path / "c")


def test_what_is_left_out_makes_room_for_others(tmp_path: Path):
    texts = ["dog", "dog", "dog tree"] * 100 + ["dog hill", "dog hill tree", "cat"] + ["bird"] * 5000
    index = build(texts, tmp_path)

    def found(top: int, *known: str, **settings: str) -> list[str]:
        return [hit.text for hit in index.search(["dog"], top, without_texts=known, **settings)]

    assert found(5) == ["dog", "dog tree", "dog hill", "dog hill tree"]
    assert found(2, "dog") == ["dog tree", "dog hill"] and found(1, "dog tree") == ["dog"]
    assert found(3, "dog", without_image="i60") == ["dog tree"]
    # The search ends even if many are excluded.
    assert [hit.text for hit in index.search(["bird", "cat"], 2, without_texts=["cat"])] == ["bird"]


def test_a_finished_index_is_only_read(tmp_path: Path):
    build(["dog tree", "cat"], tmp_path)
    path = tmp_path / "index.sqlite"
    before = path.stat().st_mtime_ns
    index = build(["dog tree", "cat"], tmp_path)
    assert path.read_bytes()[18:20] == b"\1\1"  # SQLite's mark of a file without a write-ahead log
    assert sorted(file.name for file in tmp_path.iterdir()) == ["digests.sha256", "index.sqlite", "norms.f32"]
    assert path.stat().st_mtime_ns == before and index.search(["dog"], 1)[0].sample_id == "s0"
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        index._base.execute("DELETE FROM sentences")


def test_images_are_found_by_id_and_by_names_of_their_own(tmp_path: Path):
    names = {"a/0.jpg": ["0.jpg", "0"], "b/1.jpg": ["1.jpg", "1"], "c/1.jpg": ["1.jpg", "1"], "1": []}
    index = build_index(lambda _: (Entry(i, i, i, [i], n) for i, n in names.items()), tmp_path, {})
    assert index.image_of(["x/0.png", "0.png", "0"]) == "a/0.jpg" and index.image_of(["b/1.jpg"]) == "b/1.jpg"
    assert (
        index.image_of(["1.jpg"]) == "" and index.image_of(["1.jpg", "1"]) == "1" and index.image_of([]) == ""
    )


DAMAGE = {
    "no table": "DROP TABLE postings",
    "no column": "ALTER TABLE sentences RENAME COLUMN text TO words",
    "no note": "DELETE FROM about WHERE key = 'size'",
    "a size that is none": "UPDATE about SET value = '1e400' WHERE key = 'size'",
    "a note that is none": "UPDATE about SET value = '[' WHERE key = 'about'",
    "no lists": "UPDATE postings SET places = 'x'",
    "lists of other lengths": "UPDATE postings SET counts = x'0100'",
    "sentences beyond the end": "UPDATE postings SET places = x'ffff', counts = x'0100'",
    "lost sentences": "DELETE FROM sentences",
    "texts that are none": "UPDATE sentences SET text = x'05'",
    "texts that are no UTF-8": "UPDATE sentences SET text = CAST(x'ff' AS TEXT)",
    "frequencies below zero": "UPDATE terms SET frequency = -1",
}


@pytest.mark.parametrize("command", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_database_is_named(tmp_path: Path, command: str):
    build(invented(30), tmp_path)
    (tmp_path / "digests.sha256").unlink()
    with contextlib.closing(sqlite3.connect(tmp_path / "index.sqlite")) as base, base:
        base.execute(command)
    with pytest.raises(DataError, match=re.escape(str(tmp_path))):
        index = TfidfIndex(tmp_path)
        index.search(["dog", "cat"], 5)


@pytest.mark.parametrize("command", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_database_is_not_finished(tmp_path: Path, command: str):
    """A stopped build goes on, or says what is wrong; it raises nothing else."""
    build(invented(30), tmp_path)
    (tmp_path / "digests.sha256").unlink()
    with contextlib.closing(sqlite3.connect(tmp_path / "index.sqlite")) as base, base:
        base.execute("DELETE FROM about WHERE key = 'finished'")
        base.execute(command)
    with contextlib.suppress(DataError):
        build(invented(30), tmp_path).texts(0, 9)


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", b"x" * 5000, bytes(5000)], ids=len)
def test_files_that_are_no_database(tmp_path: Path, content: bytes):
    (tmp_path / "index.sqlite").write_bytes(content)
    with pytest.raises(DataError, match="index"):
        TfidfIndex(tmp_path)
