"""Karpathy JSON to caption tables: layout, splits, missing and broken images, the real Flickr8k part."""

import json

import pyarrow as pa
import pytest
from picture_files import jpeg, write_json, write_pictures

from unimo.data.prepare.karpathy import prepare_karpathy
from unimo.data.readers.open import open_corpus
from unimo.errors import DataError
from unimo.settings import CorpusConfig, DataConfig


def annotations(path, count=4, **extra):
    splits = ["train", "restval", "val", "test"]
    images = [
        {
            "filename": f"{i}.jpg",
            "split": splits[i % 4],
            "sentences": [{"raw": f" caption {i} {j}\n", "tokens": []} for j in range(2)] + [{"raw": ""}],
            **extra,
        }
        for i in range(count)
    ]
    return write_json(path / "dataset_flickr30k.json", {"dataset": "flickr30k", "images": images})


def test_layout_of_the_vilt_family(tmp_path):
    write_pictures(tmp_path / "images", [f"{i}.jpg" for i in range(8)])
    summary = prepare_karpathy(annotations(tmp_path, 8), tmp_path / "images", tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    splits = ("train", "restval", "val", "test")
    assert names == {f"f30k_caption_karpathy_{split}.arrow" for split in splits} | {"summary.json"}
    table = pa.ipc.open_file(str(tmp_path / "out" / "f30k_caption_karpathy_restval.arrow")).read_all()
    assert table.schema.names == ["image", "caption", "image_id", "split"]
    assert table.to_pylist()[1] == {
        "image": jpeg(5),
        "caption": ["caption 5 0", "caption 5 1"],
        "image_id": "5.jpg",
        "split": "restval",
    }
    assert summary["splits"]["train"] == {
        "images": 2,
        "captions": 4,
        "files": ["f30k_caption_karpathy_train.arrow"],
    }
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary


def test_coco_has_two_folders(tmp_path):
    write_pictures(tmp_path / "coco" / "val2014", [f"{i}.jpg" for i in range(4)])
    source = annotations(tmp_path, filepath="val2014")
    summary = prepare_karpathy(source, tmp_path / "coco", tmp_path / "out", name="coco", rows_per_file=1)
    assert summary["splits"]["val"]["files"] == ["coco_caption_karpathy_val_0.arrow"]


def test_missing_and_broken_images_are_counted(tmp_path):
    write_pictures(tmp_path / "images", [f"{i}.jpg" for i in range(39)])
    (tmp_path / "images" / "7.jpg").write_bytes(jpeg(7)[:-200])
    (tmp_path / "images" / "9.jpg").write_bytes(b"")
    source = annotations(tmp_path, 40)
    summary = prepare_karpathy(source, tmp_path / "images", tmp_path / "out", max_missing_rate=0.08)
    assert (summary["images_missing"], summary["images_broken"]) == (1, 2)
    assert [text.split(":")[0] for text in summary["examples"]] == ["39.jpg", "7.jpg", "9.jpg"]
    assert sum(split["images"] for split in summary["splits"].values()) == 37


def test_too_many_missing_images(tmp_path):
    write_pictures(tmp_path / "images", ["0.jpg", "1.jpg", "2.jpg"])
    with pytest.raises(DataError, match=r"1 of 4 images are missing from .*25.0%, allowed 1.0%.*3\.jpg"):
        prepare_karpathy(annotations(tmp_path), tmp_path / "images", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="annotations without images: none of the 4"):
        prepare_karpathy(annotations(tmp_path), tmp_path / "empty", tmp_path / "out")
    with pytest.raises(DataError, match="no folder"):
        prepare_karpathy(annotations(tmp_path), tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_many_broken_images_leave_no_file(tmp_path):
    write_pictures(tmp_path / "images", [f"{i}.jpg" for i in range(4)])
    (tmp_path / "images" / "0.jpg").write_bytes(b"not an image")
    with pytest.raises(DataError, match="missing or broken"):
        prepare_karpathy(annotations(tmp_path), tmp_path / "images", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "not a Karpathy JSON"),
        ({"images": []}, "lists no images"),
        ({"images": [{"filename": "1.jpg"}]}, r"images\[0\] needs filename, split and sentences"),
        ({"images": [{"filename": "1", "split": "held-out", "sentences": []}]}, "split 'held-out'"),
    ],
)
def test_bad_annotations(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        prepare_karpathy(write_json(tmp_path / "a.json", content), tmp_path, tmp_path / "out")


def test_annotations_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        prepare_karpathy(tmp_path / "none.json", tmp_path, tmp_path / "out")
    (tmp_path / "cut.json").write_text('{"images": [')
    with pytest.raises(DataError, match="not valid JSON"):
        prepare_karpathy(tmp_path / "cut.json", tmp_path, tmp_path / "out")


def test_real_flickr8k_part(shared, tmp_path):
    source = shared / "data" / "flickr8k_800"
    if not source.is_dir():
        pytest.skip(f"no {source}")
    prepare_karpathy(source / "dataset_flickr8k.json", source / "images", tmp_path)
    entries = json.loads((source / "dataset_flickr8k.json").read_text())["images"]
    for split, images in (("train", 640), ("val", 80), ("test", 80)):
        data = open_corpus(CorpusConfig(str(tmp_path)), split, "pairs", DataConfig())
        expected = [
            (entry["filename"], sentence["raw"].strip())
            for entry in entries
            if entry["split"] == split
            for sentence in entry["sentences"]
        ]
        assert [(record.image_id, record.text) for record in data] == expected
        assert len(data) == 5 * images
        for index in range(0, len(data), 5):
            name = expected[index][0]
            assert data[index].image == (source / "images" / name).read_bytes()
