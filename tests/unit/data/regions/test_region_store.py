"""The store of region features: precision, lookup by names, and refused files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from region_samples import NAMES, WIDTHS, sample, write_store

from unimo.data.record import Record
from unimo.data.regions.joined import JoinedRegions
from unimo.data.regions.open import open_regions, open_store
from unimo.data.regions.shard import ShardReader, Skipped, Widths, halve, write_shard
from unimo.data.regions.store import RegionStore, shard_path, write_index
from unimo.data.regions.tsv import write_tsv
from unimo.errors import DataError, RecordError
from unimo.weights.files import read_safetensors, write_safetensors


def record(image_id: str, image: Path | None = None) -> Record:
    return Record("s", "c", images=() if image is None else (image,), image_id=image_id)


@pytest.fixture
def store(tmp_path) -> RegionStore:
    return write_store(tmp_path / "store", ["a/1.jpg", "a/2.jpg", "b/2.jpg", "b/3.png"])


def test_everything_comes_back_in_half_precision(store):
    for found, number in zip(store.images(), range(4), strict=True):
        wanted = sample(found.image_id, number)
        np.testing.assert_array_equal(found.regions.boxes, wanted.regions.boxes)
        np.testing.assert_array_equal(found.labels, wanted.labels)
        np.testing.assert_array_equal(found.scores, wanted.scores)
        for table, expected in (
            (found.regions.features, wanted.regions.features),
            (found.regions.class_probs, wanted.regions.class_probs),
            (found.attributes, wanted.attributes),
        ):
            assert table.dtype == np.float32
            np.testing.assert_array_equal(table, expected.astype(np.float16))
        assert (found.regions.width, found.regions.height) == (40, 30)
        for source in (store, JoinedRegions([store, store])):
            attributes = source.attributes_of(record(found.image_id))
            assert source.num_attributes == 2
            np.testing.assert_array_equal(attributes, found.attributes.argmax(1))
    assert (store.feature_size, store.num_classes, len(store)) == (6, 3, 4)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (record("b/3.png"), "b/3.png"),
        (record("3.png"), "b/3.png"),
        (record("elsewhere/3.jpg"), "b/3.png"),
        (record("3"), "b/3.png"),
        (record("row 7", Path("/pictures/1.jpg")), "a/1.jpg"),
    ],
)
def test_names_that_find_a_picture(store, wanted, found):
    np.testing.assert_array_equal(store.of(wanted).features, store.of_id(found).features)


@pytest.mark.parametrize("name", ["2.jpg", "2", "4.jpg", ""])
def test_ambiguous_and_unknown_names_find_nothing(store, name):
    with pytest.raises(RecordError, match="extract_features.py"):
        store.of(record(name))


def test_a_skipped_picture_is_told_with_its_reason(store):
    with pytest.raises(RecordError, match="left out there: damaged"):
        store.of(record("broken.jpg"))
    assert store.skipped == [Skipped("broken.jpg", "damaged")]


def test_a_skipped_picture_is_not_another_one_of_its_file_name(tmp_path):
    (tmp_path / "one").mkdir()
    write_shard(shard_path(tmp_path / "one", 0), [halve(sample("a/1.png", 0), WIDTHS)],
                [Skipped("b/1.png", "damaged")], WIDTHS)  # fmt: skip
    write_index(tmp_path / "one", 1, WIDTHS, NAMES, 0.2)
    store = RegionStore(tmp_path / "one")
    assert [store.find(name) for name in ("a/1.png", "1.png", "1")] == [(0, 0), None, None]
    other = write_store(tmp_path / "two", ["1.png"])
    for source in (store, JoinedRegions([store, other])):  # nor an image of another store
        with pytest.raises(RecordError, match="left out there: damaged"):
            source.of(record("b/1.png"))
    one = write_store(tmp_path / "three", [sample("x", 0)])  # broken.jpg was skipped
    two = write_store(tmp_path / "four", ["broken.jpg"])
    with pytest.raises(RecordError, match=r"broken.jpg could be .*four, .*three"):
        JoinedRegions([one, two]).of(record("train/broken.jpg"))


def test_a_joined_store_takes_no_picture_of_a_shortened_name_for_one_that_another_store_has(tmp_path):
    """Images skipped under the same id, or stored several times."""
    left_out = write_store(tmp_path / "one", [sample("x", 0)])  # without broken.jpg
    two = write_store(tmp_path / "two", ["val/broken.jpg"])
    with pytest.raises(RecordError, match="left out there: damaged"):
        JoinedRegions([left_out, two]).of(record("broken.jpg"))
    several = write_store(tmp_path / "three", ["a/1.png", "b/1.png"])
    joined = JoinedRegions([several, write_store(tmp_path / "four", ["c/1.png"])])
    for name in ("1.png", "d/1.png", "1"):
        with pytest.raises(RecordError, match=f"image {PurePosixPath(name).name} could be .*four, .*three"):
            joined.of(record(name))
    assert [len(joined.of(record(f"{folder}/1.png"))) > 0 for folder in "abc"] == [True] * 3


def test_labels_are_names_of_probable_objects(tmp_path):
    images = [sample("1", 0, scores=[0.9, 0.3, 0.1], labels=[2, 0, 1]), sample("2", 1, scores=[0.1, 0.05])]
    store = write_store(tmp_path, images)
    assert list(store.labels()) == [("1", ["cat", "dog"]), ("2", ["dog"])]


def test_threads_read_at_once(store):
    ids = [image.image_id for image in store.images()] * 25
    alone = {name: store.of_id(name).features for name in set(ids)}
    with ThreadPoolExecutor(4) as threads:
        for name, regions in zip(ids, threads.map(store.of_id, ids), strict=True):
            np.testing.assert_array_equal(regions.features, alone[name])


def test_a_picture_of_two_files_counts_once(tmp_path):
    store = write_store(tmp_path, ["1.jpg", "2.jpg", "1.jpg"], per_shard=2)
    assert len(store) == 2
    assert [image.image_id for image in store.images()] == ["1.jpg", "2.jpg"]
    np.testing.assert_array_equal(store.of_id("1.jpg").features, sample("", 0).regions.features.astype("f2"))


def test_the_index_is_the_same_bytes_again(store):
    before = {path.name: path.read_bytes() for path in store.folder.iterdir()}
    names = {"classes": store.classes, "attributes": store.attributes}
    write_index(store.folder, 2, WIDTHS, names, 0.2)
    assert {path.name: path.read_bytes() for path in store.folder.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"features": np.full((2, 6), np.nan)}, "not finite"),
        ({"features": np.full((2, 6), 1e6)}, "not finite"),  # beyond half precision
        ({"features": np.ones((2, 5))}, r"expected \[R, 6\]"),
        ({"features": np.ones((0, 6)), "boxes": np.zeros((0, 4))}, "no regions"),
        ({"boxes": [[0, 0, 90, 5], [0, 0, 5, 5]]}, "outside"),
        ({"class_probs": np.ones((2, 4))}, r"class probabilities of shape \(2, 4\)"),
        ({"class_probs": np.full((2, 3), np.inf)}, "class probabilities are not finite"),
    ],
)
def test_what_is_not_written(change, complaint):
    with pytest.raises(RecordError, match=complaint):
        halve(sample("1.jpg", 0, **change), WIDTHS)


def test_stored_regions_of_another_width_are_refused_when_read(store):
    path = shard_path(store.folder, 0)
    tables = read_safetensors(path)
    del tables["checks"]
    write_safetensors(path, {**tables, "features": tables["features"][:, :4].astype(np.float16)})
    with pytest.raises(RecordError, match=r"expected \[R, 6\]"):
        store.of_id("a/1.jpg")


def test_a_truncated_file_spoils_its_own_pictures(store):
    path = shard_path(store.folder, 0)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(RecordError, match=r"regions-00000.safetensors cannot be read .*bytes"):
        store.of_id("a/1.jpg")
    assert len(store.of_id("b/2.jpg")) == 4
    shard_path(store.folder, 1).unlink()
    with pytest.raises(RecordError, match="missing"):
        store.of_id("b/2.jpg")


def test_folders_without_a_finished_store(tmp_path, store):
    with pytest.raises(DataError, match="no region features at"):
        open_regions(str(tmp_path / "nowhere"))
    (store.folder / "index.json").unlink()
    with pytest.raises(DataError, match="has not ended"):
        open_store(store.folder)


def test_an_empty_file_is_one_of_skipped_pictures(tmp_path):
    write_shard(shard_path(tmp_path, 0), [], [Skipped("x", "bad")], WIDTHS)
    with ShardReader(shard_path(tmp_path, 0)) as shard:
        assert (shard.ids(), shard.skipped()) == ([], [Skipped("x", "bad")])
    assert write_index(tmp_path, 1, WIDTHS, {}, 0.2) == {"images": 0, "regions": 0, "skipped": 1}


def test_several_stores_are_read_as_one(tmp_path):
    first = write_store(tmp_path / "one", ["1.jpg", "2.jpg"])
    second = write_store(tmp_path / "two", ["2.jpg", "3.jpg", "4.jpg"])
    write_tsv(tmp_path / "three.tsv", [sample("5", 9)])
    joined = open_regions(f"{first.folder},{second.folder}, {tmp_path / 'three.tsv'}")
    np.testing.assert_array_equal(joined.of(record("2.jpg")).features, first.of_id("2.jpg").features)
    np.testing.assert_array_equal(joined.of(record("4.jpg")).features, second.of_id("4.jpg").features)
    np.testing.assert_array_equal(joined.of(record("5.jpg")).features, sample("", 9).regions.features)
    with pytest.raises(RecordError, match="one.*two.*three"):
        joined.of(record("6.jpg"))
    assert len(joined.sources) == 3
    (tmp_path / "wide").mkdir()
    write_shard(shard_path(tmp_path / "wide", 0), [], [], Widths(8, 3))
    write_index(tmp_path / "wide", 1, Widths(8, 3), {}, 0.2)
    with pytest.raises(DataError, match="different detectors"):
        open_regions(f"{first.folder},{tmp_path / 'wide'}")


def test_a_short_name_that_several_stores_know_is_refused(tmp_path):
    train = write_store(tmp_path / "train", ["1.png", "x/2.png"])
    val = write_store(tmp_path / "val", ["2.png", "1.png"])
    joined = open_regions(f"{train.folder},{val.folder}")
    with pytest.raises(RecordError, match=r"1.png could be .*train, .*val; name only"):
        joined.of(record("val/1.png"))
    np.testing.assert_array_equal(joined.of(record("1.png")).features, train.of_id("1.png").features)
    # The first store has it only under a shortened name.
    np.testing.assert_array_equal(joined.of(record("2.png")).features, val.of_id("2.png").features)
    np.testing.assert_array_equal(joined.of(record("x/2.png")).features, train.of_id("x/2.png").features)
