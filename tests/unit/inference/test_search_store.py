"""The folder of vectors: whole at any moment, refused when damaged; lists find what comparing all finds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from full_disk import largest_file

from unimo import files
from unimo.errors import ConfigError, DataError
from unimo.inference.search import nearest, store
from unimo.inference.search.nearest import Flat, open_nearest, prepare, recall
from unimo.inference.search.store import Store, open_store, writing

MADE_WITH = {"directory": "run/model", "model": "abc"}
WIDTH = 16


def clustered(count: int, seed: int = 0, width: int = WIDTH) -> np.ndarray:
    """Unit vectors around 20 centres."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(20, width))
    vectors = centres[rng.integers(20, size=count)] + 0.5 * rng.normal(size=(count, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def names(count: int, first: int = 0) -> list[dict[str, int]]:
    return [{"id": number} for number in range(first, first + count)]


def fill(folder: Path, counts: list[int], most_flat: int = 10**9) -> np.ndarray:
    """Append parts of these sizes, each by a writer of its own; return all vectors."""
    all_vectors = clustered(sum(counts))
    start = 0
    for count in counts:
        with writing(folder, WIDTH, MADE_WITH) as opened:
            opened.append(all_vectors[start : start + count], names(count, start))
            prepare(opened, most_flat=most_flat)
        start += count
    return all_vectors


@pytest.fixture
def few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAISS prints a warning below 39 vectors a list, and codes of a byte need 256."""
    monkeypatch.setattr(nearest, "_CANDIDATES", (16, 64, 256))


def test_parts_are_one_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "ROWS_OF_PART", 7)
    vectors = fill(tmp_path, [10, 3])
    opened = open_store(tmp_path)
    assert [part.rows for part in opened.state.parts] == [7, 3, 3]
    assert list(opened.names()) == names(13)
    rows = np.array([[0, 12], [7, 6]])
    np.testing.assert_array_equal(opened.take(rows), vectors[rows])
    opened.check_all()


def test_flat_is_the_order_of_cosines(tmp_path: Path) -> None:
    vectors = fill(tmp_path, [50, 20])
    queries = clustered(4, seed=1)
    found = open_nearest(open_store(tmp_path)).search(queries, 100)
    cosines = queries @ vectors.T
    np.testing.assert_array_equal(found.rows, np.argsort(-cosines, axis=1))
    np.testing.assert_allclose(found.scores, -np.sort(-cosines, axis=1), atol=1e-6)


@pytest.mark.usefixtures("few_points")
def test_lists_over_the_boundary_and_what_was_appended_since(tmp_path: Path) -> None:
    fill(tmp_path, [2000], most_flat=2500)
    assert open_store(tmp_path).state.lists is None
    vectors = clustered(4000)
    for first, rows, trained_on in ((2000, 3000, 3000), (3000, 4000, 3000)):
        with writing(tmp_path, WIDTH, MADE_WITH) as opened:
            opened.append(vectors[first:rows], names(rows - first, first))
            prepare(opened, most_flat=2500)
        lists = open_store(tmp_path).state.lists
        assert (lists.rows, lists.trained_on) == (rows, trained_on)
        assert lists.recall >= nearest.WANTED_RECALL
    with writing(tmp_path, WIDTH, MADE_WITH) as opened:  # killed before `prepare`
        opened.append(clustered(5), names(5, 4000))
    opened = open_store(tmp_path)
    queries = clustered(64, seed=3)
    found = open_nearest(opened).search(queries, 10)
    assert recall(found.rows, Flat(opened).search(queries, 10).rows) >= 0.9
    assert set(range(4000, 4005)) <= set(open_nearest(opened).search(clustered(5), 12).rows.ravel().tolist())
    np.testing.assert_allclose(found.scores, np.sum(queries[:, None] * opened.take(found.rows), 2), atol=1e-6)


@pytest.mark.usefixtures("few_points")
def test_recall_is_measured_anew_after_a_tenth_more(tmp_path: Path) -> None:
    chosen = []
    for counts in ([1000], [50], [50], [50]):
        fill(tmp_path, counts, most_flat=900)
        lists = open_store(tmp_path).state.lists
        chosen.append((lists.rows, lists.trained_on, lists.chosen_for))
    assert chosen == [(1000, 1000, 1000), (1050, 1000, 1000), (1100, 1000, 1000), (1150, 1000, 1150)]


@pytest.mark.usefixtures("few_points")
def test_lists_are_trained_anew_when_there_are_four_times_as_many(tmp_path: Path) -> None:
    fill(tmp_path, [1000, 3200], most_flat=900)
    assert open_store(tmp_path).state.lists.trained_on == 4200
    assert [path.name for path in sorted(tmp_path.glob("lists-*"))] == [
        "lists-000001.faiss",
        "lists-000002.faiss",
    ]
    with writing(tmp_path, WIDTH, MADE_WITH):
        pass
    assert [path.name for path in tmp_path.glob("lists-*")] == ["lists-000002.faiss"]


@pytest.mark.parametrize("steps", range(3))
def test_a_writer_killed_at_any_file_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    vectors = fill(tmp_path, [5])
    before = open_store(tmp_path)
    real, done = files.sync, []

    def killed(path: Path) -> None:
        done.append(path)
        if len(done) > 2 * steps:  # each file is synchronised with its folder
            raise KeyboardInterrupt
        real(path)

    monkeypatch.setattr(files, "sync", killed)
    with pytest.raises(KeyboardInterrupt), writing(tmp_path, WIDTH, MADE_WITH) as opened:
        opened.append(vectors, names(5, 5))
    monkeypatch.undo()
    assert open_store(tmp_path).state == before.state
    with writing(tmp_path, WIDTH, MADE_WITH) as opened:
        opened.append(vectors, names(5, 5))
    assert list(open_store(tmp_path).names()) == names(10)
    open_store(tmp_path).check_all()


def test_a_reader_keeps_its_state_while_another_process_appends(tmp_path: Path) -> None:
    vectors = fill(tmp_path, [30])
    reader = open_store(tmp_path)
    fill(tmp_path, [10])
    assert list(reader.names()) == names(30)
    np.testing.assert_array_equal(Flat(reader).search(vectors[:3], 40).rows.shape, (3, 30))
    assert open_store(tmp_path).state.rows == 40


@pytest.mark.parametrize("adds", [True, False], ids=["vectors", "lists"])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, adds: bool) -> None:
    vectors = fill(tmp_path, [600])
    before = open_store(tmp_path).state
    with writing(tmp_path, WIDTH, MADE_WITH) as opened, largest_file(4000):
        with pytest.raises(OSError, match="File too large"):
            opened.append(vectors, names(600)) if adds else prepare(opened, most_flat=500)
    assert open_store(tmp_path).state == before and not list(tmp_path.glob(".*.tmp"))
    open_store(tmp_path).check_all()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vectors-000000.npy").write_bytes(b"mine")
    with (
        pytest.raises(ConfigError, match="is no index, it holds vectors-000000.npy"),
        writing(tmp_path, 16, MADE_WITH),
    ):
        pass
    assert (tmp_path / "vectors-000000.npy").read_bytes() == b"mine"


@pytest.mark.usefixtures("few_points")
def test_a_search_goes_on_where_its_lists_were_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, [600, 10], most_flat=500)
    older = open_store(tmp_path)
    fill(tmp_path, [10], most_flat=500)
    fill(tmp_path, [10], most_flat=500)  # removes what `older` lists
    newer, states = open_store(tmp_path), iter([older])
    monkeypatch.setattr(nearest, "open_store", lambda folder: next(states, newer))
    assert nearest.open_newest(tmp_path)[0] is newer
    flip(tmp_path / "lists-000004.faiss")
    with pytest.raises(DataError, match="lists-000004.faiss changed"):
        nearest.open_newest(tmp_path)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with writing(tmp_path, WIDTH, MADE_WITH):
        with (
            pytest.raises(ConfigError, match="another process is writing"),
            writing(tmp_path, WIDTH, MADE_WITH),
        ):
            pass


@pytest.mark.parametrize(
    ("width", "made_with", "complaint"),
    [
        (WIDTH, {"directory": "elsewhere", "model": "other"}, "another model: abc, now other"),
        (8, MADE_WITH, "another width: 16, now 8"),
    ],
)
def test_vectors_of_another_model_are_refused(
    tmp_path: Path, width: int, made_with: dict[str, str], complaint: str
) -> None:
    fill(tmp_path, [3])
    with pytest.raises(ConfigError, match=complaint), writing(tmp_path, width, made_with):
        pass


def test_a_model_that_was_moved_is_the_same(tmp_path: Path) -> None:
    fill(tmp_path, [3])
    with writing(tmp_path, WIDTH, {**MADE_WITH, "directory": "elsewhere"}) as opened:
        assert opened.state.rows == 3


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.usefixtures("few_points")
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
@pytest.mark.parametrize("name", ["vectors-000000.npy", "names-000000.jsonl", "lists-000001.faiss"])
def test_damage_is_found_and_named(tmp_path: Path, name: str, damage: object) -> None:
    fill(tmp_path, [600], most_flat=500)
    damage(tmp_path / name)
    with pytest.raises(DataError, match=f"damaged: {re.escape(name)}"):
        open_store(tmp_path).check_all()


@pytest.mark.parametrize("most_flat", [500, 1000])
@pytest.mark.usefixtures("few_points")
def test_a_search_reads_no_damaged_file(tmp_path: Path, most_flat: int) -> None:
    fill(tmp_path, [600], most_flat=most_flat)
    flip(tmp_path / ("lists-000001.faiss" if most_flat == 500 else "vectors-000000.npy"))
    with pytest.raises(DataError, match="changed after being written"):
        open_nearest(open_store(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"format": 7},
        {"parts": [{"rows": 3}]},
        {"parts": None},
        {"width": 0},
        {"width": "x"},
        {"made_with": 3},
        {"lists": {"probes": 1}},
    ],
    ids=str,
)
def test_an_index_file_of_another_kind_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    fill(tmp_path, [3])
    path = tmp_path / store.INDEX
    content = json.loads(path.read_text()) | change
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=re.escape(str(tmp_path))):
        open_store(tmp_path)
    del content["sha256"]  # a writer with a fault would add the right one
    path.write_text(json.dumps({**content, "sha256": store._checksum(content)}))
    with pytest.raises(DataError, match=re.escape(str(tmp_path))):
        open_store(tmp_path)


def test_every_flipped_bit_of_the_index_file_is_found(tmp_path: Path) -> None:
    fill(tmp_path, [3])
    path = tmp_path / store.INDEX
    content, before = path.read_bytes(), open_store(tmp_path).state
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 7]) + content[place + 1 :])
        try:
            assert open_store(tmp_path).state == before  # a blank for another one
        except DataError as error:
            assert store.INDEX in str(error) or "format" in str(error)


def test_no_index(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no index at .*; make it with python tools/index.py build"):
        open_store(tmp_path)


def test_numbers_of_vectors_and_names_differ(tmp_path: Path) -> None:
    with writing(tmp_path, WIDTH, MADE_WITH) as opened, pytest.raises(ConfigError, match="of 2 names"):
        opened.append(clustered(3), names(2))
    assert isinstance(opened, Store)
