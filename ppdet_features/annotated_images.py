"""Annotated images to train and evaluate on: a COCO file with a folder, or the built-in `scenes`."""

from __future__ import annotations

import itertools
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ppdet_features.config import DetectorConfig
from unimo.data.images.open import open_image
from unimo.data.scenes.dataset import ScenesDataset
from unimo.data.scenes.scene import render
from unimo.errors import ConfigError, DataError, shown
from unimo.files import read_json
from unimo.settings import ScenesConfig

logger = logging.getLogger(__name__)
_TOLERANCE = 1.0
"""Pixels by which a box may exceed its image, because annotators and converters round."""
_LARGEST = 1_000_000
"""Width and height of an image, and any number of a box."""
_ID = int | str
_KEYS = {
    "images": {"id": _ID, "file_name": str, "width": int | float, "height": int | float},
    "categories": {"id": _ID, "name": _ID},
    "annotations": {"id": _ID, "image_id": _ID, "category_id": _ID, "bbox": list},
    "attributes": {"id": _ID, "name": _ID},
}
"""Keys of the entries in the lists of the file; only the list of attributes may be missing."""


@dataclass(frozen=True)
class Annotations:
    """Annotations of one image. Legend: G objects, A attributes."""

    image_id: int
    width: int
    height: int
    boxes: np.ndarray
    """[G, 4] float32: x1, y1, x2, y2 in pixels of the image."""
    labels: np.ndarray
    """[G] int64."""
    attributes: np.ndarray
    """[G, A] float32, 1 for each attribute of an object."""
    crowd: np.ndarray
    """[G] bool: a crowd, which neither training nor evaluation counts as an object."""


class ScenesImages:
    """The first `number` images of a split of `scenes`.

    Their shapes, colours and sizes are matched with the names of classes and attributes in the config.
    """

    def __init__(self, split: str, number: int, config: DetectorConfig, seed: int = 0) -> None:
        self._scenes = ScenesDataset("pairs", split, ScenesConfig(number, number, seed=seed))
        self._classes, self._attributes = config.classes, config.attributes
        self._number = number

    def __len__(self) -> int:
        return self._number

    def annotations(self, index: int) -> Annotations:
        """Return the annotations of an image; boxes end behind the last pixel of an object.

        Raises:
            ConfigError: the config has no class for a shape.
        """
        scene = self._scenes.scene(index)
        for item in scene.objects:
            if item.shape not in self._classes:
                raise ConfigError(
                    f"scenes shows a {item.shape}, which is not among class_names "
                    f"({', '.join(self._classes[:8])}); use ppdet_features/configs/scenes_tiny.yaml"
                )
        labels = [self._classes.index(item.shape) for item in scene.objects]
        attributes = [
            [name in (item.color, item.size) for name in self._attributes] for item in scene.objects
        ]
        width, height = render(scene).size
        boxes = np.array([item.box for item in scene.objects], np.float32) + [0, 0, 1, 1]
        return Annotations(
            index,
            width,
            height,
            boxes.astype(np.float32),
            np.array(labels, np.int64),
            np.array(attributes, np.float32).reshape(len(labels), len(self._attributes)),
            np.zeros(len(labels), bool),
        )

    def image(self, index: int) -> Image.Image:
        """Return image `index`, RGB."""
        return render(self._scenes.scene(index))

    def file(self, index: int) -> None:
        """Return the file of image `index`: none, because it follows from its annotations."""


