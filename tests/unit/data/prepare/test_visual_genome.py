"""Visual Genome: ViLT's table, pictures in two folders, held-out pictures of COCO, and what is broken."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from picture_files import jpeg, write_json, write_pictures

from unimo.data.prepare.visual_genome import prepare_vg
from unimo.data.readers.open import find_splits, open_corpus
from unimo.errors import DataError
from unimo.settings import CorpusConfig, DataConfig

PLACES = {1: "VG_100K_2/1.jpg", 10: "VG_100K/10.jpg", 2317429: "VG_100K/2317429.jpg"}


def region(phrase: Any, **changes: Any) -> dict[str, Any]:
    box = {"region_id": 1382, "width": 82, "height": 139, "x": 421, "y": 57, "image_id": 1}
    return {**box, "phrase": phrase, **changes}


def sources(folder: Path, *more: Any, inner: str = "") -> tuple[Path, Path]:
    """Folders of annotations and of pictures; `more` are further regions of the first picture."""
    items = [
        {"id": 1, "regions": [region(" the clock is green\n"), region("a tree", x=-1), region(" "), *more]},
        {"id": 10, "regions": [region("a man")] * 2},
        {"id": 2317429, "regions": [region(f"phrase {n}") for n in range(6)]},
        {"id": 5, "regions": []},
    ]
    path = folder / "vg" / "region_descriptions.json"
    path.parent.mkdir()
    path.write_bytes(codecs.BOM_UTF8 + json.dumps(items).encode())
    pictures = [
        {"image_id": 1, "coco_id": None, "flickr_id": None},
        {"image_id": 10, "coco_id": None, "flickr_id": "1007129816"},
        {"image_id": 2317429, "coco_id": 9, "flickr_id": 5},
    ]
    write_json(path.parent / "image_data.json", pictures)
    write_pictures(folder / "images" / inner, list(PLACES.values()))
    return path.parent, folder / "images"


@pytest.mark.parametrize("inner", ["", "images"])
def test_a_row_is_a_picture_with_its_phrases(tmp_path: Path, inner: str) -> None:
    summary = prepare_vg(*sources(tmp_path, inner=inner), tmp_path / "out")
    table = pa.ipc.open_file(str(tmp_path / "out/vg.arrow")).read_all()
    assert table.schema.names == ["image", "caption", "width", "height", "x", "y", "image_id"]
    assert table.to_pylist()[:2] == [
        {
            "image": jpeg(0),
            "caption": ["the clock is green", "a tree"],
            "width": [82, 82],
            "height": [139, 139],
            "x": [421, -1],
            "y": [57, 57],
            "image_id": "1",
        },
        {
            "image": jpeg(1),
            "caption": ["a man", "a man"],
            "width": [82] * 2,
            "height": [139] * 2,
            "x": [421] * 2,
            "y": [57] * 2,
            "image_id": "10",
        },
    ]
    assert summary["splits"] == {"train": {"images": 3, "captions": 10, "files": ["vg.arrow"]}}
    assert (summary["captions_empty"], summary["broken"]) == (1, 0)
    data = open_corpus(CorpusConfig(str(tmp_path / "out/vg.arrow")), "train", "pairs", DataConfig())
    assert [record.text for record in data][:3] == ["the clock is green", "a tree", "a man"]


@pytest.mark.parametrize(
    ("entry", "left"),
    [
        ({"filename": "COCO_val2014_000000000009.jpg", "cocoid": 9, "split": "test"}, ["1", "10"]),
        (
            {"filename": "COCO_val2014_000000000009.jpg", "cocoid": 9, "split": "restval"},
            ["1", "10", "2317429"],
        ),
        ({"filename": "1007129816.jpg", "split": "val"}, ["1", "2317429"]),
        ({"filename": "1007129816_e794419615.jpg", "split": "test"}, ["1", "2317429"]),
        ({"filename": "9.jpg", "split": "test"}, ["1", "10", "2317429"]),
    ],
)
def test_held_out_pictures(tmp_path: Path, entry: dict[str, Any], left: list[str]) -> None:
    judged = write_json(tmp_path / "dataset.json", {"images": [{**entry, "sentences": []}]})
    summary = prepare_vg(*sources(tmp_path), tmp_path / "out", [judged])
    table = pa.ipc.open_file(str(tmp_path / "out/vg.arrow")).read_all()
    assert table.column("image_id").to_pylist() == left
    assert summary["images_held_out"] == 3 - len(left)


def test_last_pictures_become_val(tmp_path: Path) -> None:
    folders = sources(tmp_path)
    summary = prepare_vg(*folders, tmp_path / "out", val_images=1)
    assert [part["images"] for part in summary["splits"].values()] == [2, 1]
    assert find_splits(CorpusConfig(str(tmp_path / "out")), "pairs", DataConfig()) == ["train", "val"]
    with pytest.raises(DataError, match="--val-images 3 of 3 pictures leaves none"):
        prepare_vg(*folders, tmp_path / "out", val_images=3)


@pytest.mark.parametrize(
    "wrong",
    [
        region(None),
        region(5),
        region("a\0b"),
        region("a", x=None),
        region("a", y=0.5),
        region("a", x="9" * 5000),
        None,
        "a",
    ],
)
def test_broken_regions_are_counted(tmp_path: Path, wrong: Any, caplog: Any) -> None:
    folders = sources(tmp_path, wrong)
    with pytest.raises(DataError, match=r"1 of 15 samples .* broken.*\[0\], regions\[3\]"):
        prepare_vg(*folders, tmp_path / "out")
    caplog.clear()
    summary = prepare_vg(*folders, tmp_path / "out", max_missing_rate=0.1)
    assert (summary["broken"], summary["splits"]["train"]["captions"]) == (1, 10)
    assert caplog.text.count("skipped ") == 1


def test_missing_and_damaged_pictures(tmp_path: Path) -> None:
    lists, pictures = sources(tmp_path)
    (pictures / PLACES[1]).unlink()
    (pictures / PLACES[10]).write_bytes(jpeg(1)[:-200])
    with pytest.raises(DataError, match="1 of 3 images are missing from .*VG_100K/1.jpg"):
        prepare_vg(lists, pictures, tmp_path / "out")
    summary = prepare_vg(lists, pictures, tmp_path / "out", max_missing_rate=0.7)
    assert (summary["images_missing"], summary["images_broken"]) == (1, 1)
    assert summary["splits"]["train"]["images"] == 1


@pytest.mark.parametrize("content", [{"images": []}, [], [{"id": 1, "regions": None}], [7]])
def test_another_file(tmp_path: Path, content: Any) -> None:
    write_json(tmp_path / "region_descriptions.json", content)
    with pytest.raises(DataError, match="expected a list of pictures|1 of 1 samples"):
        prepare_vg(tmp_path, tmp_path, tmp_path / "out")
