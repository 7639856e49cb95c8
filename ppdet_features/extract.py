"""Extraction of region features: threads decode, batches of equal shape run, files are written.

A file holds consecutive images of the image list, and batches stay within a file, so its bytes depend on
the list and the settings alone: not on ranks, threads, or how often the job was killed. So ranks share the
files, and a resumed job writes those that are missing. Ranks exchange no messages: the one that finds all
files complete ends the job.

Legend: B images of a batch, N regions of an image, F width of a feature, C classes, A attributes.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from unimo.config import check_fields
from unimo.data.image_list import ImageList
from unimo.data.images.open import open_image
from unimo.data.loading.loader import BadRecord, RecordCounter, ordered_map
from unimo.data.regions.base import Regions
from unimo.data.regions.shard import ShardReader, Skipped, StoredImage, Widths, halve, write_shard
from unimo.data.regions.store import shard_path, write_index
from unimo.digests import digest
from unimo.errors import CheckpointError, DataError, RecordError
from unimo.files import write_text
from unimo.jobs import Shard, check_same_job
from unimo.ranges import Share, Size, Threads

if TYPE_CHECKING:
    from ppdet_features.detector import FasterRCNN


@dataclass(frozen=True)
class Prepared:
    """A decoded image."""

    number: int
    """Number in the image list."""
    image_id: str
    size: tuple[int, int]
    """Width and height of the image itself."""
    pixels: np.ndarray = field(repr=False)
    """[3, H, W] float32, the network's input."""


@dataclass(frozen=True)
class ExtractionSettings:
    """Settings of a job. The first four affect its output (the first two of them only the last digits)."""

    batch_size: Size = 8
    look_ahead: Size = 64
    """Most decoded images that wait for others of their shape; one of 600 x 1000 pixels takes 7 MB."""
    images_per_shard: Size = 256
    """Images per file; a killed job loses less than one file per rank."""
    label_score: Share = 0.2
    """Smallest probability of an object in labels.jsonl."""
    num_workers: Threads = 2
    """Decoding threads."""
    max_bad_rate: Share = 0.01
    """Largest share of images that may be skipped."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Extractor:
    """A detector with everything needed to run it on images."""

    detector: FasterRCNN
    prepare: Callable[[Image.Image], np.ndarray]
    """Converts an image to the network's input, [3, H, W] float32."""
    names: dict[str, list[str]] = field(default_factory=dict)
    """Names of `classes` and `attributes`."""
    made_by: dict[str, Any] = field(default_factory=dict)
    """Identity of the detector and its weights; a job cannot be resumed with another one."""

    @property
    def widths(self) -> Widths:
        """Widths of its tables."""
        return Widths(self.detector.feature_size, self.detector.num_classes, self.detector.num_attributes)

    def run(self, batch: Sequence[Prepared]) -> Iterator[tuple[int, StoredImage | Skipped]]:
        """Yield number and regions of each image of a batch, in half precision, boxes in its own pixels."""
        import paddle

        with paddle.no_grad():
            results = self.detector.detect(paddle.to_tensor(np.stack([item.pixels for item in batch])))
        for prepared, found in zip(batch, results, strict=True):
            width, height = prepared.size
            _, rows, columns = prepared.pixels.shape
            scale = np.array([width / columns, height / rows] * 2, np.float32)
            labels = (found.labels, found.scores, found.attributes)
            try:
                regions = Regions(found.features, found.boxes * scale, width, height, found.class_probs)
                yield prepared.number, halve(StoredImage(prepared.image_id, regions, *labels), self.widths)
            except RecordError as error:
                yield prepared.number, Skipped(prepared.image_id, str(error))


_WITHOUT_EFFECT = ("Training", "BBoxAssigner", "BBoxPostProcess", "class_names", "attribute_names")
"""Sections of the YAML file that do not affect regions; names, often thousands, are compared by a digest."""


def load_extractor(config_path: str, weights_path: str | None) -> Extractor:
    """Load a detector from its YAML file on this rank's GPU, if there is one; without weights, random ones.

    Errors are those of `load_detector`.
    """
    import paddle

    from ppdet_features.config import load_config, sections
    from ppdet_features.detector import load_detector, preprocess

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


class StoreWriter:
    """Writes the files of one job: those of `part`, with `images_per_shard` of all `images` in each.

    Args:
        folder: created if it does not exist.
        job: whatever else decides about the content.
        names, label_score: see `write_index`.

    Raises:
        DataError: the folder holds the work of another job, or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        job: Mapping[str, Any],
        images: int,
        images_per_shard: int,
        widths: Widths,
        names: Mapping[str, Sequence[str]],
        label_score: float,
        part: Shard,
    ) -> None:
        self.folder, self.images = folder, images
        self.widths, self.names, self.label_score = widths, names, label_score
        self.shards = -(-images // images_per_shard)
        self.mine = {
            shard: range(images)[shard * images_per_shard : (shard + 1) * images_per_shard]
            for shard in part.numbers(self.shards)
        }
        """The files of this process, with the numbers of their images."""
        settings = {"images": images, "images_per_shard": images_per_shard, "label_score": label_score}
        described = {**job, **settings, "widths": vars(widths)}
        note, complaint = folder / "job.json", f"{folder} holds the work of another job"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if part.of == 1:
                self._remove_leftovers(".*.tmp")
            if note.exists() or any(folder.glob("regions-*")):
                check_same_job(note, described, complaint)
            else:
                write_text(note, json.dumps(described, indent=1) + "\n")
        except OSError as error:
            raise DataError(f"cannot write to {folder}: {error.strerror}") from error

    def _is_done(self, shard: int) -> bool:
        return shard_path(self.folder, shard).exists()  # files are written whole or not at all

    def missing(self) -> dict[int, range]:
        """Return those of `mine` that are still to be written."""
        return {shard: numbers for shard, numbers in self.mine.items() if not self._is_done(shard)}

    def write(self, shard: int, entries: Sequence[StoredImage | Skipped]) -> None:
        """Write a file: its images in order, each as returned by `halve`, or skipped."""
        images = [entry for entry in entries if isinstance(entry, StoredImage)]
        skipped = [entry for entry in entries if isinstance(entry, Skipped)]
        write_shard(shard_path(self.folder, shard), images, skipped, self.widths)

    def finish(self, max_bad_rate: float) -> dict[str, int] | None:
        """Write the index if all files exist.

        Returns:
            Numbers of `images`, `regions` and `skipped`; None while other ranks are at work.

        Raises:
            DataError: too many images were skipped, or all of them; the files are kept.
        """
        if not all(map(self._is_done, range(self.shards))):
            return None
        counter = RecordCounter(max_bad_rate, "--max-bad-rate")
        counter.read["the image list"] = self.images
        skipped: list[Skipped] = []
        for shard in range(self.shards):
            with ShardReader(shard_path(self.folder, shard)) as reader:
                skipped += reader.skipped()
        counter.bad["the image list"] = len(skipped)
        if skipped:
            last = f"{skipped[-1].image_id}: {skipped[-1].reason}"
            counter.check(1, last)
            if len(skipped) == self.images:
                raise DataError(f"all {self.images} images of the list were skipped; the last one: {last}")
        self._remove_leftovers(".regions-*.tmp")
        return write_index(self.folder, self.shards, self.widths, self.names, self.label_score)

    def _remove_leftovers(self, pattern: str) -> None:
        """Delete temporary files of killed processes."""
        for path in self.folder.glob(pattern):
            path.unlink(missing_ok=True)


def extract(
    images: ImageList,
    extractor: Extractor,
    folder: Path,
    settings: ExtractionSettings,
    part: Shard,
    progress: Callable[[int, int], Any],
) -> dict[str, int] | None:
    """Extract the region features of a list of images, or resume a killed job.

    Args:
        part: the files that this process writes.
        progress: makes a context manager with `update(count)` from the numbers of images of this process
            and of those already done.

    Returns:
        Numbers of `images`, `regions` and `skipped`; None while other ranks are at work.

    Raises:
        DataError: the folder holds the work of another job, or too many images cannot be used.
    """
    job = {"list": images.fingerprint, **extractor.made_by}
    job |= {"batch_size": settings.batch_size, "look_ahead": settings.look_ahead}
    shape = (len(images), settings.images_per_shard, extractor.widths, extractor.names, settings.label_score)
    writer = StoreWriter(folder, job, *shape, part)
    missing = writer.missing()
    mine, left = (sum(map(len, files.values())) for files in (writer.mine, missing))
    counter = RecordCounter(settings.max_bad_rate, "--max-bad-rate")
    counter.read[images.name] = len(images)  # stops once too many of the whole list are broken
    decoded = ordered_map(
        partial(read_image, images, extractor),
        itertools.chain.from_iterable(missing.values()),
        settings.num_workers,
        2 * settings.batch_size,
    )
    with contextlib.closing(decoded), progress(mine, mine - left) as bar:
        for shard, numbers in missing.items():
            found: dict[int, StoredImage | Skipped] = {}
            for number, result in detect_all(itertools.islice(decoded, len(numbers)), extractor, settings):
                found[number] = result
                if isinstance(result, Skipped):
                    counter.add([], [BadRecord(images.name, number, result.reason)])
                bar.update(1)
            writer.write(shard, [found[number] for number in numbers])
    return writer.finish(settings.max_bad_rate)


def read_image(images: ImageList, extractor: Extractor, number: int) -> Prepared | tuple[int, Skipped]:
    """Decode an image, or say why it is skipped."""
    image_id = images.image_id(number)
    try:
        image = open_image(images.source(number))
        return Prepared(number, image_id, image.size, extractor.prepare(image))
    except RecordError as error:
        return number, Skipped(image_id, str(error))


def detect_all(
    decoded: Iterable[Prepared | tuple[int, Skipped]], extractor: Extractor, settings: ExtractionSettings
) -> Iterator[tuple[int, StoredImage | Skipped]]:
    """Yield number and regions of every image, in the order in which batches are filled."""
    skipped: list[tuple[int, Skipped]] = []

    def good() -> Iterator[Prepared]:
        for prepared in decoded:
            if isinstance(prepared, Prepared):
                yield prepared
            else:
                skipped.append(prepared)

    for batch in group_by_shape(good(), settings.batch_size, settings.look_ahead):
        yield from extractor.run(batch)
        yield from skipped
        skipped.clear()
    yield from skipped


def group_by_shape(images: Iterable[Prepared], batch_size: int, look_ahead: int) -> Iterator[list[Prepared]]:
    """Yield batches of equal shape; at most `look_ahead` images wait for others of their shape.

    When that many wait, the largest group is yielded (the oldest of equally large ones). The batches depend
    on the order of the images only.
    """
    groups: dict[tuple[int, ...], list[Prepared]] = {}
    waiting = 0
    for image in images:
        group = groups.setdefault(image.pixels.shape, [])
        group.append(image)
        waiting += 1
        if len(group) == batch_size:
            yield groups.pop(image.pixels.shape)
            waiting -= batch_size
        elif waiting >= look_ahead:
            largest = max(groups, key=lambda shape: len(groups[shape]))
            waiting -= len(groups[largest])
            yield groups.pop(largest)
    yield from groups.values()


def file_digest(path: Path) -> str:
    """Compute the SHA-256 of a file.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        return digest(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
