"""Folders of classes: with and without folders of splits, and labels by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_arrow import jpeg

from unimo.data.readers.base import relabel
from unimo.data.readers.image_folder import SPLIT_FOLDERS
from unimo.data.readers.open import open_labeled_images
from unimo.errors import DataError
from unimo.settings import CorpusConfig, DataConfig


def fill(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(jpeg(number))


def read(folder: Path, split: str):
    return open_labeled_images(CorpusConfig(folder.name), split, DataConfig(root=str(folder.parent)))


def test_split_folders(tmp_path: Path) -> None:
    fill(tmp_path, "train/sea_lion/b.JPG", "train/cat/a.png", "train/cat/more/c.jpeg", "validation/cat/d.jpg")
    fill(tmp_path, "train/cat/notes.txt", "train/.hidden/e.jpg")
    train, val = read(tmp_path, "train"), read(tmp_path, "val")
    rows = [(record.sample_id, record.label, record.label_name) for record in train]
    assert rows == [("cat/a.png", 0, "cat"), ("cat/more/c.jpeg", 0, "cat"), ("sea_lion/b.JPG", 1, "sea lion")]
    assert train[2].image == tmp_path / "train/sea_lion/b.JPG" == train.image_source(2)
    assert list(val.class_names) == ["cat", "sea_lion"] and [record.label for record in val] == [0]
    assert {record.label for record in read(tmp_path, "train+val")} == {0, 1}
    with pytest.raises(DataError, match="no split 'test'; found: train, validation"):
        read(tmp_path, "test")


def test_without_split_folders_every_picture_has_its_place(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{name}/{number}.jpg" for name in ("dog", "cat") for number in range(30)))
    parts = {split: {record.sample_id for record in read(tmp_path, split)} for split in SPLIT_FOLDERS}
    assert sum(map(len, parts.values())) == 60 == len(set.union(*parts.values()))
    assert len(parts["train"]) > 45 and min(map(len, parts.values())) >= 1
    assert list(read(tmp_path, "val").class_names) == ["cat", "dog"]
    assert all(record.label == (record.sample_id[0] == "d") for record in read(tmp_path, "train"))


def test_labels_follow_the_classes_of_a_model(tmp_path: Path) -> None:
    fill(tmp_path, "train/cat/a.jpg", "train/dog/b.jpg")
    train = read(tmp_path, "train")
    moved = relabel(train, ["dog", "fox", "cat"])
    assert [record.label for record in moved] == [2, 0] and moved.class_names == ["dog", "fox", "cat"]
    assert relabel(train, ["cat", "dog"]) is train
    with pytest.raises(
        DataError, match="1 classes that the model does not know: cat; its 2 classes: dog, fox"
    ):
        relabel(train, ["dog", "fox"])


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder .*CIFAR"):
        read(tmp_path / "nowhere", "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no class folders"):
        read(tmp_path / "empty", "train")
    fill(tmp_path / "text", "train/cat/a.txt")
    with pytest.raises(DataError, match="no pictures"):
        read(tmp_path / "text", "train")
    fill(tmp_path / "more", "train/cat/a.jpg", "val/dog/b.jpg")
    with pytest.raises(DataError, match="classes that train does not have: dog"):
        read(tmp_path / "more", "val")
    fill(tmp_path / "few", "cat/a.jpg", "dog/a.jpg")
    with pytest.raises(DataError, match="too few pictures for a split 'val'"):
        read(tmp_path / "few", "val")
