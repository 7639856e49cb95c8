"""Annotated pictures: scenes, COCO files and their mistakes, and the metric."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from micro_detector import SCENES, micro_config, micro_detector
from PIL import Image

from ppdet_features.annotated_images import CocoImages, ScenesImages
from ppdet_features.coco import evaluate, mean_average_precision
from ppdet_features.config import load_config
from unimo.errors import ConfigError, DataError, RecordError

CONTENT: dict[str, Any] = {
    "images": [{"id": 7, "file_name": "b.png", "width": 64, "height": 48},
               {"id": 3, "file_name": "a.png", "width": 32, "height": 32}],
    "categories": [{"id": 30, "name": "cross"}, {"id": 10, "name": "square"}],
    "attributes": [{"id": 5, "name": "blue"}, {"id": 6, "name": "large"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 10, "bbox": [4, 5, 20, 10], "attribute_ids": [6, 5]},
        {"id": 2, "image_id": 7, "category_id": 30, "bbox": [40, 30, 24.5, 18], "iscrowd": 1},
        {"id": 3, "image_id": 7, "category_id": 30, "bbox": [9, 9, 0, 5]},
    ],
}  # fmt: skip


def coco(folder: Path, content: dict[str, Any]) -> CocoImages:
    (folder / "coco.json").write_text(json.dumps(content), encoding="utf8")
    return CocoImages(folder / "coco.json", folder, micro_config())


def test_scenes_boxes_hold_exactly_the_drawn_pixels():
    config = micro_config()
    pictures = ScenesImages("val", 20, config)
    for index in range(20):
        known, pixels = pictures.annotations(index), np.asarray(pictures.image(index)).astype(int)
        drawn = (pixels != pixels[0, 0]).any(axis=2)
        inside = np.zeros_like(drawn)
        for x1, y1, x2, y2 in known.boxes.astype(int):
            part = drawn[y1:y2, x1:x2]
            assert part.any(axis=1).all() and part.any(axis=0).all()
            inside[y1:y2, x1:x2] = True
        assert not (drawn & ~inside).any()
        assert (known.attributes.sum(axis=1) == 2).all()  # a colour and a size
    assert len(pictures) == 20


def test_scenes_needs_its_shapes():
    config = load_config(SCENES, {"class_names": ["circle", "square", "triangle", "star"]})
    pictures = ScenesImages("train", 50, config)
    with pytest.raises(ConfigError, match="shows a cross"):
        [pictures.annotations(index) for index in range(50)]


def test_coco_file(tmp_path: Path):
    Image.new("RGB", (64, 48)).save(tmp_path / "b.png")
    pictures = coco(tmp_path, CONTENT)
    first, second = pictures.annotations(0), pictures.annotations(1)
    assert (first.image_id, len(first.boxes), first.attributes.shape) == (3, 0, (0, 8))
    np.testing.assert_array_equal(second.boxes, [[4, 5, 24, 15], [40, 30, 64, 48]])
    assert second.labels.tolist() == [1, 3] and second.crowd.tolist() == [False, True]
    blue_and_large = micro_config().attributes.index("blue"), micro_config().attributes.index("large")
    assert tuple(np.flatnonzero(second.attributes[0])) == blue_and_large and not second.attributes[1].any()
    assert pictures.image(1).size == (64, 48)
    with pytest.raises(DataError, match="a.png"):
        pictures.image(0)
    Image.new("RGB", (30, 30)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="30 x 30 pixels, but .* 32 x 32"):
        pictures.image(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("annotations"), "has no list 'annotations'"),
        (lambda c: c["annotations"][1].pop("bbox"), r"annotations\[1\] has no 'bbox'"),
        (lambda c: c["images"][0].pop("width"), r"images\[0\] has no 'width'"),
        (lambda c: c["annotations"][0].update(category_id=99), "annotation 1 is of category 99"),
        (lambda c: c["annotations"][0].update(image_id=99), "annotation 1 is of image 99"),
        (lambda c: c["annotations"][0].update(attribute_ids=[9]), "annotation 1 has attribute 9"),
        (lambda c: c["annotations"][0].update(bbox=[50, 5, 20, 10]), "annotation 1: .* outside of image 7"),
        (lambda c: c["annotations"][0].update(bbox=[5, 5, -2, 10]), "annotation 1: .* outside"),
        (lambda c: c["annotations"][0].update(bbox=[5, 5, float("nan"), 10]), "expected four numbers"),
        (lambda c: c["annotations"][0].update(bbox=[5, 5, 10**400, 10]), "expected four numbers"),
        (lambda c: c["annotations"][0].update(bbox=[5, 5, float("inf"), 10]), "expected four numbers"),
        (lambda c: c["images"][0].update(width=10**400), "expected 1 to 1,000,000 pixels"),
        (lambda c: c["images"][0].update(height=float("nan")), "expected 1 to 1,000,000 pixels"),
        (lambda c: c["annotations"][0].update(attribute_ids=5), "1: attribute_ids 5; expected list"),
        (lambda c: c["annotations"][0].update(attribute_ids=[[5]]), r"has attribute \[5\], which"),
        (lambda c: c["annotations"][0].update(category_id=[10]),
         r"annotations\[0\]: category_id \[10\]; expected int \| str"),
        (lambda c: c["annotations"][0].update(bbox=5), r"annotations\[0\]: bbox 5; expected list"),
        (lambda c: c["images"][0].update(width="64"), r"images\[0\]: width '64'; expected int \| float"),
        (lambda c: c["images"][0].update(id=3), "images has id 3 twice"),
        (lambda c: c["categories"][0].update(id=None), r"categories\[0\]: id None"),
        (lambda c: c["categories"][0].update(id=10), "categories has id 10 twice"),
        (lambda c: c["attributes"][0].pop("name"), r"attributes\[0\] has no 'name'"),
        (lambda c: c["categories"][0].update(name="dog"), "the detector has no 'dog'"),
        (lambda c: c.update(images=[]), "has no images"),
    ],
)  # fmt: skip
def test_mistakes_in_a_coco_file_are_named(change: Any, message: str, tmp_path: Path):
    content = copy.deepcopy(CONTENT)
    change(content)
    with pytest.raises(DataError, match=message):
        coco(tmp_path, content)


def test_attributes_may_be_null_and_ids_of_two_kinds(tmp_path: Path):
    content = copy.deepcopy(CONTENT)
    content["annotations"][0]["attribute_ids"] = content["attributes"] = None
    content["images"].append({"id": "x", "file_name": "c.png", "width": 9, "height": 9})
    pictures = coco(tmp_path, content)
    assert [pictures.annotations(number).image_id for number in range(3)] == [3, 7, "x"]
    assert not pictures.annotations(1).attributes.any()


def test_a_file_that_is_no_json_or_not_there(tmp_path: Path):
    (tmp_path / "coco.json").write_text("{", encoding="utf8")
    with pytest.raises(DataError, match="not valid JSON"):
        CocoImages(tmp_path / "coco.json", tmp_path, micro_config())
    with pytest.raises(DataError, match="cannot read annotations"):
        CocoImages(tmp_path / "none.json", tmp_path, micro_config())


def found_as_known(pictures: ScenesImages, shift: float = 0.0) -> list[dict[str, object]]:
    found = []
    for index in range(len(pictures)):
        known = pictures.annotations(index)
        for (x1, y1, x2, y2), label in zip(known.boxes.tolist(), known.labels.tolist(), strict=True):
            box = [x1 + shift * (x2 - x1), y1, x2 - x1, y2 - y1]
            found.append({"image_id": index, "category_id": label, "bbox": box, "score": 0.9})
    return found


def test_metric_by_hand():
    pictures, classes = ScenesImages("val", 30, micro_config()), micro_config().classes
    perfect = mean_average_precision(pictures, found_as_known(pictures), classes)
    assert perfect["map"] == perfect["map50"] == pytest.approx(1.0)
    assert set(perfect) == {"map", "map50", *(f"map50 {name}" for name in classes)}
    # Shifted by a quarter: overlap 0.75 / 1.25 = 0.6, right at 0.50, 0.55 and 0.60 of ten thresholds at most.
    shifted = mean_average_precision(pictures, found_as_known(pictures, 0.25), classes)
    assert shifted["map50"] == pytest.approx(1.0) and 0.2 <= shifted["map"] <= 0.3
    assert mean_average_precision(pictures, [], classes)["map50"] == 0.0


def test_evaluation_goes_through_all_pictures():
    detector, pictures = (
        micro_detector(TestReader={"batch_size": 2}),
        ScenesImages("val", 5, micro_config()),
    )
    seen = []
    metrics = evaluate(detector, pictures, lambda numbers: map(lambda n: seen.append(n) or n, numbers))
    assert seen == [0, 1, 2, 3, 4] and 0 <= metrics["map50"] < 0.5


def test_broken_pictures_are_left_out_of_the_metric(monkeypatch: pytest.MonkeyPatch):
    detector = micro_detector(TestReader={"batch_size": 2})
    whole, read = ScenesImages("val", 5, micro_config()), ScenesImages.image
    rest = evaluate(detector, ScenesImages("val", 4, micro_config()))

    def image(self: ScenesImages, index: int) -> Image.Image:
        if index in broken:
            raise RecordError(f"picture {index} is broken")
        return read(self, index)

    monkeypatch.setattr(ScenesImages, "image", image)
    broken = {4}
    assert evaluate(detector, whole) == rest
    broken = set(range(5))
    with pytest.raises(DataError, match="all pictures to evaluate on are broken"):
        evaluate(detector, whole)
    broken, many = {1, 2, 3, 4}, ScenesImages("val", 101, micro_config())
    with pytest.raises(DataError, match="4 of 101 records of images were broken"):
        evaluate(detector, many)
