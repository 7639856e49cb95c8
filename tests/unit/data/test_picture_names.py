"""One identity of a picture: COCO's two names of it, every reader, and pictures in two splits of a run."""

from __future__ import annotations

import itertools
import json
import tarfile
from pathlib import Path

import pytest
from picture_files import jpeg, write_pictures

from unimo.data.loading.shared_pictures import warn_of_shared_pictures
from unimo.data.prepare.jsonl import prepare_jsonl
from unimo.data.prepare.karpathy import prepare_karpathy
from unimo.data.prepare.writer import SCHEMAS, ArrowWriter
from unimo.data.readers.base import Dataset
from unimo.data.readers.jsonl import JsonlDataset
from unimo.data.readers.open import open_corpus
from unimo.data.record import Record, picture_name
from unimo.errors import DataError
from unimo.settings import CorpusConfig, DataConfig
from unimo.tasks.caption.data import result_image_id

SAME = (
    "train2017/000000000009.jpg",
    "val2014/COCO_val2014_000000000009.jpg",
    "COCO_train2014_000000000009.jpg",
    "000000000009.jpg",
    "/data/coco/val2017/000000000009.jpg",
    "images\\COCO_val2014_000000000009.JPG",
    "shard-3:COCO_val2014_000000000009",
    "shard-4:val2017/000000000009.jpg",
)
"""One picture of COCO."""
OTHERS = (
    "000000000010.jpg",
    "train2014/1.jpg",
    "val2014/1.jpg",
    "a/000000000009.jpg",
    "b/000000000009.jpg",
    "train/000000000009.jpg",
    "shard-3:000000000009",
    "9",
    "0000000009.jpg",
    "1000000000009.jpg",
    "000000000009.jpg.jpg",
    "xCOCO_val2014_000000000009.jpg",
    "train20172/000000000009.jpg",
)
"""Others, each of its own."""


def test_names_of_one_picture_are_one_group() -> None:
    assert {picture_name(name) for name in SAME} == {"COCO 9"}
    groups = [Record("s", "coco", image_id=name).image_group for name in (*SAME, *OTHERS)]
    assert len(set(groups)) == 1 + len(OTHERS)
    assert Record("s", "other", image_id=SAME[0]).image_group != groups[0]
    assert {result_image_id(name) for name in SAME} == {9}


def opened(path: Path, split: str = "train") -> Dataset:
    return open_corpus(CorpusConfig(str(path)), split, "pairs", DataConfig())


