"""Lists of splits, what is validated on, and that every reader opens what a list names and nothing else."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from picture_files import write_pictures

from unimo.data.readers.open import open_corpus, open_labeled_images
from unimo.data.readers.open_glue import open_glue
from unimo.data.splits import common, split_words, validation_split
from unimo.errors import ConfigError, DataError
from unimo.settings import CorpusConfig, DataConfig, ScenesConfig

SPLITS = ("train", "restval", "val", "trainable_val", "rest_val", "test")


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("val", "val", True),
        ("val", "dev", True),
        ("val", "rest_val", True),
        ("trainable_val", "validation", True),
        ("trainable_val", "rest_val", False),
        ("train", "train_fix", True),
        ("train", "trainable_val", False),
        ("train", "restval", False),
        ("val", "restval", False),
        ("val_matched", "val", True),
        ("val_matched", "val_mismatched", False),
        ("test", "test-dev", True),
        ("rest_val_fix", "val", True),
    ],
)
def test_which_splits_share_samples(first: str, second: str, shared: bool) -> None:
    assert bool(common(first, [second])) == bool(common(second, [first])) == shared


def test_lists_of_splits() -> None:
    assert split_words("train+restval+trainable_val") == ("train", "restval", "trainable_val")
    for wrong in ("train+train", "val+rest_val", "train+trainable_val+dev"):
        with pytest.raises(ConfigError, match="reads samples twice"):
            split_words(wrong)
    for wrong in ("", "train+", "train++val"):
        with pytest.raises(ConfigError, match="expected names joined by"):
            split_words(wrong)


@pytest.mark.parametrize(
    ("train", "selection", "paper", "found"),
    [
        ("train", "clean", "", "val"),
        ("train+restval", "clean", "test", "val"),
        ("train+trainable_val", "clean", "val", "rest_val"),
        ("train_fix+trainable_val_fix", "clean", "val", "rest_val_fix"),
        ("train+val", "paper", "val", "val"),
        ("train+val", "paper", "test", "test"),
        ("train", "paper", "test", "test"),
    ],
)
def test_validation_is_on_what_is_not_trained_on(train: str, selection: str, paper: str, found: str) -> None:
    assert validation_split(DataConfig(train_split=train, selection=selection), paper) == found


@pytest.mark.parametrize(
    ("train", "selection", "paper", "message"),
    [
        ("train+val", "clean", "val", "val shares samples with val.*data.selection=paper, which .* by val"),
        ("train+dev", "clean", "", "dev shares samples with val.*train on train.trainable_val"),
        ("train+rest_val", "clean", "", "rest_val shares samples with val"),
        ("train+trainable_val+rest_val", "clean", "", "rest_val shares samples with rest_val"),
        ("train+test", "clean", "", "test is to test"),
        ("train+test", "paper", "test", "test is to test"),
        ("train+val+val", "paper", "val", "reads samples twice"),
        ("train", "paper", "", "data.selection=paper is for --task retrieval, vqa, gqa and image_class"),
    ],
)
def test_training_on_held_out_samples_is_refused(
    train: str, selection: str, paper: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        validation_split(DataConfig(train_split=train, selection=selection), paper)


def texts(
    path: Path | str, split: str, kind: str = "vqa", data: DataConfig | None = None
) -> list[str | None]:
    return [record.text for record in open_corpus(CorpusConfig(str(path)), split, kind, data or DataConfig())]


@pytest.fixture(params=[".jsonl", ".tar"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """One question for each split, in files of their own."""
    write_pictures(tmp_path / "pictures", [f"{split}.jpg" for split in SPLITS])
    for split in SPLITS:
        row = {"image": f"pictures/{split}.jpg", "question": split, "answer": "yes"}
        file = tmp_path / f"vqa_{split}{request.param}"
        if request.param == ".jsonl":
            file.write_text(json.dumps(row))
            continue
        (tmp_path / "0.json").write_text(json.dumps(row))
        with tarfile.open(file, "w") as archive:
            archive.add(tmp_path / "pictures" / f"{split}.jpg", "0.jpg")
            archive.add(tmp_path / "0.json", "0.json")
    return tmp_path


def test_a_list_opens_each_of_its_splits_once(folder: Path) -> None:
    assert texts(folder, "train+trainable_val") == ["restval", "train", "trainable_val"]
    assert sorted(texts(folder, "train+restval")) == ["restval", "train"]
    assert texts(folder, "rest_val") == ["rest_val"]


def test_an_unknown_split_is_not_left_out(folder: Path) -> None:
    with pytest.raises(DataError, match=r"no split 'dev2' of vqa; found: rest_val, restval, test, train, "):
        texts(folder, "train+dev2")
    next(folder.glob("vqa_trainable_val.*")).unlink()
    with pytest.raises(DataError, match=r"no split 'trainable_val' of vqa; found: .*data.train_split"):
        texts(folder, "train+trainable_val")


def test_scenes_divide_their_val() -> None:
    data = DataConfig(scenes=ScenesConfig(train_images=4, val_images=10, captions_per_image=2))
    for kind, count in (("vqa", 6), ("pairs", 2), ("images", 1)):
        names = {
            split: [record.sample_id for record in open_corpus(CorpusConfig(), split, kind, data)]
            for split in ("train", "val", "trainable_val", "rest_val", "train+trainable_val")
        }
        assert names["trainable_val"] + names["rest_val"] == names["val"]
        assert len(names["rest_val"]) == 2 * count
        assert names["train+trainable_val"] == names["train"] + names["trainable_val"]
    with pytest.raises(
        ConfigError, match="no split 'minival'; known: train, val, test, trainable_val, rest_"
    ):
        open_corpus(CorpusConfig(), "train+minival", "vqa", data)
    assert len(open_glue(CorpusConfig(), "train+test", data, "sst2")) == 14
    with pytest.raises(ConfigError, match="no split 'rest_val'; known: train, val, test"):
        open_glue(CorpusConfig(), "rest_val", data, "sst2")
    assert len(open_labeled_images(CorpusConfig(), "train+val", data)) == 14


def test_folders_of_images_have_the_parts_of_val_too(tmp_path: Path) -> None:
    for split in ("train", "val", "trainable_val", "rest_val"):
        write_pictures(tmp_path / "plain" / split, [f"{split}.png"])
        write_pictures(tmp_path / "classes" / split / "cat", [f"{split}.png"])
    corpus = CorpusConfig(str(tmp_path / "plain"))
    opened = open_corpus(corpus, "train+trainable_val", "images", DataConfig())
    assert [record.image_id for record in opened] == ["train/train.png", "trainable_val/trainable_val.png"]
    with pytest.raises(
        DataError, match="no split 'test' of images; found: rest_val, train, trainable_val, val"
    ):
        open_corpus(corpus, "train+test", "images", DataConfig())
    labeled = open_labeled_images(
        CorpusConfig(str(tmp_path / "classes")), "train+trainable_val", DataConfig()
    )
    assert len(labeled) == 2
