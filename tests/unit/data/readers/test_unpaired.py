"""Texts alone and images alone, from every format, and pseudo pairs of labelled images."""

import json

import pytest
from test_arrow import PAIRS, jpeg, write
from test_tar import shard

from unimo.data.readers.jsonl import TextLinesDataset
from unimo.data.readers.open import find_splits, open_corpus
from unimo.errors import DataError, RecordError
from unimo.settings import CorpusConfig, DataConfig


def open_(path, kind, split="train", **options):
    return open_corpus(CorpusConfig(str(path), **options), split, kind, DataConfig())


def test_lines_of_a_text_file(tmp_path):
    path = tmp_path / "books.txt"
    path.write_bytes(b"A dog.\n\n  Zw\xc3\xb6lf Katzen. \nbad \xff line\n")
    data = open_(path, "texts")
    assert len(data) == 3 and data.name == "books"
    first, second = data[0], data[1]
    assert (first.text, first.sample_id, first.image) == ("A dog.", "books:1", None)
    assert (second.text, second.sample_id) == ("Zwölf Katzen.", "books:3")
    with pytest.raises(RecordError, match=r"books.txt, line 4: not valid UTF-8 at byte 4"):
        data[2]
    with pytest.raises(RecordError, match="no images"):
        data.image_source(0)
    with pytest.raises(IndexError):
        data[3]


def test_text_file_that_is_gone(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        TextLinesDataset(tmp_path / "none.txt")


def test_text_files_of_a_folder_are_joined_by_split(tmp_path):
    for name, line in (("a_train.txt", "one"), ("b_train.txt", "two"), ("c_val.txt", "three")):
        (tmp_path / name).write_text(line + "\n")
    assert [record.text for record in open_(tmp_path, "texts")] == ["one", "two"]
    assert [record.text for record in open_(tmp_path, "texts", "val")] == ["three"]
    (tmp_path / "d.txt").write_text("of no split")
    with pytest.raises(DataError, match="no telling to which split d belong"):
        open_(tmp_path, "texts")


def test_texts_of_jsonl_need_no_images(tmp_path):
    lines = [{"text": "one"}, {"texts": ["two", "three"]}, {"image": "gone.jpg", "caption": "four"}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    records = list(open_(tmp_path, "texts"))
    assert [record.text for record in records] == ["one", "two", "three", "four"]
    assert {record.image for record in records} == {None}


def test_images_of_jsonl_need_no_texts(tmp_path):
    (tmp_path / "1.jpg").write_bytes(jpeg(1))
    lines = [{"image": "1.jpg"}, {"image": "1.jpg", "texts": ["not", "read"]}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    records = list(open_(tmp_path, "images"))
    assert [record.text for record in records] == [None, None]
    assert records[0].image == tmp_path / "1.jpg"


def test_arrow_rows_are_images_and_its_captions_are_texts(tmp_path):
    write(tmp_path / "coco_train.arrow", PAIRS)
    images, texts = open_(tmp_path, "images"), open_(tmp_path, "texts")
    assert len(images) == len(PAIRS["image"])
    assert [record.image for record in images] == PAIRS["image"]
    assert [record.text for record in texts] == [text for row in PAIRS["caption"] for text in row]
    assert {record.text for record in images} == {record.image for record in texts} == {None}


def test_tar_with_images_only_and_with_texts_only(tmp_path):
    shard(tmp_path / "00001.tar", {"1.jpg": jpeg(1), "2.png": jpeg(2), "2.txt": b"A pet."})
    images = list(open_(tmp_path, "images"))
    assert [record.image for record in images] == [jpeg(1), jpeg(2)]
    assert {record.text for record in images} == {None}
    texts = open_(tmp_path, "texts")
    assert texts[1].text == "A pet." and texts[1].image is None
    with pytest.raises(RecordError, match="no text"):
        texts[0]


def test_folder_of_pictures_with_subfolders(tmp_path):
    for name in ("b/2.JPG", "a/1.png", "3.jpeg", ".hidden/4.jpg", "a/notes.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(jpeg(1))
    data = open_(tmp_path, "images")
    assert [record.sample_id for record in data] == ["3.jpeg", "a/1.png", "b/2.JPG"]
    assert data[1].image == tmp_path / "a/1.png" and data[1].text is None
    (tmp_path / "3.jpeg").unlink()
    with pytest.raises(RecordError, match="no image"):
        data[0]
    with pytest.raises(DataError, match="no split 'val' of images; found: train"):
        open_(tmp_path, "images", "val")


def test_folder_of_pictures_with_splits(tmp_path):
    for name in ("train/dog/1.jpg", "val/dog/2.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_bytes(jpeg(1))
    assert [record.sample_id for record in open_(tmp_path, "images", "val")] == ["val/dog/2.jpg"]
    assert len(open_(tmp_path, "images", "train+val")) == 2
    assert find_splits(CorpusConfig(str(tmp_path)), "images", DataConfig()) == ["train", "val"]


def test_folder_without_pictures(tmp_path):
    (tmp_path / "notes.md").write_text("nothing")
    with pytest.raises(DataError, match="holds no pictures .*found notes.md"):
        open_(tmp_path, "images")
    with pytest.raises(DataError, match=r"holds no texts data: expected \*.arrow .*\*.txt"):
        open_(tmp_path, "texts")


def test_pseudo_pairs_of_labelled_images(tmp_path):
    for name in ("polar_bear", "cat"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(2):
            (tmp_path / "train" / name / f"{number}.jpg").write_bytes(jpeg(number))
    data = open_(tmp_path, "pairs", prompt="a photo of {}")
    records = sorted(data, key=lambda record: record.sample_id)
    assert [record.text for record in records] == ["a photo of cat"] * 2 + ["a photo of polar bear"] * 2
    assert len({record.image_id for record in records}) == 2  # one for each class: no false negatives in ITM
    assert data.image_source(0) == data[0].image


def test_pseudo_pairs_of_scenes():
    data = open_("scenes", "pairs", prompt="a {} .")
    assert data[0].text == f"a {data[0].label_name} ."
    with pytest.raises(DataError, match=r"expected one \{\} for the label"):
        open_("scenes", "pairs", prompt="a photo")
