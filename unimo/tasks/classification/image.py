"""Classification of images: fine-tuning, or a linear probe on a frozen model.

The model sees the image alone: grounded tokens come from it, and no text takes part (UNIMO-2, section 3.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from unimo.data.loading.task_data import TaskData
from unimo.data.readers.base import Dataset
from unimo.data.readers.labeled import relabel
from unimo.data.readers.open_labeled import open_labeled_images
from unimo.errors import CheckpointError, DataError
from unimo.losses.reduce import global_mean
from unimo.metrics.average import Averages, gather_objects
from unimo.metrics.glue import majority
from unimo.models.base import Model
from unimo.nn.init import linear
from unimo.settings import CorpusConfig
from unimo.tasks.base import Answer, Batch, Question, Task, ranked, to_tensors
from unimo.tasks.classification.batches import ImageBatch, ImageCollator

if TYPE_CHECKING:
    from unimo.data.processor import Processor
    from unimo.settings import RunConfig

TOP = 5


@dataclass(frozen=True)
class ImageClassificationConfig:
    """Fields of the task section of an image classification run."""

    name: str = "image_classification"
    linear_probe: bool = False
    """Train the classifier alone; the model stays as it is and runs without dropout."""
    head_dropout: float = 0.0
    """On the pooled vector, before the classifier."""


class ImageClassificationTask(Task):
    """Pooled vector of an image -> classes; one linear layer, cross-entropy."""

    Config = ImageClassificationConfig

    asked_with = "image"
    needs = frozenset({"image_only"})

    def __init__(self, model: Model, config: ImageClassificationConfig, metadata: Mapping[str, Any]) -> None:
        super().__init__(model, config, metadata)
        if not metadata.get("classes"):
            raise CheckpointError(
                "image classification needs the list of classes; metadata.classes is missing or empty"
            )
        self.classes: list[str] = list(metadata["classes"])
        self.dropout = nn.Dropout(config.head_dropout)
        self.classifier = linear(model.hidden_size, len(self.classes))
        self.freeze_unused(text=False, image=True)
        if config.linear_probe:
            for parameter in model.parameters():
                parameter.stop_gradient = True

    @classmethod
    def open_data(
        cls, run: RunConfig, processor: Processor, metadata: Mapping[str, Any] | None = None
    ) -> TaskData:
        """Open the labelled images of `data.path`, with the classes of an existing model or of their own.

        Raises:
            DataError: a corpus cannot be opened, or has no training split to take the classes from.
        """
        classes = (metadata or {}).get("classes") or class_names(run)

        def open_split(corpus: CorpusConfig, split: str) -> Dataset:
            return relabel(open_labeled_images(corpus, split, run.data), classes)

        return TaskData(
            corpora=run.data.path,
            open_split=open_split,
            processor=processor,
            collator=lambda train: ImageCollator(processor, len(classes), train),
            metadata={"classes": list(classes)},
        )

    def train(self) -> None:
        """Training mode; a probed model stays in evaluation mode."""
        super().train()
        if self.config.linear_probe:
            self.model.eval()

    def features(self, batch: Batch) -> Tensor:
        """Pooled vectors [B, D] of the images of a batch."""
        image = self.model.encode_image(batch.images)
        return self.model.fuse(None, image, outputs="pooled").pooled

    def logits(self, batch: Batch) -> Tensor:
        """Class logits [B, classes]."""
        if not self.config.linear_probe:
            return self.classifier(self.dropout(self.features(batch)))
        with paddle.no_grad():
            features = self.features(batch)
        # The length of a frozen vector is whatever pre-training left; without it one rate suits all models.
        return self.classifier(self.dropout(F.layer_norm(features, features.shape[-1:])))

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Cross-entropy, mean over samples; report: accuracy, percent."""
        logits, labels = self.logits(batch), batch.labels
        loss = F.cross_entropy(logits.astype("float32"), labels, reduction="sum")
        accuracy = (logits.argmax(axis=1) == labels).astype("float32").mean()
        return {"classification": global_mean(loss, logits.shape[0])}, {"accuracy": 100 * accuracy}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The one loss."""
        return losses["classification"]

    def predict(self, batch: Batch) -> dict[str, Any]:
        """`logits` [B, classes], and one record a sample with the name of its best class."""
        logits = self.logits(batch)
        rows = zip(batch.sample_ids, logits.argmax(axis=1).tolist(), strict=True)
        return {
            "logits": logits,
            "records": [{"sample_id": key, "label": self.classes[row]} for key, row in rows],
        }

    def ask(self, processor: Processor, questions: Sequence[Question], count: int) -> list[list[Answer]]:
        """Classify images, with the probabilities of the classes."""
        images = processor([question.image for question in questions])[processor.image_key]
        names = [str(row) for row in range(len(questions))]
        batch = ImageBatch(images=images, labels=np.zeros(len(names), np.int64), sample_ids=names)
        return ranked(self.classes, F.softmax(self.logits(to_tensors(batch)), axis=1), count)

    def new_metric(self) -> TopAccuracy:
        """Top-1 and top-5 accuracy."""
        return TopAccuracy()


class TopAccuracy:
    """Share of images whose class scores best, `accuracy`, and among the best five, `accuracy_top5`.

    In percent. Ties count against the model. Beside them `majority`, the accuracy of always saying the most
    frequent class. Top 5 is left out with five classes or fewer.
    """

    def __init__(self) -> None:
        self._averages = Averages()
        self._labels: list[int] = []

    def update(self, prediction: Mapping[str, Any], batch: Batch) -> None:
        """Rank the right class of each sample of a batch by `prediction["logits"]` [B, classes]."""
        logits, labels = prediction["logits"].astype("float32"), batch.labels
        right = paddle.take_along_axis(logits, labels.unsqueeze(1), axis=1)
        # Counted from below, so that logits which are not numbers are misses.
        above = (logits.shape[1] - 1 - (logits < right).astype("int64").sum(axis=1)).tolist()
        self._labels += labels.tolist()
        self._averages.add("accuracy", 100.0 * sum(rank < 1 for rank in above), len(above))
        if logits.shape[1] > TOP:
            self._averages.add("accuracy_top5", 100.0 * sum(rank < TOP for rank in above), len(above))

    def compute(self) -> dict[str, float]:
        """The accuracies, over all ranks."""
        labels = [label for part in gather_objects(self._labels) for label in part]
        return self._averages.compute() | ({"majority": majority(labels)} if labels else {})


def class_names(run: RunConfig, split: str = "train") -> list[str]:
    """Classes of all corpora of `data.path` in first-seen order.

    Raises:
        DataError: a corpus cannot be opened.
    """
    opened = (open_labeled_images(corpus, split, run.data) for corpus in run.data.path)
    names = list(dict.fromkeys(name for dataset in opened for name in dataset.class_names))
    if len(names) < 2:
        raise DataError(f"image classification needs at least 2 classes; found: {', '.join(names)}")
    return names


TASK = ImageClassificationTask
