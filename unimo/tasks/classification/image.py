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
from unimo.errors import CheckpointError, ConfigError, DataError
from unimo.losses.reduce import global_mean
from unimo.metrics.average import Averages, gather_objects
from unimo.metrics.glue import majority
from unimo.models.base import Model
from unimo.nn.init import linear
from unimo.nn.kernels import LayerNorm
from unimo.ranges import Dropout, NonNegative
from unimo.registry import require
from unimo.settings import CorpusConfig, RunConfig
from unimo.tasks.base import Answer, Batch, Metadata, Question, to_tensors
from unimo.tasks.classification.batches import ImageBatch, ImageCollator
from unimo.tasks.classification.mixing import Mixing
from unimo.tasks.classifier import ClassifierTask
from unimo.weights.name_map import Tensors

TOP = 5
NORM_EPSILON = 1e-6
"""Epsilon of the norms of BEiT."""


@dataclass(frozen=True)
class ImageClassificationConfig:
    """Fields of the task section of an image classification run."""

    name: str = "image_classification"
    protocol: Literal["finetune", "linear", "reference"] = "finetune"
    """finetune: model and classifier learn. linear: the classifier alone; the model stays as it is and runs
    without dropout. reference: the model alone; the classifier stays at its random start, as in the code of
    BridgeTower that its figures for CIFAR, and those of UNIMO-3 (Table 4), come from."""
    pooling: Literal["model", "mean"] = "model"
    """Vector that is classified. model: the model's own of an image alone (`Model.image_alone`). mean: the
    mean of the patches after the last layer, by a norm of its own, as in BEiT (section 2.6)."""
    head_dropout: Dropout = 0.0
    """Dropout of that vector, before the classifier."""
    head_std: NonNegative = 0.02
    """Standard deviation that the classifier starts with."""
    label_smoothing: Dropout = 0.0
    """Share of the target that is spread evenly over all classes."""
    mixup: NonNegative = 0.0
    """Alpha of mixup in training, 0 without (`mixing.py`). With cutmix too, each batch is of one kind."""
    cutmix: NonNegative = 0.0
    """Alpha of cutmix in training, 0 without."""

    @property
    def mixing(self) -> Mixing:
        """How images are mixed in training."""
        return Mixing(self.mixup, self.cutmix)


class ImageClassificationTask(ClassifierTask):
    """Pooled vector of an image -> classes; one linear layer, cross-entropy.

    Parameters: `classifier`; with pooling `mean`, unless the classifier alone learns, `norm`.
    """

    Config = ImageClassificationConfig
    asked_with = "image"
    published_data = "CIFAR-10, CIFAR-100, ImageNet-1k"
    needs = frozenset({"image_alone"})
    paper_selection = "test"

    def __init__(self, model: Model, config: ImageClassificationConfig, metadata: Mapping[str, Any]) -> None:
        super().__init__(model, config, metadata)
        if not metadata.get("classes"):
            raise CheckpointError(
                "image classification needs the list of classes; metadata.classes is missing or empty"
            )
        self.classes = list(metadata["classes"])
        self.dropout = nn.Dropout(config.head_dropout)
        width, self.norm = model.alone_sizes[1], None
        if config.pooling == "mean":
            require(model.config.name, {"pixels"}, f"{config.name}, task.pooling=mean,")
            self.layers, width = model.map_sizes
            self.norm = LayerNorm(width, NORM_EPSILON) if config.protocol != "linear" else None
            for name, parameter in model.named_parameters():
                parameter.stop_gradient |= not model.is_mapped(name, self.layers)
        else:
            self.freeze_unused(text=False, image=True)
        self.classifier = linear(width, len(self.classes), config.head_std)
        fixed = {"finetune": None, "linear": model, "reference": self.classifier}[config.protocol]
        for parameter in fixed.parameters() if fixed else ():
            parameter.stop_gradient = True

    @classmethod
    def open_data(cls, run: RunConfig, processor: Processor, metadata: Metadata = None) -> TaskData:
        """Open the labelled images of `data.path`, with the classes of an existing model or of their own."""
        mixing = run.task.mixing
        if mixing.alphas and processor.config.regions:
            raise ConfigError(
                "task.mixup and task.cutmix mix pixels, this model reads regions; set both to 0"
            )
        classes = (metadata or {}).get("classes") or class_names(run)

        def open_split(corpus: CorpusConfig, split: str) -> Dataset:
            return relabel(open_labeled_images(corpus, split, run.data), classes)

        return TaskData(
            corpora=run.data.path,
            open_split=open_split,
            processor=processor,
            collator=lambda train: ImageCollator(processor, len(classes), train, mixing),
            metadata={"classes": list(classes)},
        )

    def train(self) -> None:
        """Switch to training mode; a probed model stays in evaluation mode."""
        super().train()
        if self.config.protocol == "linear":
            self.model.eval()

    def features(self, batch: Batch) -> Tensor:
        """Compute the vectors [B, D] of images."""
        if self.config.pooling == "model":
            return self.model.image_alone(batch.images)
        (patches,) = self.model.image_maps(batch.images, [self.layers])
        mean = patches.mean(axis=[2, 3])
        return mean if self.norm is None else self.norm(mean)

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute the cross-entropy; report the accuracy in percent, unless images are mixed."""
        losses, report = super().losses(batch)
        return losses, {} if self.config.mixing.alphas else report

    def cross_entropy(self, logits: Tensor, batch: Batch) -> Tensor:
        """Compute the cross-entropy with soft targets, a mean over the samples of all ranks.

        With smoothing e, share s and C classes the target is (1 - e) s on the own class, (1 - e) (1 - s) on
        that of the image it is mixed with, and e / C on every class.
        """
        logits, smoothing = logits.astype("float32"), self.config.label_smoothing
        loss = F.cross_entropy(logits, batch.labels, reduction="sum")
        if batch.share < 1:
            other = F.cross_entropy(logits, batch.labels.flip(0), reduction="sum")
            loss = batch.share * loss + (1 - batch.share) * other
        if smoothing:
            loss = (1 - smoothing) * loss - smoothing * F.log_softmax(logits, axis=1).mean(axis=1).sum()
        return global_mean(loss, logits.shape[0])

    def fit_heads(self, tensors: Tensors, metadata: Mapping[str, Any]) -> Tensors:
        """Return the weights without a classifier into other classes, or into the same in another order."""
        if list(metadata.get("classes") or ()) == self.classes:
            return tensors
        return {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier.")}

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
