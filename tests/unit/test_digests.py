"""Damage of stores, indexes and embeddings is told when they are opened or read, one flipped bit too."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from region_samples import write_store

from unimo.augment.embedding import embed_index
from unimo.augment.index import Entry, TfidfIndex, build_index
from unimo.data.record import Record
from unimo.data.regions.shard import ShardReader
from unimo.data.regions.store import RegionStore, shard_path
from unimo.digests import digest, find_damage, seal
from unimo.errors import DataError, RecordError, UnimoError
from unimo.weights.files import read_safetensors

TEXTS = [f"word{number} word{number % 7} dog" for number in range(40)]
IMAGES = ["a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.png"]


def letters(texts: list[str]) -> np.ndarray:
    return np.array([[text.count(chr(97 + at)) + 1 for at in range(26)] for text in texts], float)


def index(folder: Path) -> TfidfIndex:
    entries = [Entry(f"s{at}", f"i{at}", text, text.split()) for at, text in enumerate(TEXTS)]
    return build_index(lambda start: entries[start:], folder, {"corpus": "this"})


def read_index(folder: Path) -> None:
    assert index(folder).search(["word3"], 3)


def read_embeddings(folder: Path) -> None:
    assert len(embed_index(index(folder), letters, {}, id)) == len(TEXTS)


def read_store(folder: Path) -> None:
    store = RegionStore(folder)
    assert len(list(store.labels())) == len(IMAGES)


OPENED: dict[str, tuple[Callable[[Path], object], Callable[[Path], None]]] = {
    "norms.f32": (index, read_index),
    "index.sqlite": (index, read_index),
    "embeddings.f16": (read_embeddings, read_embeddings),
    "index.json": (lambda folder: write_store(folder, IMAGES), read_store),
    "index.arrow": (lambda folder: write_store(folder, IMAGES), read_store),
    "labels.jsonl": (lambda folder: write_store(folder, IMAGES), read_store),
}


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place // 8 % len(content)] ^= 1 << place % 8
    path.write_bytes(content)


@pytest.mark.parametrize("name", OPENED)
def test_damage_is_told_when_a_file_is_opened(tmp_path: Path, name: str) -> None:
    make, read = OPENED[name]
    make(tmp_path)
    read(tmp_path)
    whole = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(8 * len(whole), size=25).tolist():
        flip(tmp_path / name, place)
        with pytest.raises(UnimoError, match="remove|again|index"):
            read(tmp_path)
        (tmp_path / name).write_bytes(whole)
    for content in (bytes(len(whole)), whole + b"\0", *([whole[:-1]] if name != "embeddings.f16" else [])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnimoError):
            read(tmp_path)
    (tmp_path / name).write_bytes(whole)
    read(tmp_path)


def test_embeddings_that_are_cut_off_are_completed(tmp_path: Path) -> None:
    read_embeddings(tmp_path)
    path = tmp_path / "embeddings.f16"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    read_embeddings(tmp_path)
    assert path.read_bytes() == whole and not find_damage(tmp_path, [path.name], "embeddings.sha256")


def test_a_flipped_bit_in_a_shard_spoils_no_picture_in_silence(tmp_path: Path) -> None:
    store = write_store(tmp_path, IMAGES)
    path = shard_path(tmp_path, 1)
    whole, records = path.read_bytes(), [Record(name, "x", image_id=name) for name in IMAGES]
    sound = [store.of(record) for record in records]
    sizes = {name: table.nbytes for name, table in read_safetensors(path).items()}
    assert sizes["checks"] == 3 * 2 * 4
    damaged = 0
    for place in np.random.default_rng(0).integers(8 * len(whole), size=150).tolist():
        flip(path, place)
        for number, record in enumerate(records):
            try:
                found = RegionStore(tmp_path).image_of(record).regions
            except (RecordError, DataError) as error:
                damaged += 1
                assert number >= 2 and path.name in str(error)
            else:
                for name in ("features", "boxes", "class_probs", "width", "height"):
                    np.testing.assert_array_equal(getattr(found, name), getattr(sound[number], name))
        path.write_bytes(whole)
    assert damaged > 100  # those in names and padding change no picture


def test_names_in_a_shard_have_a_check_too(tmp_path: Path) -> None:
    write_store(tmp_path, IMAGES)
    path = shard_path(tmp_path, 0)
    for text in (b"a/1.jpg", b"broken.jpg"):
        whole = path.read_bytes()
        path.write_bytes(whole.replace(text, text.replace(b"jpg", b"jpf")))
        with pytest.raises(RecordError, match="are damaged; remove the file"):
            with ShardReader(path) as shard:
                shard.ids()
                shard.skipped()
        path.write_bytes(whole)


def test_a_folder_is_checked_whole_and_by_sha256sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unimo.digests._CHECKED_AT_ONCE", 50)
    (tmp_path / "large").write_bytes(bytes(100_000))
    (tmp_path / "small").write_bytes(b"x")
    seal(tmp_path)
    lines = (tmp_path / "digests.sha256").read_text().splitlines()
    assert lines[1] == f"{hashlib.sha256(b'x').hexdigest()}  small" and lines[2].startswith("# ")
    assert digest(tmp_path / "small") == hashlib.sha256(b"x").hexdigest()
    subprocess.run(["sha256sum", "--strict", "-c", "digests.sha256"], cwd=tmp_path, check=True)
    assert not find_damage(tmp_path) and not find_damage(tmp_path, ["large", "small"])
    flip(tmp_path / "large", 8 * 99_000)
    assert find_damage(tmp_path) == f"large in {tmp_path} changed after being written"
    flip(tmp_path / "small", 7)
    assert find_damage(tmp_path, ["small"]).startswith("small in ")
    assert not find_damage(tmp_path, ["small"], "digests of version 0.1")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: bytes(len(content)),
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: b"y" + content[1:],
        lambda content: content[:-1] + b"y",
        lambda content: content[: len(content) // 2] + bytes(len(content) - len(content) // 2),
        lambda content: content[::-1],
    ],
    ids=["zeroed", "cut", "longer", "start", "end", "second half zeroed", "replaced"],
)
def test_samples_of_a_large_file_are_compared_when_it_is_opened(tmp_path: Path, monkeypatch, change) -> None:
    monkeypatch.setattr("unimo.digests._CHECKED_AT_ONCE", 1 << 20)
    content = np.random.default_rng(0).bytes(9 << 20)  # samples are less than half of it
    (tmp_path / "large").write_bytes(content)
    seal(tmp_path, ["large"])
    monkeypatch.setattr("unimo.digests.digest", None)  # not read whole
    assert not find_damage(tmp_path, ["large"])
    (tmp_path / "large").write_bytes(change(content))
    assert find_damage(tmp_path, ["large"]) == f"large in {tmp_path} changed after being written"
