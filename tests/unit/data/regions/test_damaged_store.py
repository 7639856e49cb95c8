"""Stores of region features whose files contradict each other: our error, and the process goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from unimo.data.regions.base import Regions
from unimo.data.regions.shard import ShardReader, Skipped, StoredImage, Widths, halve, write_shard
from unimo.data.regions.store import INDEX, KEYS, LABELS, RegionStore, shard_path, write_index
from unimo.errors import DataError, RecordError

WIDTHS = Widths(features=4, classes=3, attributes=2)


def stored(number: int) -> StoredImage:
    rows = number + 1
    boxes = np.tile(np.array([0, 0, 5, 5], np.float32), (rows, 1))
    probs = np.full((rows, 3), 1 / 3, np.float32)
    regions = Regions(np.ones((rows, 4), np.float32), boxes, 10, 10, probs)
    labels, scores = np.zeros(rows, np.int32), np.ones(rows, np.float32)
    return halve(StoredImage(f"{number}.jpg", regions, labels, scores, np.ones((rows, 2))), WIDTHS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_shard(shard_path(tmp_path, 0), [stored(0), stored(1)], [Skipped("bad.jpg", "broken")], WIDTHS)
    write_shard(shard_path(tmp_path, 1), [stored(2)], [], WIDTHS)
    write_index(tmp_path, 2, WIDTHS, {"classes": ["a", "b", "c"], "attributes": ["x", "y"]}, 0.5)
    (tmp_path / "digests.sha256").unlink()  # which would tell of the damage first
    return tmp_path


def write_keys(folder: Path, rows: list[tuple[Any, Any, Any]], **types: pa.DataType) -> None:
    kinds = {"key": pa.string(), "shard": pa.int32(), "row": pa.int32()} | types
    columns = [
        pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), kinds.values(), strict=True)
    ]
    table = pa.table(columns, names=list(kinds))
    with pa.OSFile(str(folder / KEYS), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def test_whole_store(folder: Path) -> None:
    store = RegionStore(folder)
    assert [len(store.of_id(f"{number}.jpg")) for number in range(3)] == [1, 2, 3]
    assert [name for name, _ in store.labels()] == ["0.jpg", "1.jpg", "2.jpg"]


@pytest.mark.parametrize("shard", [2, -1, -(2**31), 2**31 - 1])
def test_files_that_the_store_does_not_have(folder: Path, shard: int) -> None:
    write_keys(folder, [("0.jpg", shard, 0)])
    with pytest.raises(DataError, match=r"index\.arrow is damaged: entry 0 is row 0 of file"):
        RegionStore(folder)


def test_rows_that_a_file_does_not_have(folder: Path) -> None:
    write_keys(folder, [("0.jpg", 0, -2)])
    with pytest.raises(DataError, match="entry 0 is row -2 of file 0"):
        RegionStore(folder)
    for row in (2, 2**31 - 1):
        write_keys(folder, [("0.jpg", 0, row)])
        with pytest.raises(RecordError, match=f"has 2 images; expected one of number {row}"):
            RegionStore(folder).of_id("0.jpg")


@pytest.mark.parametrize("types", [{"row": pa.int64()}, {"shard": pa.float32()}, {"key": pa.binary()}])
def test_another_table(folder: Path, types: dict[str, pa.DataType]) -> None:
    write_keys(folder, [(b"0" if "key" in types else "0", 0, 0)], **types)
    with pytest.raises(DataError, match="no index of region features"):
        RegionStore(folder)
    write_keys(folder, [("0", None, 0)])
    with pytest.raises(DataError, match="no index of region features"):
        RegionStore(folder)


@pytest.mark.parametrize("last", [10**6, -1, 2**31 - 1])
def test_names_out_of_range(folder: Path, last: int) -> None:
    write_keys(folder, [("a" * 611, 0, 0), ("b" * 797, 0, 1)])
    content = (folder / KEYS).read_bytes()
    old = np.array([0, 611, 1408], "<i4").tobytes()
    assert content.count(old) == 1
    (folder / KEYS).write_bytes(content.replace(old, np.array([0, 611, last], "<i4").tobytes()))
    with pytest.raises(DataError, match="not a complete Arrow file"):
        RegionStore(folder)


def test_names_that_are_no_text(folder: Path) -> None:
    keys = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff\xfe"], pa.binary()).buffers())
    one = pa.array([0], pa.int32())
    table = pa.table([keys, one, one], names=["key", "shard", "row"])
    with pa.OSFile(str(folder / KEYS), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(RecordError, match=r"index\.arrow is damaged"):
        RegionStore(folder).of_id("0.jpg")


@pytest.mark.parametrize(
    "change",
    [
        {"starts": np.array([0, 1, 99], np.int64)},
        {"starts": np.array([0, 3, 1], np.int64)},
        {"starts": np.array([-5, -1, 3], np.int64)},
        {"starts": np.array([2**62, 2**62, 2**62], np.int64)},
        {"starts": np.array([0, 1], np.int64)},
        {"starts": np.zeros(0, np.int64)},
        {"starts": np.array([0, 1, 3], np.int32)},
        {"starts": np.array([0.0, np.nan, 3.0])},
        {"sizes": np.zeros((1, 2), np.int32)},
        {"sizes": np.zeros((2, 3), np.int32)},
        {"sizes": np.zeros(4, np.int32)},
        {"boxes": np.zeros((2, 4), np.float32)},
        {"boxes": np.zeros((3, 5), np.float32)},
        {"features": np.zeros((2, 4), np.float16)},
        {"features": np.zeros(12, np.float16)},
        {"features": np.float16(1)},
        {"features": np.zeros((3, 4), np.int16)},
        {"class_probs": np.zeros((1, 3), np.float16)},
        {"labels": np.zeros(3, np.float32)},
        {"scores": np.zeros((3, 1), np.float32)},
        {"attributes": np.zeros(3, np.float16)},
        {"ids": np.frombuffer(b'["0.jpg"]', np.uint8)},
        {"ids": np.frombuffer(b"[1, 2]", np.uint8)},
        {"ids": np.frombuffer(b'{"a": 1}', np.uint8)},
        {"ids": np.frombuffer(b"[" * 5000, np.uint8)},
        {"ids": np.frombuffer(b"\xff\xff", np.uint8)},
        {"skipped": np.frombuffer(b'["ab", "cd"]', np.uint8)},
        {"skipped": np.frombuffer(b"[[1, 2, 3]]", np.uint8)},
        {"skipped": np.frombuffer(b"7", np.uint8)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_tables_that_contradict_each_other(folder: Path, change: dict[str, np.ndarray]) -> None:
    path = shard_path(folder, 0)
    with safe_open(path, framework="np") as file:
        tables = {name: file.get_tensor(name) for name in file.keys()}
    save_file(tables | {name: np.asarray(table) for name, table in change.items()}, path)

    def read_all() -> None:
        with ShardReader(path) as shard:
            list(shard.images())
            list(shard.labels())
            shard.skipped()

    with pytest.raises(RecordError, match="regions-00000"):
        read_all()


@pytest.mark.parametrize(
    "change",
    [
        {"shards": -1},
        {"shards": 1e9},
        {"shards": "2"},
        {"shards": True},
        {"widths": {"features": 4}},
        {"widths": {"features": 10**12, "classes": 3, "attributes": 2}},
        {"widths": {"features": 4, "classes": -3, "attributes": 2}},
        {"widths": {"features": 4, "classes": 3, "attributes": 2, "other": 1}},
        {"widths": [4, 3, 2]},
        {"classes": None},
        {"classes": [1, 2]},
        {"attributes": {"a": 1}},
        {"images": None},
        {"skipped": [["a"]]},
        {"skipped": 1},
        {"format": [[[[[]]]]] * 1000},
    ],
    ids=str,
)
def test_index_of_other_values(folder: Path, change: dict[str, Any]) -> None:
    about = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps(about | change))
    with pytest.raises(DataError, match=r"index\.json") as caught:
        RegionStore(folder)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"1", b"[" * 100_000, b"\xff", b'{"a":' * 500 + b"1" + b"}" * 500]
)
def test_index_that_is_no_object(folder: Path, content: bytes) -> None:
    (folder / INDEX).write_bytes(content)
    with pytest.raises(DataError, match=r"index\.json"):
        RegionStore(folder)


LABEL_LINES = [
    *(b"1", b"{}", b"\xff", b"[" * 3000, b'{"image_id": "1", "labels": null}'),
    *(b'{"image_id": "1", "labels": 5}', b'{"image_id": null, "labels": []}'),
    *(b'{"image_id": "1", "labels": [1]}', b'{"image_id": [], "labels": []}'),
]


@pytest.mark.parametrize("line", LABEL_LINES)
def test_labels_of_another_form(folder: Path, line: bytes) -> None:
    (folder / LABELS).write_bytes(line + b"\n")
    with pytest.raises(DataError, match=r"labels\.jsonl, line 1"):
        list(RegionStore(folder).labels())
