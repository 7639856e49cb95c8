"""Visual entailment (SNLI-VE): does the sentence follow from the image? Three classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from paddle import Tensor
from paddle.nn import functional as F

from unimo.data.loading.batch import Array, PairBatch
from unimo.data.loading.collate import PairCollator, Prepared
from unimo.data.loading.task_data import TaskData, corpus_data
from unimo.data.processor import Processor
from unimo.data.record import Record
from unimo.errors import RecordError
from unimo.losses.reduce import global_mean
from unimo.metrics.average import Averages
from unimo.models.base import Model
from unimo.nn.heads import ClassifierHead, LinearHead
from unimo.tasks.adversarial import AdversarialConfig, shown, task_losses, task_total
from unimo.tasks.base import Answer, Batch, Question, Task, asked_pairs, ranked

if TYPE_CHECKING:
    from unimo.data.processor import Processor
    from unimo.settings import RunConfig

LABELS = ("contradiction", "neutral", "entailment")


@dataclass(frozen=True)
class EntailmentConfig:
    """Fields of the task section of a visual entailment run."""

    name: str = "entailment"
    head_hidden_multiplier: float = 2.0
    """Hidden width of the classifier in units of the model width H: METER 2, BridgeTower 4."""
    head: Literal["mlp", "linear"] = "mlp"
    """mlp: LayerNorm and GELU between two linear layers; linear: dropout alone, as in UNIMO's release."""
    head_dropout: float = 0.1
    """Of the `linear` head."""
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    """Adversarial training, for models that read regions."""


class EntailmentTask(Task):
    """Pooled vector of sentence and image -> contradiction, neutral or entailment; cross-entropy."""

    Config = EntailmentConfig

    asked_with = "text"
    needs = frozenset({"fusion"})

    def __init__(
        self, model: Model, config: EntailmentConfig, metadata: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(model, config, metadata)
        config.adversarial.check(model, config.name)
        hidden = round(config.head_hidden_multiplier * model.hidden_size)
        sizes = (model.pooled_size, hidden, len(LABELS))
        is_linear = config.head == "linear"
        self.classifier = (
            LinearHead(*sizes, dropout=config.head_dropout) if is_linear else ClassifierHead(*sizes)
        )
        self.freeze_unused(text=True, image=True)

    @classmethod
    def open_data(
        cls, run: RunConfig, processor: Processor, metadata: Mapping[str, Any] | None = None
    ) -> TaskData:
        """The labelled sentences of `data.path`."""
        return corpus_data(
            run,
            run.data.path,
            "entailment",
            processor,
            lambda train: EntailmentCollator(processor, train),
        )

    def logits(self, batch: Batch, *, text: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """Class logits [B, 3]; perturbations `text` and `image` as in `unimo/tasks/adversarial.py`."""
        moved = {} if text is None else {"delta": text}
        tokens = self.model.encode_text(batch.input_ids, batch.attention_mask, **moved)
        picture = self.model.encode_image(shown(batch.images, image))
        return self.classifier(self.model.fuse(tokens, picture, outputs="pooled").pooled)

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Cross-entropy, mean over samples, with adversarial training also its terms; report: accuracy."""
        labels = batch.labels

        def forward(*, text: Tensor | None = None, image: Tensor | None = None) -> tuple[Tensor, Tensor]:
            logits = self.logits(batch, text=text, image=image)
            loss = F.cross_entropy(logits.astype("float32"), labels, reduction="sum")
            return logits, global_mean(loss, logits.shape[0])

        losses, logits = task_losses(self.config.name, forward, self.model, batch, self.config.adversarial)
        accuracy = (logits.argmax(axis=1) == labels).astype("float32").mean()
        return losses, {"accuracy": 100 * accuracy}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The task's loss, and what adversarial training adds."""
        return task_total(self.config.name, losses, self.config.adversarial)

    def predict(self, batch: Batch) -> dict[str, Any]:
        """`logits` [B, 3], `label_ids` [B], and one record a sample with its label in words."""
        logits = self.logits(batch)
        best = logits.argmax(axis=1)
        rows = zip(batch.sample_ids, best.tolist(), strict=True)
        records = [{"sample_id": key, "label": LABELS[row]} for key, row in rows]
        return {"logits": logits, "label_ids": best, "records": records}

    def ask(self, processor: Processor, questions: Sequence[Question], count: int) -> list[list[Answer]]:
        """Judge whether sentences follow from images, with the probabilities of the labels."""
        return ranked(LABELS, F.softmax(self.logits(asked_pairs(processor, questions)), axis=1), count)

    def new_metric(self) -> EntailmentAccuracy:
        """Accuracy over all samples and for each class."""
        return EntailmentAccuracy()


class EntailmentAccuracy:
    """Share of right labels, percent: `accuracy`, and `accuracy/<label>` among samples of that label."""

    def __init__(self) -> None:
        self._averages = Averages()

    def update(self, prediction: Mapping[str, Any], batch: Batch) -> None:
        """Count the hits of one batch."""
        for guess, label in zip(prediction["label_ids"].tolist(), batch.labels.tolist(), strict=True):
            for name in ("accuracy", f"accuracy/{LABELS[label]}"):
                self._averages.add(name, 100.0 * (guess == label))

    def compute(self) -> dict[str, float]:
        """The accuracies, over all ranks."""
        return self._averages.compute()


@dataclass(kw_only=True)
class EntailmentBatch(PairBatch):
    """Hypotheses about images."""

    labels: Array
    """[B] int64: contradiction 0, neutral 1, entailment 2."""


class EntailmentCollator(PairCollator):
    """Make an `EntailmentBatch`."""

    num_classes = 3

    def prepare(self, record: Record, rng: np.random.Generator) -> Prepared:
        """As `PairCollator.prepare`.

        Raises:
            RecordError: something is missing or broken, the label included.
        """
        if record.label not in range(self.num_classes):
            raise RecordError(f"sample {record.sample_id} has the label {record.label!r}; expected 0, 1 or 2")
        return super().prepare(record, rng)

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> EntailmentBatch:
        """Join prepared samples."""
        labels = np.array([sample["record"].label for sample in prepared], np.int64)
        return EntailmentBatch(**self.join(prepared), labels=labels)


TASK = EntailmentTask
