"""Classification of texts and pairs of texts (SST-2, MNLI, CoLA), and regression on pairs (STS-B).

The model reads the text alone: grounded tokens come from it, and no image takes part (UNIMO-2, section 3.3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from paddle import Tensor, nn
from paddle.nn import functional as F

from unimo.data.loading.task_data import TaskData
from unimo.data.readers.glue import TASKS, GlueName
from unimo.data.readers.open_glue import open_glue
from unimo.data.record import Record
from unimo.errors import ConfigError
from unimo.losses.reduce import global_mean
from unimo.metrics import glue
from unimo.metrics.average import gather_objects
from unimo.models.base import Model
from unimo.nn.init import linear
from unimo.tasks.base import Answer, Batch, Question, Task, ranked, to_tensors
from unimo.tasks.classification.batches import NO_LABEL, TextCollator

if TYPE_CHECKING:
    from unimo.data.processor import Processor
    from unimo.settings import RunConfig


@dataclass(frozen=True)
class TextClassificationConfig:
    """Fields of the task section of a text classification run."""

    name: str = "text_classification"
    dataset: GlueName = "sst2"
    """Whose files, classes and metric: sst2, mnli, cola or stsb."""
    head_dropout: float = 0.1
    """On the pooled vector, before the classifier."""


class TextClassificationTask(Task):
    """Pooled vector of a text -> classes by cross-entropy, or one score by squared error."""

    Config = TextClassificationConfig
    reads_images = False

    asked_with = "text"
    needs = frozenset({"text_only"})

    def __init__(
        self, model: Model, config: TextClassificationConfig, metadata: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(model, config, metadata)
        self.classes = TASKS[config.dataset].class_names
        self.dropout = nn.Dropout(config.head_dropout)
        self.classifier = linear(model.hidden_size, len(self.classes) or 1)
        self.freeze_unused(text=True, image=False)

    @classmethod
    def open_data(
        cls, run: RunConfig, processor: Processor, metadata: Mapping[str, Any] | None = None
    ) -> TaskData:
        """Open the sentences of `data.path`, read as `task.dataset` says."""
        dataset = run.task.dataset
        classes = TASKS[dataset].class_names
        return TaskData(
            corpora=run.data.path,
            open_split=lambda corpus, split: open_glue(corpus, split, run.data, dataset),
            processor=processor,
            collator=lambda train: TextCollator(processor, len(classes), train),
            metadata={"classes": list(classes)},
        )

    def logits(self, batch: Batch) -> Tensor:
        """Class logits [B, classes]; for regression the scores [B, 1], in the units of the files."""
        text = self.model.encode_text(batch.input_ids, batch.attention_mask)
        return self.classifier(self.dropout(self.model.fuse(text, None, outputs="pooled").pooled))

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Cross-entropy (report: accuracy, percent) or squared error, mean over samples."""
        logits = self.logits(batch).astype("float32")
        if not self.classes:
            loss = F.mse_loss(logits.squeeze(1), batch.scores, reduction="sum")
            return {"regression": global_mean(loss, logits.shape[0])}, {}
        labels = batch.labels
        loss = F.cross_entropy(logits, labels, reduction="sum")
        accuracy = (logits.argmax(axis=1) == labels).astype("float32").mean()
        return {"classification": global_mean(loss, logits.shape[0])}, {"accuracy": 100 * accuracy}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The one loss."""
        return losses["classification" if self.classes else "regression"]

    def predict(self, batch: Batch) -> dict[str, Any]:
        """`logits`, `guesses` [B] (classes or scores), and one record a sample with its label or score."""
        logits = self.logits(batch)
        guesses = logits.argmax(axis=1) if self.classes else logits.squeeze(1)
        key = "label" if self.classes else "score"
        names = [self.classes[guess] if self.classes else round(guess, 4) for guess in guesses.tolist()]
        rows = zip(batch.sample_ids, names, strict=True)
        records = [{"sample_id": sample, key: name} for sample, name in rows]
        return {"logits": logits, "guesses": guesses, "records": records}

    def ask(self, processor: Processor, questions: Sequence[Question], count: int) -> list[list[Answer]]:
        """Classify sentences, or pairs of them; for regression the one answer is the similarity in [0, 1].

        Raises:
            ConfigError: one sentence for a classifier of pairs, or two for one of single sentences.
            RecordError: a text is empty.
        """
        glue = TASKS[self.config.dataset]
        for question in questions:
            given = 1 + (question.text_pair is not None)
            if given != len(glue.texts):
                raise ConfigError(f"{self.config.dataset} has {len(glue.texts)} text(s), found {given}")
        collator = TextCollator(processor, len(glue.class_names), train=False)
        rng = np.random.default_rng(0)
        records = [
            Record(str(row), "", text=question.text, text_pair=question.text_pair)
            for row, question in enumerate(questions)
        ]
        batch = to_tensors(collator.collate([collator.prepare(record, rng) for record in records], rng))
        logits = self.logits(batch)
        if not self.classes:
            return [[Answer("similarity", value / glue.max_score)] for value in logits.squeeze(1).tolist()]
        return ranked(self.classes, F.softmax(logits, axis=1), count)

    def new_metric(self) -> GlueMetric:
        """The metrics that GLUE uses for the data set."""
        return GlueMetric(self.config.dataset)


class GlueMetric:
    """The data set's own metric over samples that have a label, in percent.

    `accuracy` and `majority` (accuracy of the most frequent label) for SST-2, for MNLI also
    `accuracy/matched` and `accuracy/mismatched`; `matthews` and both of them for CoLA; `pearson`, `spearman`
    and their mean `correlation` for STS-B. Nothing when no sample has a label (GLUE's test files).
    """

    def __init__(self, dataset: GlueName) -> None:
        self._dataset = dataset
        self._rows: list[tuple[float, float, str]] = []

    def update(self, prediction: Mapping[str, Any], batch: Batch) -> None:
        """Take guesses, truths and parts of one batch."""
        truths = (batch.scores if batch.labels is None else batch.labels).tolist()
        for row in zip(prediction["guesses"].tolist(), truths, batch.parts, strict=True):
            if row[1] != NO_LABEL and not math.isnan(row[1]):
                self._rows.append(row)

    def compute(self) -> dict[str, float]:
        """The scores, over all ranks."""
        rows = [row for rows in gather_objects(self._rows) for row in rows]
        if not rows:
            return {}
        guesses, truths = (np.array(column) for column in list(zip(*rows, strict=True))[:2])
        return _SCORES[self._dataset](guesses, truths) | {
            f"accuracy/{part}": glue.accuracy(*_of_part(rows, part))
            for part in sorted({r[2] for r in rows} - {""})
        }


def _of_part(rows: list[tuple[float, float, str]], part: str) -> tuple[list[float], list[float]]:
    return [row[0] for row in rows if row[2] == part], [row[1] for row in rows if row[2] == part]


def _accuracies(guesses: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {"accuracy": glue.accuracy(guesses, labels), "majority": glue.majority(labels)}


def _acceptability(guesses: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {"matthews": glue.matthews(guesses, labels), **_accuracies(guesses, labels)}


def _correlations(guesses: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    both = glue.pearson(guesses, scores), glue.spearman(guesses, scores)
    return {"pearson": both[0], "spearman": both[1], "correlation": sum(both) / 2}


_SCORES: dict[GlueName, Callable[[np.ndarray, np.ndarray], dict[str, float]]] = {
    "sst2": _accuracies,
    "mnli": _accuracies,
    "cola": _acceptability,
    "stsb": _correlations,
}


TASK = TextClassificationTask
