"""Classification of images: fine-tuning, or a linear probe on a frozen model.

The model sees the image alone: grounded tokens come from it, and no text takes part (UNIMO-2, section 3.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from unimo.data.loading.task_data import TaskData
from unimo.data.processor import Processor
from unimo.data.readers.base import Dataset, relabel
from unimo.data.readers.open import open_labeled_images
from unimo.errors import CheckpointError, DataError
from unimo.metrics.average import Averages, gather_objects
from unimo.metrics.glue import majority
from unimo.models.base import Model
from unimo.nn.init import linear
from unimo.ranges import Dropout
from unimo.settings import CorpusConfig, RunConfig
from unimo.tasks.base import Answer, Batch, Metadata, Question, to_tensors
from unimo.tasks.classification.batches import ImageBatch, ImageCollator
from unimo.tasks.classifier import ClassifierTask

TOP = 5


@dataclass(frozen=True)
class ImageClassificationConfig:
    """Fields of the task section of an image classification run."""

    name: str = "image_classification"
    protocol: Literal["finetune", "linear", "reference"] = "finetune"
    """finetune: model and classifier learn. linear: the classifier alone; the model stays as it is and runs
    without dropout. reference: the model alone; the classifier stays at its random start, as in the code of
    BridgeTower that its figures for CIFAR, and those of UNIMO-3 (Table 4), come from."""
    head_dropout: Dropout = 0.0
    """Dropout of the pooled vector, before the classifier."""


class ImageClassificationTask(ClassifierTask):
    """Pooled vector of an image -> classes; one linear layer, cross-entropy."""

    Config = ImageClassificationConfig
    asked_with = "image"
    published_data = "CIFAR-10, CIFAR-100"
    needs = frozenset({"image_alone"})

    def __init__(self, model: Model, config: ImageClassificationConfig, metadata: Mapping[str, Any]) -> None:
        super().__init__(model, config, metadata)
        if not metadata.get("classes"):
            raise CheckpointError(
                "image classification needs the list of classes; metadata.classes is missing or empty"
            )
        self.classes = list(metadata["classes"])
        self.dropout = nn.Dropout(config.head_dropout)
        self.classifier = linear(model.alone_sizes[1], len(self.classes))
        self.freeze_unused(text=False, image=True)
        fixed = {"finetune": None, "linear": model, "reference": self.classifier}[config.protocol]
        for parameter in fixed.parameters() if fixed else ():
            parameter.stop_gradient = True

    @classmethod
    def open_data(cls, run: RunConfig, processor: Processor, metadata: Metadata = None) -> TaskData:
        """Open the labelled images of `data.path`, with the classes of an existing model or of their own."""
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
        """Switch to training mode; a probed model stays in evaluation mode."""
        super().train()
        if self.config.protocol == "linear":
            self.model.eval()

    def features(self, batch: Batch) -> Tensor:
        """Compute the vectors [B, D] of images."""
        return self.model.image_alone(batch.images)

    def logits(self, batch: Batch) -> Tensor:
        if self.config.protocol != "linear":
            return self.classifier(self.dropout(self.features(batch)))
        with paddle.no_grad():
            features = self.features(batch)
        # The length of a frozen vector is an accident of pre-training; without it one rate suits all models.
        return self.classifier(self.dropout(F.layer_norm(features, features.shape[-1:])))

    def ask(self, processor: Processor, questions: Sequence[Question], count: int) -> list[list[Answer]]:
        """Classify images, with the probabilities of the classes."""
        images = processor([question.image for question in questions])[processor.image_key]
        names = [str(row) for row in range(len(questions))]
        batch = ImageBatch(images=images, labels=np.zeros(len(names), np.int64), sample_ids=names)
        return self.best_classes(to_tensors(batch), count)

    def new_metric(self) -> TopAccuracy:
        return TopAccuracy()


class TopAccuracy(Averages):
    """Share of images whose class scores best, `accuracy`, and among the best five, `accuracy_top5`.

    Both are in percent; ties count against the model. Beside them `majority`, the accuracy of always
    predicting the most frequent class. Top 5 is left out with five classes or fewer.
    """

    def __init__(self) -> None:
        super().__init__()
        self._labels: list[int] = []

    def update(self, prediction: Mapping[str, Any], batch: Batch) -> None:
        """Rank the right class of each sample of a batch by `prediction["logits"]` [B, classes]."""
        logits, labels = prediction["logits"].astype("float32"), batch.labels
        right = paddle.take_along_axis(logits, labels.unsqueeze(1), axis=1)
        # Counted from below, so that NaN is a miss.
        above = (logits.shape[1] - 1 - (logits < right).astype("int64").sum(axis=1)).tolist()
        self._labels += labels.tolist()
        self.add("accuracy", 100.0 * sum(rank < 1 for rank in above), len(above))
        if logits.shape[1] > TOP:
            self.add("accuracy_top5", 100.0 * sum(rank < TOP for rank in above), len(above))

    def compute(self) -> dict[str, float]:
        labels = [label for part in gather_objects(self._labels) for label in part]
        return super().compute() | ({"majority": majority(labels)} if labels else {})


def class_names(run: RunConfig, split: str = "train") -> list[str]:
    """Return the classes of all corpora of `data.path`, in first-seen order.

    Raises:
        DataError: a corpus cannot be opened.
    """
    opened = (open_labeled_images(corpus, split, run.data) for corpus in run.data.path)
    names = list(dict.fromkeys(name for dataset in opened for name in dataset.class_names))
    if len(names) < 2:
        raise DataError(f"image classification needs at least 2 classes; found: {', '.join(names)}")
    return names


TASK = ImageClassificationTask
