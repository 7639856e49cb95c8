"""One identity of a picture in every preparation, and none that is trained on and tested on."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from picture_files import jpeg, write_json, write_pictures

from unimo.data.prepare.jsonl import prepare_jsonl
from unimo.data.prepare.karpathy import prepare_karpathy
from unimo.data.prepare.pictures import Pictures, coco_2017
from unimo.data.prepare.snli_ve import prepare_snli_ve
from unimo.data.prepare.vqa import prepare_vqa
from unimo.data.readers.open import open_corpus
from unimo.errors import DataError
from unimo.settings import CorpusConfig, DataConfig

Placed = list[tuple[str, str]]
"""Split and path of each picture."""


def karpathy(root: Path, pictures: Placed) -> dict:
    images = [
        {
            "filename": Path(path).name,
            "filepath": str(Path(path).parent),
            "split": split,
            "sentences": [{"raw": path}],
        }
        for split, path in pictures
    ]
    write_json(root / "k.json", {"dataset": "own", "images": images})
    return prepare_karpathy(root / "k.json", root / "images", root / "out")


def jsonl(root: Path, pictures: Placed) -> dict:
    for split in dict(pictures):
        rows = [{"image": path, "text": path} for each, path in pictures if each == split]
        write_json(root / "in" / f"{split}.jsonl", {})
        (root / "in" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return prepare_jsonl(root / "in", root / "out", images=root / "images")


def snli_ve(root: Path, pictures: Placed) -> dict:
    row = {"gold_label": "neutral", "sentence1": "p", "sentence2": "h"}
    for split in dict(pictures):
        rows = [row | {"Flickr30K_ID": path} for each, path in pictures if each == split]
        (root / f"snli_ve_{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return prepare_snli_ve(root, root / "images", root / "out")


JOBS: dict[str, Callable[[Path, Placed], dict]] = {"karpathy": karpathy, "jsonl": jsonl, "snli_ve": snli_ve}


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("held_out", ["val", "test"])
def test_a_picture_in_two_splits_is_noticed(
    tmp_path: Path, job: str, held_out: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_pictures(tmp_path / "images", ["1.jpg", "2.jpg", "3.jpg"])
    (tmp_path / "images/2.jpg").write_bytes(jpeg(30))
    placed = [("train", "1.jpg"), ("train", "2.jpg"), (held_out, "3.jpg")]
    assert JOBS[job](tmp_path, placed)["images_in_two_splits"] == 0
    placed.append((held_out, "2.jpg"))
    if job == "karpathy":  # one file deals them out
        with pytest.raises(DataError, match=f"2.jpg is in train and in {held_out}, .* take it out of one"):
            JOBS[job](tmp_path, placed)
    else:
        assert JOBS[job](tmp_path, placed)["images_in_two_splits"] == 1
        assert "too (further ones are counted)" in caplog.text


@pytest.mark.parametrize("job", ["karpathy", "jsonl"])
def test_a_link_or_another_spelling_is_the_same_picture(tmp_path: Path, job: str) -> None:
    write_pictures(tmp_path / "images", ["a/1.jpg"])
    (tmp_path / "images/b").symlink_to(tmp_path / "images/a")
    for other in ("b/1.jpg", "./a/1.jpg", "a//1.jpg"):
        pictures = [("train", "a/1.jpg"), ("test", other)]
        if job == "karpathy" or other == "b/1.jpg":
            with pytest.raises(DataError, match="is in train and in test|has two ids"):
                JOBS[job](tmp_path, pictures)
        else:
            assert JOBS[job](tmp_path, pictures)["images_in_two_splits"] == 1


@pytest.mark.parametrize("job", JOBS)
def test_copies_in_two_splits_are_counted(tmp_path: Path, job: str, caplog: pytest.LogCaptureFixture) -> None:
    write_pictures(tmp_path / "images", ["1.jpg", "2.jpg"])
    (tmp_path / "images/2.jpg").write_bytes(jpeg(30))
    (tmp_path / "images/3.jpg").write_bytes(jpeg(0))
    with caplog.at_level(logging.WARNING):
        made = JOBS[job](tmp_path, [("train", "1.jpg"), ("train", "2.jpg"), ("test", "3.jpg")])
    assert made["images_in_two_splits"] == 1 and "too (further ones are counted)" in caplog.text


@pytest.mark.parametrize("job", ["karpathy", "jsonl"])
def test_two_pictures_of_one_file_name_stay_two(tmp_path: Path, job: str) -> None:
    names = ["train2014/1.jpg", "val2014/1.jpg", "val2014/2.jpg"]
    write_pictures(tmp_path / "images", names)
    JOBS[job](tmp_path, [("test", name) for name in names])
    records = list(open_corpus(CorpusConfig(str(tmp_path / "out")), "test", "pairs", DataConfig()))
    assert [record.text for record in records] == names
    assert [record.image for record in records] == [jpeg(number) for number in range(3)]
    assert len({record.image_group for record in records}) == 3
    assert records[2].image_id == ("2.jpg" if job == "karpathy" else "val2014/2.jpg")


def test_an_id_stands_for_one_picture_and_a_picture_has_one_id(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["a.jpg", "b.jpg"])

    def prepare(*rows: tuple[str, object]) -> None:
        lines = [json.dumps({"image": image, "image_id": number, "text": "t"}) for image, number in rows]
        (tmp_path / "train.jsonl").write_text("\n".join(lines))
        prepare_jsonl(tmp_path, tmp_path / "out")

    prepare(("a.jpg", 7), ("b.jpg", 8), ("a.jpg", "7"))
    with pytest.raises(DataError, match="image_id 7 stands for two pictures, .*a.jpg and .*b.jpg"):
        prepare(("a.jpg", 7), ("b.jpg", "7"))
    with pytest.raises(DataError, match="picture .*a.jpg has two ids, 7 and 8"):
        prepare(("a.jpg", 7), ("a.jpg", 8))


def test_parts_of_a_split_share_its_pictures(tmp_path: Path) -> None:
    pictures = Pictures(refuse_shared=True)
    for split in ("val", "rest_val"):
        pictures.add(split, "1", tmp_path / "1.jpg")
        pictures.compare(split, b"1", "1")
    with pytest.raises(DataError, match="in val and in train"):
        pictures.add("train", "1", None)
    assert pictures.copies == 0


def test_folders_of_coco_2017_have_the_pictures_of_2014(tmp_path: Path) -> None:
    assert coco_2017("COCO_test2015_000000000021.jpg") == ("test2017/000000000021.jpg",)
    assert coco_2017("1.jpg") == ()
    write_pictures(tmp_path / "images", ["train2017/000000000021.jpg", "val2017/000000000022.jpg"])
    names = [f"val2014/COCO_val2014_0000000000{number}.jpg" for number in (21, 22)]
    assert karpathy(tmp_path, [("val", name) for name in names])["splits"]["val"]["images"] == 2
    for split, image in (("train", 21), ("val", 22)):
        asked = {"question_id": image, "image_id": image, "question": "q?"}
        said = {
            "question_id": image,
            "image_id": image,
            "multiple_choice_answer": "y",
            "answers": [{"answer": "y"}],
        }
        write_json(tmp_path / "vqa" / f"v2_{split}2014_questions.json", {"questions": [asked]})
        write_json(tmp_path / "vqa" / f"v2_{split}2014_annotations.json", {"annotations": [said]})
    made = prepare_vqa(tmp_path / "vqa", tmp_path / "images", tmp_path / "made", min_count=1)
    assert [split["images"] for split in made["splits"].values()] == [1, 1]
