"""A detector of few channels and pictures to train it on, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import paddle

from ppdet_features.annotated_images import AnnotatedImages
from ppdet_features.config import DetectorConfig, load_config
from ppdet_features.detector import FasterRCNN
from unimo.config import merge_plain

SCENES = Path(__file__).resolve().parents[2] / "ppdet_features" / "configs" / "scenes_tiny.yaml"
MICRO = {
    "ResNet": {"width": 4, "ch_in": 4},
    "RPNHead": {"test_proposal": {"post_nms_top_n": 12}},
}


def micro_config(**changes: Any) -> DetectorConfig:
    """The `scenes` detector with width 4; `changes` are sections or keys of its YAML."""
    return load_config(SCENES, merge_plain(MICRO, changes))


def micro_detector(**changes: Any) -> FasterRCNN:
    """It with seeded weights, and norms that are no identity."""
    paddle.seed(5)
    detector = FasterRCNN(micro_config(**changes))
    for name, value in detector.state_dict().items():
        if ".norm." in name:
            value.set_value(paddle.uniform(value.shape, min=0.5, max=1.5))
    detector.eval()
    return detector


def write_coco(folder: Path, pictures: AnnotatedImages, count: int) -> None:
    """Write the first pictures as files with a COCO annotation file, `boxes.json`."""
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": n} for i, n in enumerate(micro_config().classes)],
    }
    for index in range(count):
        known = pictures.annotations(index)
        pictures.image(index).save(folder / f"{index}.png")
        content["images"].append({"id": index, "file_name": f"{index}.png", "width": 64, "height": 64})
        for (x1, y1, x2, y2), label in zip(known.boxes.tolist(), known.labels.tolist(), strict=True):
            entry = {"id": len(content["annotations"]), "image_id": index, "category_id": label}
            content["annotations"].append({**entry, "bbox": [x1, y1, x2 - x1, y2 - y1]})
    (folder / "boxes.json").write_text(json.dumps(content), encoding="utf8")