class CocoImages:
    """Images in a folder, with the annotations of a COCO file.

    Categories are matched with classes by name if the config has names, else by the order of their ids.
    Objects may have `attribute_ids`, which count from 0 unless the file has a list `attributes` of ids and
    names.

    Raises:
        DataError: the file cannot be read, is incomplete, or has an object of an unknown category or image
            or outside of its image; the message names the annotation.
    """

    def __init__(self, annotations: str | Path, images: str | Path, config: DetectorConfig) -> None:
        self._path, self._folder = Path(annotations), Path(images)
        content = self._read()
        self._classes = self._numbers(
            "categories", content["categories"], config.class_names, config.num_classes
        )
        self._num_attributes = number = config.num_attributes
        self._attributes: dict[Any, int] = {}
        if number and content["attributes"]:
            names = config.attribute_names
            self._attributes = self._numbers("attributes", content["attributes"], names, number)
        elif number:
            self._attributes = {i: i for i in range(number)}
        self._images: list[Mapping[str, Any]] = _by_id(content["images"])
        sizes = {image["id"]: (image["width"], image["height"]) for image in self._images}
        self._objects: defaultdict[Any, list[Mapping[str, Any]]] = defaultdict(list)
        for entry in content["annotations"]:
            if self._check(entry, sizes):
                self._objects[entry["image_id"]].append(entry)
        empty = len(content["annotations"]) - sum(map(len, self._objects.values()))
        if empty:
            logger.warning("%s: %d boxes without area are left out", self._path, empty)

    def __len__(self) -> int:
        return len(self._images)

    def annotations(self, index: int) -> Annotations:
        """Return the annotations of an image; boxes are clipped to it."""
        image = self._images[index]
        entries = self._objects[image["id"]]
        width, height = image["width"], image["height"]
        corners = np.array([entry["bbox"] for entry in entries], np.float32).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        attributes = np.zeros((len(entries), self._num_attributes), np.float32)
        for row, entry in enumerate(entries):
            attributes[row, [self._attributes[known] for known in self._attribute_ids(entry)]] = 1.0
        return Annotations(
            image["id"],
            width,
            height,
            np.clip(corners, 0, np.array([width, height] * 2, np.float32)),
            np.array([self._classes[entry["category_id"]] for entry in entries], np.int64),
            attributes,
            np.array([bool(entry.get("iscrowd", 0)) for entry in entries], bool),
        )

    def image(self, index: int) -> Image.Image:
        """Return image `index`, RGB, as it was when it was annotated.

        Raises:
            DataError: the file cannot be read, or its size differs from that in the annotations.
        """
        entry, path = self._images[index], self.file(index)
        image = open_image(path)
        if image.size != (entry["width"], entry["height"]):
            raise DataError(
                f"{path} is {image.width} x {image.height} pixels, but {self._path} says "
                f"{entry['width']} x {entry['height']}; its boxes would be wrong"
            )
        return image

    def file(self, index: int) -> Path:
        """Return the file of image `index`."""
        return self._folder / self._images[index]["file_name"]

    def _read(self) -> dict[str, Any]:
        content = read_json(self._path, DataError, "annotations")
        if not isinstance(content, dict):
            raise DataError(f"{self._path} is no mapping; expected COCO's {', '.join(_KEYS)}")
        content["attributes"] = content.get("attributes") or []
        for part, keys in _KEYS.items():
            entries = content.get(part)
            if not isinstance(entries, list):
                raise DataError(f"{self._path} has no list {part!r}; expected COCO's {', '.join(_KEYS)}")
            for (i, entry), (key, kind) in itertools.product(enumerate(entries), keys.items()):
                where = f"{self._path}: {part}[{i}]"
                if not isinstance(entry, dict) or key not in entry:
                    raise DataError(f"{where} has no {key!r}")
                if not isinstance(entry[key], kind):
                    wanted = getattr(kind, "__name__", kind)
                    raise DataError(f"{where}: {key} {shown(entry[key])}; expected {wanted}")
                if key in ("width", "height") and not 1 <= entry[key] <= _LARGEST:  # NaN is not, either
                    raise DataError(f"{where}: {key} {shown(entry[key])}; expected 1 to {_LARGEST:,} pixels")
            ids = Counter(entry["id"] for entry in entries)
            if part != "annotations" and len(ids) < len(entries):
                raise DataError(f"{self._path}: {part} has id {shown(ids.most_common(1)[0][0])} twice")
        if not content["images"]:
            raise DataError(f"{self._path} has no images")
        return content

    def _attribute_ids(self, entry: Mapping[str, Any]) -> list[Any]:
        return (entry.get("attribute_ids") or []) if self._attributes else []

    def _check(self, entry: Mapping[str, Any], sizes: Mapping[Any, tuple[int, int]]) -> bool:
        """Return whether a box has an area; raise DataError if the annotation cannot be right."""
        where = f"{self._path}: annotation {entry['id']}"
        if entry["category_id"] not in self._classes:
            raise DataError(
                f"{where} is of category {entry['category_id']}, which `categories` does not list"
            )
        if entry["image_id"] not in sizes:
            raise DataError(f"{where} is of image {entry['image_id']}, which `images` does not list")
        if not isinstance(self._attribute_ids(entry), list):
            raise DataError(f"{where}: attribute_ids {shown(entry['attribute_ids'])}; expected list")
        for attribute in self._attribute_ids(entry):
            if not isinstance(attribute, _ID) or attribute not in self._attributes:
                raise DataError(f"{where} has attribute {attribute}, which is not one of the detector's")
        box = entry["bbox"]
        is_number = [type(side) in (int, float) and abs(side) <= _LARGEST for side in box]
        if len(box) != 4 or not all(is_number):
            raise DataError(f"{where}: bbox {shown(box)}; expected four numbers x, y, width, height")
        x, y, w, h = box
        width, height = sizes[entry["image_id"]]
        inside = min(x, y) >= -_TOLERANCE and x + w <= width + _TOLERANCE and y + h <= height + _TOLERANCE
        if not inside or min(w, h) < 0:
            raise DataError(
                f"{where}: bbox {box} (x, y, width, height) lies outside of image {entry['image_id']}, which "
                f"is {width} x {height} pixels"
            )
        right, bottom = min(x + w, width), min(y + h, height)
        return right - max(x, 0) > 0 and bottom - max(y, 0) > 0

    def _numbers(
        self, part: str, entries: list[Mapping[str, Any]], names: list[str] | None, number: int
    ) -> dict[Any, int]:
        """Map COCO ids of classes or attributes to numbers in the detector."""
        ordered = _by_id(entries)
        if names is None:
            if len(ordered) != number:
                raise DataError(f"{self._path} lists {len(ordered)} {part}, but the detector has {number}")
            return {entry["id"]: i for i, entry in enumerate(ordered)}
        for entry in ordered:
            if entry["name"] not in names:
                raise DataError(
                    f"{self._path}: the detector has no {shown(entry['name'])} among its {part}: "
                    f"{', '.join(names[:10])}"
                )
        return {entry["id"]: names.index(entry["name"]) for entry in ordered}


def _by_id(entries: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(entries, key=lambda entry: (isinstance(entry["id"], str), entry["id"]))


AnnotatedImages = ScenesImages | CocoImages
