"""Folders of classes: with and without folders of splits, and labels by name."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
from test_arrow import jpeg

from unimo.data.readers.base import relabel
from unimo.data.readers.open import open_corpus, open_labeled_images
from unimo.errors import DataError, RecordError
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
    names = ("cat/a.png", 0, "cat"), ("cat/more/c.jpeg", 0, "cat"), ("sea_lion/b.JPG", 1, "sea lion")
    assert rows == [(f"train/{name}", *labels) for name, *labels in names]
    assert train[2].image == tmp_path / "train/sea_lion/b.JPG" == train.image_source(2)
    assert list(val.class_names) == ["cat", "sea_lion"] and [record.label for record in val] == [0]
    assert {record.label for record in read(tmp_path, "train+val")} == {0, 1}
    with pytest.raises(DataError, match="no split 'test'; found: train, validation"):
        read(tmp_path, "test")


def test_without_split_folders_every_picture_has_its_place(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{name}/{number}.jpg" for name in ("dog", "cat") for number in range(30)))
    parts = {
        split: {record.sample_id for record in read(tmp_path, split)} for split in ("train", "val", "test")
    }
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


@pytest.mark.parametrize("name", ["train", "test", "Val", "dev", "train2"])
def test_a_class_may_be_named_like_a_split(tmp_path: Path, name: str) -> None:
    fill(
        tmp_path / "flat", *(f"{label}/{number}.jpg" for label in ("bus", "car", name) for number in range(9))
    )
    parts = [read(tmp_path / "flat", split) for split in ("train", "val", "test")]
    assert sum(map(len, parts)) == 27
    assert all(list(part.class_names) == sorted(["bus", "car", name]) for part in parts)
    fill(
        tmp_path / "tree",
        *(f"{split}/{label}/1.jpg" for split in ("Train", "test") for label in ("bus", name)),
    )
    assert list(read(tmp_path / "tree", "train").class_names) == sorted(["bus", name])
    assert [record.image_id for record in read(tmp_path / "tree", "test")] == [
        f"test/{label}/1.jpg" for label in sorted(["bus", name])
    ]
    fill(tmp_path / "mixed", f"{name}/tram/1.jpg", "bus/1.jpg", "car/1.jpg")
    with pytest.raises(DataError, match=f"no telling whether {name} are splits or classes, beside bus, car"):
        read(tmp_path / "mixed", "train")


@pytest.mark.parametrize(("name", "count"), [("train", 6), ("test", None), ("val", None)])
def test_images_alone_of_such_classes(tmp_path: Path, name: str, count: int | None) -> None:
    fill(tmp_path, *(f"{label}/{number}.jpg" for label in ("bus", "car", name) for number in range(2)))
    if count is None:
        with pytest.raises(DataError, match=f"no telling whether {name} are splits or classes"):
            open_corpus(CorpusConfig(str(tmp_path)), "train", "images", DataConfig())
    else:
        assert len(open_corpus(CorpusConfig(str(tmp_path)), "train", "images", DataConfig())) == count


def test_pictures_of_two_splits_are_different_pictures(tmp_path: Path) -> None:
    fill(tmp_path, "train/cat/1.jpg", "val/cat/1.jpg")
    both = read(tmp_path, "train+val")
    assert [record.image_id for record in both] == ["train/cat/1.jpg", "val/cat/1.jpg"]
    assert len({record.image_group for record in both}) == len({record.images for record in both}) == 2


@pytest.mark.parametrize("labeled", [True, False])
def test_links_are_followed_once_and_what_macs_add_is_no_data(tmp_path: Path, labeled: bool) -> None:
    fill(tmp_path / "disk", "old/1.jpg", "old/deep/2.jpg", "new/3.jpg")
    root = tmp_path / "set"
    fill(root, "train/cat/4.jpg", "train/__MACOSX/cat/._4.jpg", "train/cat/._4.jpg", "__MACOSX/5.jpg")
    (root / "train/cat/old").symlink_to(tmp_path / "disk/old")
    (root / "train/dog").symlink_to(tmp_path / "disk/new")
    (root / "train/cat/up").symlink_to(root / "train")
    (root / "val2014").symlink_to(root / "train")
    (tmp_path / "disk/old/deep/again").symlink_to(tmp_path / "disk/old")
    corpus = CorpusConfig(str(root))
    if labeled:
        opened = read(root, "train")
        assert list(opened.class_names) == ["cat", "dog"]
    else:
        opened = open_corpus(corpus, "train", "images", DataConfig())
        assert len(open_corpus(corpus, "val", "images", DataConfig())) == 4
    assert {record.image.name for record in opened} == {"1.jpg", "2.jpg", "3.jpg", "4.jpg"}
    assert len(opened) == (5 if labeled else 4)  # cat/up/dog is in the folder of cat, too


@pytest.mark.parametrize("place", ["train", "train/cat", "."])
def test_links_that_lead_nowhere_are_left_out(tmp_path: Path, place: str) -> None:
    fill(tmp_path, "train/cat/1.jpg", "train/dog/2.jpg", "val/cat/3.jpg")
    for name, target in (
        ("loop", "loop"),
        ("loop.jpg", "loop.jpg"),
        ("gone", "/nowhere"),
        ("long", "a/" * 3000),
    ):
        with contextlib.suppress(OSError):
            (tmp_path / place / name).symlink_to(target)
    assert list(read(tmp_path, "train").class_names) == ["cat", "dog"]
    found = open_corpus(CorpusConfig(str(tmp_path)), "train", "images", DataConfig())
    names = []
    for number in range(len(found)):
        with contextlib.suppress(RecordError):  # `loop.jpg` is no picture
            names.append(found[number].image.name)
    assert names == ["1.jpg", "2.jpg"] and len(found) in (2, 3)


def test_folders_without_end_are_one_error(tmp_path: Path) -> None:
    here = os.getcwd()
    try:
        os.chdir(tmp_path)
        for folder in ("train", "cat", *["deep"] * 1200):  # a path of that length cannot be opened at once
            os.mkdir(folder)
            os.chdir(folder)
    finally:
        os.chdir(here)
    for opened in (
        lambda: read(tmp_path, "train"),
        lambda: open_corpus(CorpusConfig(str(tmp_path)), "train", "images", DataConfig()),
    ):
        with pytest.raises(DataError, match="more than 100 folders inside each other"):
            opened()
    subprocess.run(["rm", "-rf", tmp_path / "train"], check=True)  # too deep for Python's own


@pytest.mark.parametrize("kind", ["labels", "images"])
@pytest.mark.parametrize(
    "names", [("train", "val2014"), ("train_images", "val_images"), ("images-train", "Test")]
)
def test_folders_of_splits_further_down_are_not_mixed(
    tmp_path: Path, kind: str, names: tuple[str, str]
) -> None:
    fill(tmp_path / "coco/images", *(f"{name}/cat/{name}.jpg" for name in names))

    def opened(root: Path) -> list[str]:
        if kind == "labels":
            return [record.image_id for record in read(root, "train")]
        return [
            record.image_id
            for record in open_corpus(CorpusConfig(str(root)), "train", "images", DataConfig())
        ]

    assert opened(tmp_path / "coco/images") == [f"{names[0]}/cat/{names[0]}.jpg"]
    for root in (tmp_path / "coco", tmp_path):
        with pytest.raises(
            DataError, match=f"coco/images has folders of splits .*{names[0]}.*give that folder"
        ):
            opened(root)
