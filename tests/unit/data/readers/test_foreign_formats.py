"""Formats that people have: what is read of them, and what the message says where they are not."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pytest
from picture_files import jpeg, write_json, write_pictures
from PIL import Image, features
from test_tar import shard

from unimo.data.images.open import open_image
from unimo.data.prepare.jsonl import prepare_jsonl
from unimo.data.prepare.karpathy import prepare_karpathy
from unimo.data.readers.arrow import ArrowDataset
from unimo.data.readers.base import Kind
from unimo.data.readers.open import open_corpus, open_labeled_images
from unimo.data.record import Record
from unimo.errors import DataError, RecordError
from unimo.settings import CorpusConfig, DataConfig


def read(path: Path, split: str = "train", kind: Kind = "pairs") -> list[Record]:
    return list(open_corpus(CorpusConfig(str(path)), split, kind, DataConfig()))


def avif() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 30, 10)).save(buffer, "AVIF")
    return buffer.getvalue()


@pytest.mark.skipif(not features.check("avif"), reason="Pillow was built without AVIF")
def test_avif_from_folders_and_shards(tmp_path: Path) -> None:
    (tmp_path / "a.AVIF").write_bytes(avif())
    (record,) = read(tmp_path, kind="images")
    assert open_image(record.image).getpixel((8, 8))[0] > 150
    (record,) = read(shard(tmp_path / "0.tar", {"1.avif": avif(), "1.txt": b"red"}))
    assert open_image(record.image).size == (16, 16)


def test_what_heic_becomes() -> None:
    with pytest.raises(RecordError, match="AVIF needs Pillow 11.3 or newer, HEIC is to be made JPEG"):
        open_image(b"\0\0\0\x18ftypheic" + b"\0" * 40)


ALBEF = [
    {"image": "a/1.jpg", "caption": "one", "image_id": "coco_1"},
    {"image": "a/2.jpg", "caption": ["two", "zwei"], "image_id": 2},
]


def test_json_lists_of_albef(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["a/1.jpg", "a/2.jpg", "a/3.jpg"])
    path = write_json(tmp_path / "coco_train.json", ALBEF)
    write_json(tmp_path / "coco_val.json", [{"image": "a/3.jpg", "caption": "three"}])
    found = [(record.text, record.image_id, record.sample_id) for record in read(path)]
    assert found == [
        ("one", "coco_1", "coco_train:1#0"),
        ("two", "2", "coco_train:2#0"),
        ("zwei", "2", "coco_train:2#1"),
    ]
    assert [record.text for record in read(tmp_path / "coco_*.json", "val")] == ["three"]
    with pytest.raises(DataError, match="holds no pairs data.*ALBEF. is read if its file is named"):
        read(tmp_path)
    assert prepare_jsonl(path, tmp_path / "out")["splits"]["train"]["samples"] == 3
    asked = {
        "question_id": 5,
        "question": "q?",
        "image": "a/1.jpg",
        "answer": ["yes"] * 9 + ["no"],
        "dataset": "vqa",
    }
    (record,) = read(write_json(tmp_path / "vqa_train.json", [asked]), kind="vqa")
    assert record.answer_scores == {"yes": 1.0, "no": 0.3} and record.question_id == 5


def test_token_files_of_flickr30k(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["1.jpg", "2#3.jpg"])
    lines = [
        "1.jpg#0\tA dog , two\tcats",
        "1.jpg#1\tA pet",
        '2#3.jpg#0\tThe "texts" of {a',
        "no tab",
        "1.jpg#2\t ",
    ]
    path = tmp_path / "results_train.token"
    path.write_bytes("\n".join(lines).encode() + b"\n1.jpg#3\t\xff\n")
    for named in (path, tmp_path / "results*.token"):
        data = open_corpus(CorpusConfig(str(named)), "train", "pairs", DataConfig())
        found = [(data[index].text, data[index].image_id, data[index].sample_id) for index in range(3)]
        assert found == [
            ("A dog , two\tcats", "1.jpg", "results_train:1#0"),
            ("A pet", "1.jpg", "results_train:2#0"),
            ('The "texts" of {a', "2#3.jpg", "results_train:3#0"),
        ]
        for index, message in (
            (3, "line 4: the text is empty"),
            (4, "empty"),
            (5, "line 6: not valid UTF-8"),
        ):
            with pytest.raises(RecordError, match=message):
                data[index]
    prepared = prepare_jsonl(path, tmp_path / "out", max_missing_rate=0.5)
    assert prepared["splits"]["train"]["samples"] == 3 and prepared["broken"] == 3
    path.rename(tmp_path / "results.token")  # no split: divided by hash
    assert (
        len(open_corpus(CorpusConfig(str(tmp_path / "results.token")), "train", "pairs", DataConfig())) == 6
    )


@pytest.mark.parametrize("content", [{"images": []}, [1, 2], "text", [["image"]], None])
def test_other_json_files_are_no_corpora(tmp_path: Path, content: object) -> None:
    with pytest.raises(DataError, match="expected a JSON list of objects.*tools/prepare_data.py"):
        read(write_json(tmp_path / "train.json", content))


@pytest.mark.parametrize("kind", ["binary_view", "large_binary", "dictionary"])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_views_and_dictionaries_of_arrow(tmp_path: Path, kind: str, compression: str | None) -> None:
    images = pa.array([jpeg(1), jpeg(40), jpeg(1), None, b""], pa.binary())
    images = images.dictionary_encode() if kind == "dictionary" else images.cast(getattr(pa, kind)())
    texts = [["one", "uno"], ["two"], ["three"], ["four"], ["five"]]
    words = pa.array([word for many in texts for word in many])
    words = words.dictionary_encode() if kind == "dictionary" else words.cast(pa.string_view())
    captions = pa.ListArray.from_arrays(pa.array([0, 2, 3, 4, 5, 6], pa.int32()), words)
    ids = pa.array(list("abcde")).dictionary_encode()
    table = pa.table({"image": images, "caption": captions, "image_id": ids})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(tmp_path / "train.arrow"), "wb") as sink:
        with pa.ipc.new_file(sink, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=3 if kind != "dictionary" else None)
    data = ArrowDataset(tmp_path / "train.arrow", "pairs")
    records = [data[number] for number in range(4)]
    assert [record.text for record in records] == ["one", "uno", "two", "three"]
    assert [record.image for record in records] == [jpeg(1), jpeg(1), jpeg(40), jpeg(1)]
    assert [record.image_id for record in records] == ["a", "a", "b", "c"]
    for number in (4, 5):
        with pytest.raises(RecordError, match=f"row {number - 1}: the image has 0 bytes"):
            data[number]


def test_images_of_another_type(tmp_path: Path) -> None:
    table = pa.table({"image": [{"bytes": b"1", "path": "1.jpg"}], "caption": [["one"]]})
    with (
        pa.OSFile(str(tmp_path / "train.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    with pytest.raises(DataError, match="expected binary, the bytes of image files; found struct"):
        read(tmp_path)


def test_shards_with_classes(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.tar", {"1.jpg": jpeg(1), "1.cls": b"7"})
    assert len(read(tmp_path, kind="images")) == 1
    with pytest.raises(DataError, match=r"has classes .cls. and no texts.*unpack it.*train/<class>/"):
        read(tmp_path)
    with pytest.raises(DataError, match="holds tar shards .train-0.tar., expected one folder a class"):
        open_labeled_images(CorpusConfig(str(tmp_path)), "train", DataConfig())
    shard(tmp_path / "train-0.tar", {"1.jpg": jpeg(1), "1.cls": b"7", "1.txt": b"a cat"})
    assert [record.text for record in read(tmp_path)] == ["a cat"]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("results.token", "lines of .*token become jsonl.*dataset_flickr30k.json"),
        ("0.tar.gz", "gunzip"),
        ("0.tgz", "gunzip"),
        ("train.parquet", "convert .*parquet"),
        ("train.csv", "a line .* of jsonl for each row"),
    ],
)
def test_other_formats_are_told_the_way_out(tmp_path: Path, name: str, advice: str) -> None:
    (tmp_path / name).write_bytes(b"1.jpg#0\tA dog.\n")
    for path in (tmp_path, *([] if name.endswith(".token") else [tmp_path / name])):
        with pytest.raises(DataError, match=f"holds no pairs data.*found {name}; .*{advice}"):
            read(path)


def test_karpathy_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "results_20130124.token").write_text("1.jpg#0\tA dog.\n")
    with pytest.raises(DataError, match="has no splits; give Karpathy's dataset_flickr30k.json"):
        prepare_karpathy(tmp_path / "results_20130124.token", tmp_path, tmp_path / "out")
    with pytest.raises(DataError, match="not a Karpathy JSON.*try tools/prepare_data.py jsonl"):
        prepare_karpathy(write_json(tmp_path / "coco_train.json", ALBEF), tmp_path, tmp_path / "out")