def write(folder: Path, form: str, stem: str, names: list[str]) -> None:
    """Write pairs of a split whose pictures have these names."""
    write_pictures(folder, names)
    if form == "jsonl":
        rows = ({"image": name, "text": name} for name in names)
        (folder / f"{stem}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    elif form == "arrow":
        with ArrowWriter(folder, stem, SCHEMAS["pairs"]) as writer:
            for name in names:
                writer.write({"image": jpeg(1), "caption": [name, name], "image_id": name})
    else:
        (folder / "1.txt").write_text("a dog")
        with tarfile.open(folder / f"{stem}.tar", "w") as archive:
            for name in names:
                archive.add(folder / name, name)
                archive.add(folder / "1.txt", str(Path(name).with_suffix(".txt")))


@pytest.mark.parametrize("form", ["jsonl", "arrow", "tar"])
def test_readers_give_one_group_to_one_picture(tmp_path: Path, form: str) -> None:
    write(tmp_path, form, "train", [*SAME[:3], "train2014/1.jpg", "val2014/1.jpg", "a/1.jpg"])
    groups = [record.image_group for record in opened(tmp_path)]
    same = 3 if form != "tar" else 2  # numbers alone are what tools name the samples of a shard by
    assert len(set(groups)) == (4 if form != "tar" else 5)
    assert len(set(groups[: 6 if form == "arrow" else 3])) == 4 - same


def test_spellings_of_a_path(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["a/1.jpg", "a/2.jpg"])
    spellings = [
        "a/1.jpg",
        "./a//1.jpg",
        "a/../a/1.jpg",
        str(tmp_path / "a/1.jpg"),
        str(tmp_path / "a/./1.jpg"),
    ]
    rows = [{"image": name, "text": "a"} for name in (*spellings, "a/2.jpg")]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = JsonlDataset(tmp_path / "train.jsonl", "pairs")
    assert [data.image_id(index) for index in range(6)] == ["a/1.jpg"] * 5 + ["a/2.jpg"]
    assert {record.image for record in data} <= {tmp_path / name for name in (*spellings, "a/2.jpg")}


def test_all_samples_of_a_picture_are_dealt_to_one_split(tmp_path: Path) -> None:
    numbers = range(60)
    names = [f"{kind}_{number}.jpg" for number in numbers for kind in "ab"]
    write_pictures(tmp_path, names)
    rows = [{"image": name, "image_id": name[2:-4], "text": name} for name in names]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = [{record.image_id for record in opened(tmp_path, split)} for split in ("train", "val", "test")]
    assert sum(map(len, found)) == len(set.union(*found)) == 60


@pytest.mark.parametrize("form", ["jsonl", "arrow", "tar"])
@pytest.mark.parametrize("split", ["val", "test", "validation"])
def test_a_picture_that_is_trained_on_and_held_out(
    tmp_path: Path, form: str, split: str, caplog: pytest.LogCaptureFixture
) -> None:
    two = (
        ["val2014/COCO_val2014_000000000009.jpg", "b.jpg"]
        if form != "tar"
        else ["COCO_val2014_000000000009.jpg"]
    )
    write(tmp_path, form, "train", ["a.jpg", "train2017/000000000009.jpg", "COCO_val2014_000000000009.jpg"])
    write(tmp_path, form, split, two)
    corpus, data = CorpusConfig(str(tmp_path), name="mine"), DataConfig()

    def open_split(corpus: CorpusConfig, word: str) -> Dataset:
        return open_corpus(corpus, word, "pairs", data)

    warn_of_shared_pictures([(corpus, open_split(corpus, "train"))], open_split, "train")
    count, told = len(two), "val" if split.startswith("val") else "test"
    assert f"mine, {told}: 1 of {count} pictures are trained on, too, e.g. COCO 9" in caplog.text
    caplog.clear()
    warn_of_shared_pictures([(corpus, open_split(corpus, "train"))], open_split, f"train+{split}")
    assert "are trained on, too" not in caplog.text


def test_preparations_know_one_picture_by_both_names(tmp_path: Path) -> None:
    write_pictures(tmp_path / "images", [*SAME[:2], "val2014/1.jpg", "train2014/1.jpg"])
    rows = [{"image": name, "text": name} for name in (*SAME[:2], "val2014/1.jpg", "train2014/1.jpg")]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    prepared = prepare_jsonl(tmp_path / "train.jsonl", tmp_path / "out", images=tmp_path / "images")
    assert prepared["splits"]["train"] == {"images": 3, "samples": 4, "files": ["own_caption_train.arrow"]}
    assert len({record.image_group for record in opened(tmp_path / "out")}) == 3


@pytest.mark.parametrize(("first", "second"), itertools.permutations(SAME[:2]))
def test_preparations_notice_it_in_two_splits(
    tmp_path: Path, first: str, second: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_pictures(tmp_path, [first, second])
    (tmp_path / second).write_bytes(jpeg(77))  # another file of the same picture
    for name, split in ((first, "train"), (second, "test")):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps({"image": name, "text": "a"}))
    assert prepare_jsonl(tmp_path, tmp_path / "out")["images_in_two_splits"] == 1
    assert ", too (further ones are counted)" in caplog.text
    entries = [
        {
            "filename": Path(name).name,
            "filepath": str(Path(name).parent),
            "split": split,
            "sentences": [{"raw": "a"}],
        }
        for name, split in ((first, "train"), (second, "test"))
    ]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": entries}))
    with pytest.raises(DataError, match="is in train and in test"):
        prepare_karpathy(tmp_path / "dataset_coco.json", tmp_path, tmp_path / "out")
