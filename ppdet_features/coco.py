"""Mean average precision of a detector on annotated images, computed by `pycocotools`."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator

import numpy as np
import paddle

from ppdet_features.annotated_images import AnnotatedImages
from ppdet_features.detector import FasterRCNN, preprocess, resized_size
from unimo.data.loading.loader import RATE_CHECK_AFTER, BadRecord, RecordCounter
from unimo.data.loading.sampler import SampleKey
from unimo.errors import ConfigError, DataError, RecordError

_MAX_BAD_RATE = 0.01
"""Share of broken pictures, from 100 on, at which an evaluation fails; the default of `data.max_bad_rate`."""


def evaluate(
    detector: FasterRCNN,
    images: AnnotatedImages,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> dict[str, float]:
    """Evaluate a detector, which is put into evaluation mode, with COCO's metric.

    `progress` wraps the image numbers, e.g. in a progress bar.

    Returns:
        `map` (mean over overlaps 0.50 to 0.95), `map50`, and `map50 <class>` for every class that occurs.

    Raises:
        ConfigError: pycocotools is not installed.
        DataError: too many pictures, or all, are broken. A few are left out.
    """
    check_installed()
    detector.eval()
    found, counter, sound = [], RecordCounter(_MAX_BAD_RATE, "the limit"), set()
    for index, (boxes, scores, labels) in _detect(detector, images, progress, counter):
        sound.add(index)
        known = images.annotations(index)
        size = known.width, known.height
        boxes = boxes / np.tile(np.array(resized_size(*size, detector.config)) / size, 2)
        boxes[:, 2:] -= boxes[:, :2]
        image = known.image_id
        found += [
            {"image_id": image, "category_id": int(label), "bbox": box.tolist(), "score": float(score)}
            for box, score, label in zip(boxes, scores, labels, strict=True)
        ]
    counter.check(RATE_CHECK_AFTER)
    if len(images) and not sound:
        raise DataError("all pictures to evaluate on are broken; the log names the first")
    return mean_average_precision(images, found, detector.config.classes, sound)


def _detect(
    detector: FasterRCNN,
    images: AnnotatedImages,
    progress: Callable[[Iterable[int]], Iterable[int]],
    counter: RecordCounter,
) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Yield image numbers and `FasterRCNN.objects`; consecutive images of one size go through it together."""

    def prepare() -> Iterator[tuple[int, np.ndarray]]:
        for index in progress(range(len(images))):
            bad = []
            try:
                yield index, preprocess(images.image(index), detector.config)
            except RecordError as error:
                bad.append(BadRecord("images", index, str(error)))
            counter.add([SampleKey("images", index, 0)], bad)

    for _, equal in itertools.groupby(prepare(), key=lambda item: item[1].shape):
        while batch := list(itertools.islice(equal, detector.config.reader.batch_size or None)):
            found = detector.objects(paddle.to_tensor(np.stack([image for _, image in batch])))
            yield from zip([index for index, _ in batch], found, strict=True)


def mean_average_precision(
    images: AnnotatedImages,
    found: list[dict[str, object]],
    classes: list[str],
    sound: Collection[int] | None = None,
) -> dict[str, float]:
    """Compute COCO's metric of objects in COCO's result format, with class numbers as categories.

    What is returned and raised: see `evaluate`. `sound` are the numbers of the images that count; None for
    all.
    """
    check_installed()
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if not found:
        return {"map": 0.0, "map50": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        truth = COCO()
        truth.dataset = _dataset(images, classes, range(len(images)) if sound is None else sorted(sound))
        truth.createIndex()
        scores = COCOeval(truth, truth.loadRes(found), "bbox")
        scores.evaluate()
        scores.accumulate()
        scores.summarize()
    # [recall, class] at overlap 0.5, for objects of any size, at most 100 of an image
    precision = scores.eval["precision"][0, :, :, 0, -1]
    each = {
        f"map50 {classes[label]}": float(precision[:, i].mean())
        for i, label in enumerate(scores.params.catIds)
        if precision[0, i] >= 0
    }
    return {"map": float(scores.stats[0]), "map50": float(scores.stats[1]), **each}


def check_installed() -> None:
    """Raise ConfigError unless pycocotools can be imported."""
    if importlib.util.find_spec("pycocotools") is None:
        raise ConfigError('COCO\'s metric needs pycocotools: pip install -c constraints.txt -e ".[detector]"')


def _dataset(
    images: AnnotatedImages, classes: list[str], numbers: Iterable[int]
) -> dict[str, list[dict[str, object]]]:
    entries, annotations = [], []
    for index in numbers:
        known = images.annotations(index)
        entries.append({"id": known.image_id, "width": known.width, "height": known.height})
        for box, label, crowd in zip(known.boxes.tolist(), known.labels, known.crowd, strict=True):
            x, y, w, h = box[0], box[1], box[2] - box[0], box[3] - box[1]
            entry = {"id": len(annotations) + 1, "image_id": known.image_id, "category_id": int(label)}
            annotations.append({**entry, "bbox": [x, y, w, h], "area": w * h, "iscrowd": int(crowd)})
    categories = [{"id": i, "name": name} for i, name in enumerate(classes)]
    return {"images": entries, "annotations": annotations, "categories": categories}
