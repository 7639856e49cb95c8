"""A detector without a network: its regions follow from the mean colours of quarters of the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ppdet_features.detector import Detections
from ppdet_features.extract import Extractor

SPECIAL = {"nothing": (0, 0, 0), "nan": (255, 255, 255), "outside": (255, 0, 0)}
"""Colour of a whole picture -> what is wrong with its regions."""


class PlainDetector:
    """Four quarters are four regions; remembers the sizes of its batches."""

    feature_size, num_classes, num_attributes = 3, 2, 2

    def __init__(self) -> None:
        self.batches: list[int] = []

    def detect(self, images):
        self.batches.append(len(images))
        return [self._one(image) for image in images.numpy()]

    def _one(self, image):
        _, height, width = image.shape
        y, x = height // 2, width // 2
        boxes = np.float32([[0, 0, x, y], [x, 0, width, y], [0, y, x, height], [x, y, width, height]])
        quarters = [image[:, int(t) : int(b), int(l) : int(r)] for l, t, r, b in boxes]  # noqa: E741
        features = np.stack([quarter.mean((1, 2)) for quarter in quarters])
        mean = tuple(image.mean((1, 2)).round().astype(int))
        if mean == SPECIAL["nan"]:
            features[1] = np.nan
        if mean == SPECIAL["outside"]:
            boxes[0] = [0, 0, 3 * width, height]
        count = 0 if mean == SPECIAL["nothing"] else 4
        probs = features[:, :2] / 255
        found = Detections(
            boxes, features, probs, probs.max(1), probs.argmax(1).astype(np.int64), probs[:, ::-1].copy()
        )
        return [Detections(*(table[:count] for table in vars(found).values()))][0]


def prepare(picture: Image.Image) -> np.ndarray:
    """The picture at twice its size, [3, H, W]."""
    size = (2 * picture.width, 2 * picture.height)
    return np.asarray(picture.resize(size), np.float32).transpose(2, 0, 1)


def plain_extractor() -> Extractor:
    """All that a job needs."""
    names = {"classes": ["warm", "cold"], "attributes": ["dim", "bright"]}
    return Extractor(PlainDetector(), prepare, names, {"detector": "plain", "weights": "none"})


def draw_pictures(folder: Path, count: int, seed: int = 0) -> Path:
    """Noise in three sizes, `00.png`, `01.png`, ..."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        height, width = ((12, 16), (16, 12), (14, 14))[rng.integers(3)]
        pixels = rng.integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder
