"""Semantic segmentation: a class for each pixel of a picture, in the protocol that BEiT fine-tunes with.

VLMo's figure for ADE20K (Table 4) is of this protocol. The model sees the picture alone.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

from unimo.data.images.class_maps import NO_CLASS, encode_class_map
from unimo.data.loading.task_data import TaskData, corpus_data
from unimo.data.processor import Processor
from unimo.data.readers.pixel_classes import check_names, open_pixel_classes
from unimo.errors import CheckpointError, ConfigError
from unimo.files import replacing
from unimo.losses.reduce import global_mean
from unimo.metrics.average import gather_objects
from unimo.metrics.segmentation import confusion, scores
from unimo.models.base import Model
from unimo.ranges import Dropout, Size
from unimo.settings import RunConfig
from unimo.tasks.base import Answer, Batch, Metadata, Question, Task, to_tensors
from unimo.tasks.segmentation.batches import CropBatch, PictureBatch, SegmentationCollator
from unimo.tasks.segmentation.head import AUXILIARY_MAP, Fcn, Pyramid, UperNet, resize
from unimo.tasks.segmentation.sliding import slide

AUXILIARY_WEIGHT = 0.4
LAYERS = (4 / 12, 6 / 12, 8 / 12, 1.0)
"""Layers that are read, as shares of the depth: 4, 6, 8 and 12 of 12, 8, 12, 16 and 24 of 24 (BEiT)."""
RATIOS = {"single": (1.0,), "multi": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)}
"""Value of `scales` -> factors on the size at which the shorter side is one crop long (BEiT)."""
STRIDE = 2 / 3
"""Distance of neighbouring windows in crops: 341 of 512 pixels, 426 of 640 (BEiT)."""


@dataclass(frozen=True)
class SegmentationConfig:
    """Fields of the task section of a segmentation run."""

    name: str = "segmentation"
    layers: tuple[Size, ...] = ()
    """Four layers of the tower that are read, counted from 1; empty for the third, the half, two thirds and
    all of them."""
    head_dropout: Dropout = 0.1
    """Dropout of channels, before the classifiers."""
    scales: Literal["single", "multi"] = "single"
    """Evaluation. single: each picture once, its shorter side one crop long; multi: six sizes, 0.5 to 1.75
    times that, each also mirrored, and the mean of the probabilities."""

    def __post_init__(self) -> None:
        if self.layers and (len(self.layers) != 4 or list(self.layers) != sorted(self.layers)):
            raise ConfigError(
                f"task.layers {list(self.layers)}: expected four rising numbers such as [4,6,8,12], the "
                "finest map first"
            )


class SegmentationTask(Task):
    """Maps of four layers -> pyramid -> UperNet -> classes of pixels.

    Attributes:
        classes: names of the classes, in the order of their numbers.
        layers: the layers that are read.
    """

    Config = SegmentationConfig
    asked_with = "image"
    published_data = "ADE20K"
    needs = frozenset({"image_alone", "pixels"})

    def __init__(self, model: Model, config: SegmentationConfig, metadata: Mapping[str, Any]) -> None:
        super().__init__(model, config, metadata)
        names = metadata.get("classes")
        self.classes = check_names(names, "metadata.classes", CheckpointError)
        depth, width = model.map_sizes
        self.layers = config.layers or tuple(max(1, int(share * depth + 0.5)) for share in LAYERS)
        if self.layers[-1] > depth:
            raise ConfigError(
                f"task.layers {list(self.layers)}: {model.config.name} has {depth} layers; leave it out, or "
                "give four of them"
            )
        self.pyramid = Pyramid(width)
        self.head = UperNet(width, len(self.classes), config.head_dropout)
        self.auxiliary = Fcn(width, len(self.classes), config.head_dropout)
        for name, parameter in model.named_parameters():
            if not model.is_mapped(name, self.layers[-1]):
                parameter.stop_gradient = True

    @classmethod
    def open_data(cls, run: RunConfig, processor: Processor, metadata: Metadata = None) -> TaskData:
        """Open the pictures and maps of `data.path`; an existing model keeps its classes.

        Raises:
            ConfigError, DataError: no such data, or of other classes than the model knows.
        """
        classes = open_pixel_classes(run.data.path, run.data)
        if metadata and list(metadata["classes"]) != classes:
            raise ConfigError(
                f"data.path has {len(classes)} classes ({', '.join(classes[:3])} ...), the model knows "
                f"{len(metadata['classes'])} ({', '.join(metadata['classes'][:3])} ...); give data of its "
                "classes"
            )
        ratios = RATIOS[run.task.scales]
        data = corpus_data(
            run,
            run.data.path,
            "segmentation",
            processor,
            lambda train: SegmentationCollator(processor, classes, ratios, train),
        )
        data.metadata = {"classes": classes}
        return data

    def losses(self, batch: CropBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute the cross-entropy of UperNet and of the auxiliary head, each a mean over all pixels.

        Pixels without a class count as 0, as in BEiT's code. Reported beside them: the accuracy of the
        others, in percent.
        """
        maps = self.pyramid(self.model.image_maps(batch.images, self.layers))
        logits = self.head(maps)
        named = {"segmentation": logits, "auxiliary": self.auxiliary(maps[AUXILIARY_MAP])}
        truth = batch.class_maps
        losses = {}
        for name, found in named.items():
            loss = F.cross_entropy(
                resize(found.astype("float32"), truth.shape[1:]),
                truth,
                axis=1,
                ignore_index=NO_CLASS,
                reduction="sum",
            )
            losses[name] = global_mean(loss, truth.size)
        with paddle.no_grad():
            guesses = resize(logits.astype("float32"), truth.shape[1:]).argmax(axis=1)
            known = (truth != NO_CLASS).astype("float32")
            hits = ((guesses == truth).astype("float32") * known).sum()
        return losses, {"pixel_accuracy": 100 * hits / paddle.clip(known.sum(), min=1.0)}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        return losses["segmentation"] + AUXILIARY_WEIGHT * losses["auxiliary"]

    def logits(self, images: Tensor) -> Tensor:
        """Compute the logits [B, classes, S, S] of squares [B, 3, S, S]."""
        logits = self.head(self.pyramid(self.model.image_maps(images, self.layers)))
        return resize(logits.astype("float32"), images.shape[2:])

    def class_maps(self, batch: PictureBatch) -> list[np.ndarray]:
        """Return the most probable class of each pixel of each picture, uint8 [H, W]."""
        alike: dict[tuple[Any, ...], list[int]] = {}
        for row, pictures in batch.pictures.items():
            shapes = tuple(tuple(pixels.shape) for pixels in pictures.values())
            alike.setdefault((batch.sizes[row], shapes), []).append(row)
        found: dict[int, np.ndarray] = {}
        for (size, _), rows in alike.items():
            total = 0.0
            for ratio in batch.pictures[rows[0]]:
                pixels = paddle.stack([batch.pictures[row][ratio] for row in rows])
                total = total + self._probabilities(pixels, size)
            maps = total.argmax(axis=1).astype("uint8").numpy()
            found.update(zip(rows, maps, strict=True))
        return [found[row] for row in range(len(batch.sizes))]

    def _probabilities(self, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the probabilities of classes [B, classes, H, W] of pictures at one size of the test."""
        side = self.model.config.vision.image_size
        views = [(pixels, ())] + [(pixels.flip(3), (3,))] * (self.config.scales == "multi")
        found = 0.0
        for view, mirrored in views:
            logits = resize(slide(self.logits, view, side, int(side * STRIDE)), size)
            found = found + F.softmax(logits.flip(mirrored) if mirrored else logits, axis=1)
        return found / len(views)

    def predict(self, batch: PictureBatch) -> dict[str, Any]:
        """Compute `class_maps`, uint8 [H, W] of each picture; records have them as PNG files."""
        maps = self.class_maps(batch)
        rows = zip(batch.image_ids, maps, strict=True)
        # From 1, as the server of ADE20K's benchmark counts.
        records = [{"image_id": name, "png": encode_class_map(found + 1)} for name, found in rows]
        return {"class_maps": maps, "records": records}

    @staticmethod
    def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
        """Write a ZIP archive of a PNG for each picture, with the name of that."""
        with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for record in records:
                archive.writestr(f"{record['image_id'].replace('/', '_')}.png", record["png"])

    def new_metric(self) -> PixelScores:
        return PixelScores(len(self.classes))

    def ask(self, processor: Processor, questions: Sequence[Question], count: int) -> list[list[Answer]]:
        """Return the `count` largest classes of each picture, with their shares of it and their pixels."""
        collator = SegmentationCollator(processor, self.classes, RATIOS[self.config.scales], train=False)
        images = [processor.open(question.image, reduce=False) for question in questions]
        batch = PictureBatch(
            pictures=dict(enumerate(map(collator.at_sizes, images))),
            sizes=[image.size[::-1] for image in images],
            image_ids=[],
            class_maps={},
            sample_ids=[str(row) for row in range(len(images))],
        )
        return [
            [
                Answer(self.classes[number], share, mask=found == number)
                for number, share in shares(found)[:count]
            ]
            for found in self.class_maps(to_tensors(batch))
        ]


def shares(class_map: np.ndarray) -> list[tuple[int, float]]:
    """Return the classes of a map and their shares of its pixels, the largest first."""
    counts = np.bincount(class_map.ravel())
    order = np.argsort(-counts, kind="stable")
    return [(int(number), float(counts[number] / class_map.size)) for number in order if counts[number]]


class PixelScores:
    """Scores of the classes of pixels, over all pictures of all ranks."""

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, classes), np.int64)

    def update(self, prediction: Mapping[str, Any], batch: Batch) -> None:
        """Count the pixels of a batch by true and predicted class."""
        for row, found in enumerate(prediction["class_maps"]):
            truth = np.asarray(batch.class_maps[row])
            self.counts += confusion(truth, found, len(self.counts))

    def compute(self) -> dict[str, float]:
        """Return `unimo.metrics.segmentation.scores` of the counts of all ranks. Collective."""
        return scores(sum(gather_objects(self.counts)))


TASK = SegmentationTask
