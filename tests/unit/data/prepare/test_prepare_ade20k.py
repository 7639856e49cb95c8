"""Preparation of ADE20K: from the layout that the benchmark distributes to tables of segmentation."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unimo.data.prepare.ade20k import prepare_ade20k
from unimo.data.readers.open import open_corpus
from unimo.data.readers.pixel_classes import open_pixel_classes, read_class_map
from unimo.errors import DataError
from unimo.settings import CorpusConfig, DataConfig

NAMES = ("wall", "door, screen", "door;double door")
SIZE = (24, 16)


def picture(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (*SIZE[::-1], 3)).astype(np.uint8))


def class_map(number: int, most: int = 3) -> np.ndarray:
    return np.random.default_rng(number).integers(0, most + 1, SIZE[::-1]).astype(np.uint8)


def layout(root: Path, train: int = 5, val: int = 2, most_in_train: int = 3) -> Path:
    """A folder as `ADEChallengeData2016`."""
    rows = [f"{place}\t0.1\t10\t1\t{name}" for place, name in enumerate(NAMES, start=1)]
    for place, count in (("training", train), ("validation", val)):
        for folder in ("images", "annotations"):
            (root / folder / place).mkdir(parents=True)
        for number in range(count):
            stem, seed = f"ADE_{place[:-3]}_{number:08}", number + 100 * (place == "validation")
            picture(seed).save(root / "images" / place / f"{stem}.jpg")
            drawn = class_map(seed, 3 if place == "validation" else most_in_train)
            Image.fromarray(drawn).save(root / "annotations" / place / f"{stem}.png")
    (root / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows]) + "\n")
    (root / "sceneCategories.txt").write_text("ADE_train_00000000 street\n")
    return root


def test_tables_hold_pictures_and_maps_that_count_from_zero(tmp_path: Path) -> None:
    source, out = layout(tmp_path / "ade"), tmp_path / "out"
    summary = prepare_ade20k(source, out)
    assert {name: split["pictures"] for name, split in summary["splits"].items()} == {"train": 5, "val": 2}
    assert summary["classes_only_in_val"] == [] and summary["broken"] == 0
    assert json.loads((out / "summary.json").read_text()) == summary
    corpus, data = CorpusConfig(str(out)), DataConfig()
    classes = open_pixel_classes([corpus], data)
    assert classes == ["wall", "door, screen", "door;double door"]  # a short name that two have is not enough
    val = open_corpus(corpus, "val", "segmentation", data)
    assert len(val) == val.count_images() == 2 and val.count_texts() == 0
    record = val[1]
    assert record.images[0] == (source / "images/validation/ADE_validat_00000001.jpg").read_bytes()
    raw = class_map(101).astype(int)
    assert (read_class_map(record, SIZE, classes) == np.where(raw == 0, 255, raw - 1)).all()


def test_classes_only_in_val_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    summary = prepare_ade20k(layout(tmp_path / "ade", most_in_train=2), tmp_path / "out")
    assert summary["classes_only_in_val"] == ["door;double door"]
    assert "never in train: door;double door" in caplog.text


def spoil(root: Path, how: str) -> str:
    """Break the first training sample; return what is said of it."""
    image = root / "images/training/ADE_train_00000000.jpg"
    drawn = root / "annotations/training/ADE_train_00000000.png"
    if how == "size":
        Image.fromarray(class_map(0)[:8]).save(drawn)
        return "the map is 24 x 8 pixels, its picture 24 x 16"
    if how == "number":
        Image.fromarray(class_map(0) + 1).save(drawn)
        return "has the number 4, which is no class; expected 0 to 3"
    if how == "16 bits":
        Image.fromarray(class_map(0).astype(np.uint16)).save(drawn)
        return "expected one number of 8 bits"
    if how == "colours":
        picture(0).save(drawn)
        return "its pixels are RGB"
    if how == "no map":
        drawn.unlink()
        return "there is no map"
    if how == "no picture":
        image.unlink()
        return "there is no picture of this map"
    image.write_bytes(image.read_bytes()[:200])
    return "image bytes"


@pytest.mark.parametrize("how", ["size", "number", "16 bits", "colours", "no map", "no picture", "damaged"])
def test_broken_samples_are_left_out_and_counted(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = layout(tmp_path / "ade")
    said = spoil(source, how)
    with caplog.at_level(logging.WARNING):
        summary = prepare_ade20k(source, tmp_path / "out", max_missing_rate=0.5)
    assert summary["splits"]["train"]["pictures"] == 4 and summary["broken"] == 1
    assert said in summary["examples"][0] and caplog.text.count(said) == 1
    with pytest.raises(DataError, match=r"1 of [56] samples .*more than --max-missing-rate 0\.01"):
        prepare_ade20k(source, tmp_path / "strict")
    assert not list((tmp_path / "strict").glob("*.arrow"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no folder", "no folder .* with images, annotations and objectInfo150.txt"),
        ("empty", "no .*objectInfo150.txt; expected ADEChallengeData2016 as it is distributed"),
        ("no pictures", "training holds no pictures"),
        ("no maps", "no folder .*annotations/validation with the maps of val"),
        ("names", "class 2: expected a row with the number 2"),
    ],
)
def test_other_folders_are_refused(tmp_path: Path, change: str, message: str) -> None:
    source = layout(tmp_path / "ade")
    if change == "no folder":
        source = tmp_path / "nowhere"
    elif change == "empty":
        source = tmp_path / "empty"
        source.mkdir()
    elif change == "no pictures":
        for file in (source / "images/training").iterdir():
            file.unlink()
    elif change == "no maps":
        (source / "annotations/validation").rename(source / "elsewhere")
    else:
        names = source / "objectInfo150.txt"
        names.write_text(names.read_text().replace("2\t0.1", "7\t0.1"))
    with pytest.raises(DataError, match=message):
        prepare_ade20k(source, tmp_path / "out")


def test_a_folder_around_it_is_taken_too(tmp_path: Path) -> None:
    layout(tmp_path / "around/ADEChallengeData2016")
    assert prepare_ade20k(tmp_path / "around", tmp_path / "out")["classes"] == 3


def test_map_bytes_are_png(tmp_path: Path) -> None:
    prepare_ade20k(layout(tmp_path / "ade"), tmp_path / "out")
    record = open_corpus(CorpusConfig(str(tmp_path / "out")), "train", "segmentation", DataConfig())[0]
    assert Image.open(io.BytesIO(record.class_map)).format == "PNG"
