"""tools/extract_features.py: TSV both ways, pictures of regions, and mistakes."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plain_detector import draw_pictures, plain_extractor

from ppdet_features import extract as extraction
from ppdet_features.extract import ExtractionSettings, extract
from ppdet_features.jobs import draw_regions
from unimo.data.image_list import open_images
from unimo.data.regions.store import RegionStore
from unimo.data.regions.tsv import TsvRegions, write_tsv
from unimo.jobs import Shard
from unimo.progress import Progress


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> RegionStore:
    folder = tmp_path_factory.mktemp("extract")
    images = open_images(str(draw_pictures(folder / "pictures", 6)))
    settings, progress = ExtractionSettings(images_per_shard=4), partial(Progress, "images", quiet=True)
    extract(images, plain_extractor(), folder / "store", settings, Shard(), progress)
    return RegionStore(folder / "store")


def tables(folder: Path) -> dict[str, tuple]:
    return {
        image.image_id: (image.regions.features, image.regions.boxes, image.regions.class_probs)
        for image in RegionStore(folder).images()
    }


def test_tsv_and_back(tool, store, tmp_path):
    code, out, _ = tool("extract_features", "to-tsv", store.folder, tmp_path / "f.tsv", "--quiet")
    assert (code, out.split()[0]) == (0, "6")
    assert TsvRegions(tmp_path / "f.tsv").names() == [image.image_id for image in store.images()]
    (tmp_path / "names.txt").write_text("warm\ncold\n")
    words = [tmp_path / "f.tsv", tmp_path / "back", "--classes", tmp_path / "names.txt", "--quiet"]
    code, out, _ = tool("extract_features", "from-tsv", *words)
    assert code == 0
    assert "6 images, 4.0 regions each, 0 skipped" in out
    assert f"next: bash scripts/run_pretrain.sh unimo_tiny data.regions={tmp_path / 'back'}" in out
    before, after = tables(store.folder), tables(tmp_path / "back")
    assert before.keys() == after.keys()
    for name, values in before.items():
        for one, two in zip(values, after[name], strict=True):
            np.testing.assert_array_equal(one, two)
    assert (tmp_path / "back" / "labels.jsonl").read_bytes() == (store.folder / "labels.jsonl").read_bytes()


def test_a_conversion_goes_on_with_other_names_but_not_with_another_file(tool, store, tmp_path):
    tool("extract_features", "to-tsv", store.folder, tmp_path / "f.tsv", "--quiet")
    words = ["from-tsv", tmp_path / "f.tsv", tmp_path / "back", "--quiet"]
    assert tool("extract_features", *words)[0] == 0
    assert RegionStore(tmp_path / "back").classes == ["class 0", "class 1"]  # as a detector calls them
    (tmp_path / "names.txt").write_text("stop sign,stopsign\ncold\n\n")
    assert tool("extract_features", *words, "--classes", tmp_path / "names.txt")[0] == 0
    back = RegionStore(tmp_path / "back")
    assert back.classes == ["stop sign", "cold"]
    assert {label for _, labels in back.labels() for label in labels} <= {"stop sign", "cold"}
    content = (tmp_path / "f.tsv").read_bytes()
    first = content.index(b"\t", content.index(b"\t4\t") + 3) + 1  # features of the first picture
    (tmp_path / "f.tsv").write_bytes(content[:first] + b"AAAA" + content[first + 4 :])
    code, _, error = tool("extract_features", *words)
    assert code == 2 and "holds the work of another job (tsv" in error


def test_the_column_of_the_background_is_left_out(tool, store, tmp_path):
    tool("extract_features", "to-tsv", store.folder, tmp_path / "f.tsv", "--quiet")
    words = ["from-tsv", tmp_path / "f.tsv", tmp_path / "back", "--background", "first", "--quiet"]
    assert tool("extract_features", *words)[0] == 0
    for name, (_, _, probs) in tables(tmp_path / "back").items():
        np.testing.assert_array_equal(probs, tables(store.folder)[name][2][:, 1:])


def test_a_broken_line_is_listed_with_file_and_line(tool, store, tmp_path):
    tool("extract_features", "to-tsv", store.folder, tmp_path / "f.tsv", "--quiet")
    lines = (tmp_path / "f.tsv").read_text().splitlines()
    lines[2] = lines[2].rpartition("\t")[0]
    (tmp_path / "f.tsv").write_text("\n".join(lines))
    words = ["from-tsv", tmp_path / "f.tsv", tmp_path / "back", "--quiet"]
    code, _, error = tool("extract_features", *words)
    assert code == 2
    assert "1 of 6" in error and "02.png: " in error and "f.tsv, line 3: 6 columns" in error
    assert tool("extract_features", *words, "--max-bad-rate", "0.5")[0] == 0
    ((name, reason),) = RegionStore(tmp_path / "back").skipped
    assert (name, "f.tsv, line 3: 6 columns" in reason) == ("02.png", True)


def test_a_stored_picture_is_drawn(tool, store, tmp_path):
    picture = store.folder.parent / "pictures" / "02.png"
    code, out, _ = tool("extract_features", "draw", store.folder, picture, tmp_path / "x.png")
    assert (code, out.strip()) == (0, str(tmp_path / "x.png"))
    assert max(Image.open(tmp_path / "x.png").size) == 600


def test_regions_without_classes_are_drawn(tool, store, tmp_path):
    images = [dataclasses.replace(image, regions=dataclasses.replace(image.regions, class_probs=None))
              for image in store.images()]  # fmt: skip
    write_tsv(tmp_path / "f.tsv", images)
    assert tool("extract_features", "from-tsv", tmp_path / "f.tsv", tmp_path / "back", "--quiet")[0] == 0
    picture = store.folder.parent / "pictures" / "02.png"
    code, _, error = tool("extract_features", "draw", tmp_path / "back", picture, tmp_path / "x.png")
    assert (code, (tmp_path / "x.png").exists()) == (0, True), error


def test_boxes_are_where_they_belong(store):
    (found,) = [image for image in store.images() if image.image_id == "02.png"]
    blank = Image.new("RGB", (found.regions.width, found.regions.height), "white")
    drawn = np.asarray(draw_regions(blank, found, store.classes, store.attributes, least_score=0.0))
    middle = drawn.shape[0] // 2, drawn.shape[1] // 2
    assert (drawn[middle[0], 20:-20] != 255).any(axis=-1).all()  # the line between upper and lower quarters
    best = int(found.scores.argmax())
    alone = np.asarray(draw_regions(blank, found, store.classes, least_score=1.0)) != 255
    x1, y1, x2, y2 = found.regions.boxes[best] * drawn.shape[0] / found.regions.height
    assert alone[int(y1 + y2) // 2, int(x2) - 1].any()
    assert not alone[int(y2) + 30 :].any()


def test_extraction_and_drawing_from_the_command_line(tool, monkeypatch, tmp_path):
    monkeypatch.setattr(extraction, "load_extractor", lambda config, weights: plain_extractor())
    pictures = draw_pictures(tmp_path / "pictures", 5)
    common = ["--detector", "c", "--weights", "w", "--out", tmp_path / "out"]
    code, out, _ = tool("extract_features", "--images", pictures, *common, "--draw", "2")
    assert code == 0
    assert "5 images, 4.0 regions each" in out
    assert len(list((tmp_path / "out" / "pictures").glob("*.png"))) == 2
    first = json.loads((tmp_path / "out" / "labels.jsonl").read_text().splitlines()[0])
    assert first["image_id"] == "00.png" and set(first["labels"]) <= {"warm", "cold"}
    code, out, _ = tool("extract_features", *common, "--draw", pictures / "03.png")
    assert code == 0
    assert Path(out.strip()).name == "03.regions.png" and Path(out.strip()).exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--detector", "c", "--weights", "w", "--out", "o"], "expected --images"),
        (["--images", "nowhere", "--detector", "c", "--weights", "w", "--out", "o"], "no data at"),
        (["to-tsv", "nowhere", "f.tsv"], "no region features at"),
        (["from-tsv", "nowhere.tsv", "store"], "cannot read nowhere.tsv"),
        (["draw", "nowhere", "x.jpg", "x.png"], "no region features at"),
    ],
)
def test_mistakes_end_with_code_2(tool, monkeypatch, tmp_path, words, complaint):
    monkeypatch.chdir(tmp_path)
    code, _, error = tool("extract_features", *words)
    assert code == 2
    assert complaint in error
