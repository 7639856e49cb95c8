"""Visual entailment (SNLI-VE): does the sentence follow from the image? Three classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from paddle import Tensor

from unimo.data.loading.batch import Array, PairBatch, PairCollator, Prepared
from unimo.data.loading.task_data import TaskData, corpus_data
from unimo.data.processor import Processor
from unimo.data.record import Record
from unimo.metrics.average import Averages
from unimo.models.base import Model
from unimo.nn.heads import ClassifierHead, LinearHead
from unimo.ranges import Dropout, Positive
from unimo.settings import RunConfig
from unimo.tasks.adversarial import AdversarialConfig, shown, task_losses, task_total
from unimo.tasks.base import Answer, Batch, Metadata, Question, asked_pairs
from unimo.tasks.classification.batches import check_label
from unimo.tasks.classifier import ClassifierTask

LABELS = ("contradiction", "neutral", "entailment")
"""Names of the labels 0, 1 and 2."""


@dataclass(frozen=True)
class EntailmentConfig:
    """Fields of the task section of a visual entailment run."""

    name: str = "entailment"
    head_hidden_multiplier: Positive = 2.0
    """Hidden width of the classifier in units of the model width H: METER 2, BridgeTower 4."""
    head: Literal["mlp", "linear"] = "mlp"
    """mlp: LayerNorm and GELU between two linear layers; linear: dropout alone, as in UNIMO's release."""
    head_dropout: Dropout = 0.1
    """Dropout of the `linear` head."""
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    """Adversarial training, for models that read regions."""


class EntailmentTask(ClassifierTask):
    """Pooled vector of sentence and image -> contradiction, neutral or entailment; cross-entropy."""

    Config = EntailmentConfig
    classes = LABELS
    asked_with = "text"
    published_data = "SNLI-VE"
    needs = frozenset({"fusion"})

    def __init__(self, model: Model, config: EntailmentConfig, metadata: Metadata = None) -> None:
        super().__init__(model, config, metadata)
        config.adversarial.check(model, config.name)
        hidden = round(config.head_hidden_multiplier * model.hidden_size)
        sizes = (model.pooled_size, hidden, len(LABELS))
        if config.head == "linear":
            self.classifier = LinearHead(*sizes, dropout=config.head_dropout)
        else:
            self.classifier = ClassifierHead(*sizes)
        self.freeze_unused(text=True, image=True)

    @classmethod
    def open_data(cls, run: RunConfig, processor: Processor, metadata: Metadata = None) -> TaskData:
        """Open the labelled sentences of `data.path`."""
        return corpus_data(
            run, run.data.path, "entailment", processor, lambda train: EntailmentCollator(processor, train)
        )

    def logits(self, batch: Batch, *, text: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """Compute class logits [B, 3] of a batch, whose inputs adversarial training may perturb."""
        moved = {} if text is None else {"delta": text}
        tokens = self.model.encode_text(batch.input_ids, batch.attention_mask, **moved)
        picture = self.model.encode_image(shown(batch.images, image))
        return self.classifier(self.model.fuse(tokens, picture, outputs="pooled").pooled)

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute the cross-entropy, and the further terms of adversarial training; report the accuracy."""

        def forward(*, text: Tensor | None = None, image: Tensor | None = None) -> tuple[Tensor, Tensor]:
            logits = self.logits(batch, text=text, image=image)
            return logits, self.cross_entropy(logits, batch)

        losses, logits = task_losses(self.config.name, forward, self.model, batch, self.config.adversarial)
        return losses, self.accuracy(logits, batch)

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        return task_total(self.config.name, losses, self.config.adversarial)

    def ask(self, processor: Processor, questions: Sequence[Question], count: int) -> list[list[Answer]]:
        """Judge whether sentences follow from images, with the probabilities of the labels."""
        return self.best_classes(asked_pairs(processor, questions), count)

    def new_metric(self) -> EntailmentAccuracy:
        return EntailmentAccuracy()


class EntailmentAccuracy(Averages):
    """Share of right labels in percent: `accuracy`, and `accuracy/<label>` among samples of that label."""

    def update(self, prediction: Mapping[str, Any], batch: Batch) -> None:
        """Count the hits of one batch."""
        for guess, label in zip(prediction["guesses"].tolist(), batch.labels.tolist(), strict=True):
            for name in ("accuracy", f"accuracy/{LABELS[label]}"):
                self.add(name, 100.0 * (guess == label))


@dataclass(kw_only=True)
class EntailmentBatch(PairBatch):
    """Sentences about images."""

    labels: Array
    """[B] int64, indices of `LABELS`."""


class EntailmentCollator(PairCollator):
    """Make an `EntailmentBatch`; records without one of the three labels are broken."""

    def prepare(self, record: Record, rng: np.random.Generator) -> Prepared:
        check_label(record, len(LABELS))
        return super().prepare(record, rng)

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> EntailmentBatch:
        labels = np.array([sample["record"].label for sample in prepared], np.int64)
        return EntailmentBatch(**self.join(prepared), labels=labels)


TASK = EntailmentTask
