"""Region features of many pictures: threads decode, batches of equal shape run, files are written.

A file holds a stretch of the image list, and batches never reach beyond it, so the bytes of a file depend
on the list and the settings alone: not on ranks, threads, or how often the job was killed.

Legend: B pictures of a batch, N regions of a picture, F width of a feature, C classes, A attributes.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from ppdet_features.batching import Prepared, group_by_shape
from ppdet_features.image_list import ImageList
from ppdet_features.store_writer import StoreWriter
from unimo.data.images.open import open_image
from unimo.data.loading.loader import BadRecord, RecordCounter, ordered_map
from unimo.data.regions.base import Regions
from unimo.data.regions.shard import Skipped, StoredImage, Widths, halve
from unimo.errors import CheckpointError, ConfigError, RecordError
from unimo.jobs import Shard

if TYPE_CHECKING:
    from paddle import Tensor

    from ppdet_features.detector import Detections

Prepare = Callable[[Image.Image], np.ndarray]
"""A picture to the network's input, [3, H, W] float32."""


class Detector(Protocol):
    """What extraction asks of a network."""

    feature_size: int
    num_classes: int
    num_attributes: int

    def detect(self, images: Tensor) -> list[Detections]:
        """The regions of each of [B, 3, H, W] pictures, boxes in its pixels."""


@dataclass(frozen=True)
class ExtractionSettings:
    """How a job runs. The first four decide about its output (the first two of them in the last digits)."""

    batch_size: int = 8
    look_ahead: int = 64
    """Decoded pictures that wait for others of their shape; at 600 x 1000 pixels one is 7 MB."""
    images_per_shard: int = 256
    """Pictures of a file; a killed job loses less than one file of each rank."""
    label_score: float = 0.2
    """Least probability of an object in labels.jsonl."""
    num_workers: int = 2
    """Threads that decode."""
    max_bad_rate: float = 0.01
    """Share of pictures that may be skipped."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "look_ahead", "images_per_shard"):
            if getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise ConfigError(f"--{option} {getattr(self, name)}: expected at least 1")

    @property
    def job(self) -> dict[str, int]:
        """What has to be the same when a job goes on, besides what `StoreWriter` compares."""
        return {"batch_size": self.batch_size, "look_ahead": self.look_ahead}


@dataclass(frozen=True)
class Extractor:
    """A detector with all that is needed to run it on pictures."""

    detector: Detector
    prepare: Prepare
    names: dict[str, list[str]] = field(default_factory=dict)
    """Names of `classes` and `attributes`."""
    made_by: dict[str, Any] = field(default_factory=dict)
    """What names the detector and its weights; another one may not go on with a job."""

    @property
    def widths(self) -> Widths:
        """How wide its tables are."""
        return Widths(self.detector.feature_size, self.detector.num_classes, self.detector.num_attributes)

    def run(self, batch: Sequence[Prepared]) -> Iterator[tuple[int, StoredImage | Skipped]]:
        """Number and regions of each picture of a batch, boxes in pixels of the pictures, half precision."""
        import paddle

        with paddle.no_grad():
            results = self.detector.detect(paddle.to_tensor(np.stack([item.pixels for item in batch])))
        for picture, detections in zip(batch, results, strict=True):
            try:
                yield picture.number, halve(_as_stored(picture, detections), self.widths)
            except RecordError as error:
                yield picture.number, Skipped(picture.image_id, str(error))


_WITHOUT_EFFECT = ("Training", "BBoxAssigner", "BBoxPostProcess", "class_names", "attribute_names")
"""Of a detector's YAML file, on regions; the names, which may be thousands, are compared by a digest."""


