"""NLVR2: is a sentence true of a pair of pictures? Two passes, one for each picture.

Swapping the pictures changes the answer in general: the head reads their vectors in order, and models with
two `image_types` also tell the second picture from the first before fusion.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import Tensor

from unimo.data.loading.batch import Array, PairBatch, PairCollator, Prepared, RegionArrays
from unimo.data.loading.task_data import TaskData, corpus_data
from unimo.data.processor import Processor
from unimo.data.readers.answers import TRUTHS
from unimo.data.record import Record
from unimo.errors import ConfigError
from unimo.files import write_text
from unimo.metrics.average import gather_objects
from unimo.models.base import Model
from unimo.nn.heads import ClassifierHead
from unimo.nn.kernels import dropout
from unimo.ranges import Dropout, Positive
from unimo.settings import RunConfig
from unimo.tasks.base import Answer, Batch, Metadata, Metric, Question, asked_pairs
from unimo.tasks.classification.batches import check_label
from unimo.tasks.classifier import ClassifierTask


@dataclass(frozen=True)
class Nlvr2Config:
    """Fields of the task section of an NLVR2 run."""

    name: str = "nlvr2"
    head_hidden_multiplier: Positive = 2.0
    """Hidden width of the classifier in units of the model width H: VLMo and METER 2, BridgeTower 3."""
    head_dropout: Dropout = 0.0
    """Dropout of the pooled vectors before the classifier; BridgeTower 0.1."""


class Nlvr2Task(ClassifierTask):
    """Pooled vectors of the sentence with either picture, concatenated -> false or true; cross-entropy."""

    Config = Nlvr2Config
    classes = TRUTHS
    published_data = "NLVR2"
    asked_with = "text"
    needs = frozenset({"fusion"})
    pictures = 2

    def __init__(self, model: Model, config: Nlvr2Config, metadata: Metadata = None) -> None:
        super().__init__(model, config, metadata)
        if model.image_types == 1:
            raise ConfigError(
                f"{model.config.name} has one type of images, and the second of a pair is of another; set "
                "model.vision.types=2"
            )
        hidden = round(config.head_hidden_multiplier * model.hidden_size)
        self.classifier = ClassifierHead(2 * model.pooled_size, hidden, len(TRUTHS))
        self.freeze_unused(text=True, image=True)

    @classmethod
    def open_data(cls, run: RunConfig, processor: Processor, metadata: Metadata = None) -> TaskData:
        """Open the sentences of `data.path`."""
        return corpus_data(
            run, run.data.path, "nlvr2", processor, lambda train: Nlvr2Collator(processor, train)
        )

    def logits(self, batch: Batch) -> Tensor:
        """Compute logits [B, 2] of false and true. The text is encoded once, for both passes."""
        text = self.model.encode_text(batch.input_ids, batch.attention_mask)
        pooled = [
            self.model.fuse(text, self.model.encode_image(images, second=second), outputs="pooled").pooled
            for images, second in ((batch.images, False), (batch.second_images, True))
        ]
        joined = paddle.concat(pooled, axis=1)
        return self.classifier(dropout(joined, self.config.head_dropout, self.training))

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute the cross-entropy, a mean over samples; report the accuracy in percent."""
        logits = self.logits(batch)
        return {self.config.name: self.cross_entropy(logits, batch)}, self.accuracy(logits, batch)

    def predict(self, batch: Batch) -> dict[str, Any]:
        """Compute `logits` [B, 2] and `guesses` [B]; records are rows of the official file."""
        found = super().predict(batch)
        rows = zip(batch.identifiers, found["guesses"].tolist(), strict=True)
        records = [{"identifier": name, "prediction": TRUTHS[guess]} for name, guess in rows]
        return {**found, "records": records}

    @staticmethod
    def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
        """Write the file that NLVR2's own evaluation reads: lines `identifier,True`, in order."""
        content = io.StringIO()
        rows = [(row["identifier"], row["prediction"]) for row in records]
        csv.writer(content, lineterminator="\n").writerows(rows)
        write_text(path, content.getvalue())

    def ask(self, processor: Processor, questions: Sequence[Question], count: int) -> list[list[Answer]]:
        """Judge sentences about pairs of pictures, with the probabilities of both labels."""
        first, second = (
            asked_pairs(processor, [Question(question.image[side], question.text) for question in questions])
            for side in (0, 1)
        )
        batch = Nlvr2Batch(**vars(first), second_images=second.images, labels=None)
        return self.best_classes(batch, count)

    def new_metric(self) -> Nlvr2Scores:
        return Nlvr2Scores()


class Nlvr2Scores(Metric):
    """`accuracy`, the share of right samples, and `consistency`, that of sentences of which all are right.

    Both in percent. A sentence is about a set of pictures: samples `dev-850-0-1` and `dev-850-3-1` are of one
    sentence. Tables of ViLT do not number sentences, so samples are grouped by the set and the words.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[tuple[str, str], bool]] = []

    def update(self, prediction: Mapping[str, Any], batch: Batch) -> None:
        """Note the samples of one batch."""
        hits = (prediction["guesses"] == batch.labels).tolist()
        self._rows += zip(map(sentence_key, batch.identifiers, batch.sentences), hits, strict=True)

    def compute(self) -> dict[str, float]:
        rows = [row for of_rank in gather_objects(self._rows) for row in of_rank]
        sentences: dict[tuple[str, str], bool] = {}
        for key, is_right in rows:
            sentences[key] = sentences.get(key, True) and is_right
        scores = {"accuracy": [is_right for _, is_right in rows], "consistency": list(sentences.values())}
        return {name: 100.0 * sum(hits) / len(hits) for name, hits in scores.items() if hits}


def sentence_key(identifier: int | str | None, sentence: str) -> tuple[str, str]:
    """Return what samples of one sentence have in common: their set of pictures, if known, and the words.

    Args:
        identifier: `split-set-pair-sentence` in NLVR2; of other data any id, which says no set.
    """
    parts = str(identifier).split("-")
    return "-".join(parts[:2]) if len(parts) == 4 else "", sentence


@dataclass(kw_only=True)
class Nlvr2Batch(PairBatch):
    """Sentences about pairs of pictures; `images` are the first (left) ones."""

    second_images: Array | RegionArrays
    """The second (right) pictures, as `images`."""
    labels: Array | None
    """[B] int64, indices of `TRUTHS`; None for questions to a trained model."""
    identifiers: list[int | str | None] = field(default_factory=list)
    """Names of the samples in NLVR2's own files."""
    sentences: list[str] = field(default_factory=list)


class Nlvr2Collator(PairCollator):
    """Make an `Nlvr2Batch`; records without a label or without two pictures are broken."""

    def prepare(self, record: Record, rng: np.random.Generator) -> Prepared:
        """Decode both pictures, each with randomness of its own, and tokenize the sentence."""
        check_label(record, len(TRUTHS))
        first = super().prepare(record.picture(0), rng)
        second = self.processor.image(record.picture(1), rng, self.train)
        return {**first, "record": record, "second_image": second}

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> Nlvr2Batch:
        records = [sample["record"] for sample in prepared]
        return Nlvr2Batch(
            **self.join(prepared),
            second_images=self.processor.join_images([sample["second_image"] for sample in prepared]),
            labels=np.array([record.label for record in records], np.int64),
            identifiers=[record.question_id for record in records],
            sentences=[record.text for record in records],
        )


TASK = Nlvr2Task