def load_extractor(config_path: str, weights_path: str | None) -> Extractor:
    """The detector of a YAML file and a file of weights, on this rank's GPU if there is one.

    Without weights it has random ones.

    Raises:
        ConfigError, CheckpointError: one of them cannot be used.
    """
    import paddle

    from ppdet_features.config import load_config, sections
    from ppdet_features.detector import load_detector
    from ppdet_features.preprocess import preprocess

    config = load_config(config_path)
    if paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count():
        paddle.set_device(f"gpu:{paddle.distributed.ParallelEnv().device_id}")
    detector = load_detector(config, weights_path)
    names = {"classes": config.classes, "attributes": config.attributes}
    made_by = {
        "weights": file_digest(Path(weights_path)) if weights_path else "random",
        "names": hashlib.sha256(json.dumps(names).encode()).hexdigest(),
        **{key: value for key, value in sections(config).items() if key not in _WITHOUT_EFFECT},
    }
    return Extractor(detector, partial(preprocess, config=config), names, made_by)


def extract(
    images: ImageList,
    extractor: Extractor,
    folder: Path,
    settings: ExtractionSettings,
    part: Shard,
    progress: Callable[[int, int], Any],
) -> dict[str, int] | None:
    """Write the region features of a list of pictures, or go on doing so.

    Args:
        images: the pictures.
        extractor: finds their regions.
        folder: to write to.
        settings: see there.
        part: the files that this process writes.
        progress: makes a context manager with `update(count)`, of the pictures of this rank and those done.

    Returns:
        Numbers of `images`, `regions` and `skipped`; None while other ranks are at work.

    Raises:
        DataError: the folder holds the work of another job, or too many pictures cannot be used.
    """
    job = {"list": images.fingerprint, **extractor.made_by, **settings.job}
    shape = (len(images), settings.images_per_shard, extractor.widths, extractor.names, settings.label_score)
    writer = StoreWriter(folder, job, *shape, part)
    missing = writer.missing()
    stretches = [writer.numbers(shard) for shard in missing]
    left = sum(map(len, stretches))
    counter = RecordCounter(settings.max_bad_rate, "--max-bad-rate")
    counter.read[images.name] = len(images)  # stops when more are bad than the whole list may have
    pictures = ordered_map(
        partial(read_picture, images, extractor.prepare),
        itertools.chain.from_iterable(stretches),
        settings.num_workers,
        2 * settings.batch_size,
    )
    with contextlib.closing(pictures), progress(writer.mine(), writer.mine() - left) as bar:
        for shard, numbers in zip(missing, stretches, strict=True):
            found: dict[int, StoredImage | Skipped] = {}
            for number, result in detect_all(itertools.islice(pictures, len(numbers)), extractor, settings):
                found[number] = result
                is_bad = isinstance(result, Skipped)
                bad = [BadRecord(images.name, number, result.reason)] if is_bad else []
                counter.add([], bad)
                bar.update(1)
            writer.write(shard, [found[number] for number in numbers])
    return writer.finish(settings.max_bad_rate)


def read_picture(images: ImageList, prepare: Prepare, number: int) -> Prepared | tuple[int, Skipped]:
    """A decoded picture, or why there is none."""
    image_id = images.image_id(number)
    try:
        picture = open_image(images.source(number))
        return Prepared(number, image_id, picture.size, prepare(picture))
    except RecordError as error:
        return number, Skipped(image_id, str(error))


def detect_all(
    pictures: Iterable[Prepared | tuple[int, Skipped]], extractor: Extractor, settings: ExtractionSettings
) -> Iterator[tuple[int, StoredImage | Skipped]]:
    """Number and regions of every picture, in the order in which batches get full."""
    skipped: list[tuple[int, Skipped]] = []

    def good() -> Iterator[Prepared]:
        for picture in pictures:
            if isinstance(picture, Prepared):
                yield picture
            else:
                skipped.append(picture)

    for batch in group_by_shape(good(), settings.batch_size, settings.look_ahead):
        yield from extractor.run(batch)
        yield from skipped
        skipped.clear()
    yield from skipped


def _as_stored(picture: Prepared, found: Detections) -> StoredImage:
    width, height = picture.size
    scale = np.array([width / picture.pixels.shape[2], height / picture.pixels.shape[1]] * 2, np.float32)
    regions = Regions(found.features, found.boxes * scale, width, height, found.class_probs)
    return StoredImage(picture.image_id, regions, found.labels, found.scores, found.attributes)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        CheckpointError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()
