"""A task of its own, for the test of the door: is a caption long?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from paddle import Tensor
from paddle.nn import functional as F

from unimo.data.loading.batch import Array, PairBatch, PairCollator, Prepared
from unimo.data.loading.task_data import TaskData, corpus_data
from unimo.losses.reduce import global_mean
from unimo.metrics.average import Averages
from unimo.models.base import Model
from unimo.nn.init import linear
from unimo.tasks.base import Answer, Question, Task, asked_pairs, ranked

NAMES = ("short", "long")


@dataclass(frozen=True)
class LengthConfig:
    """Task section."""

    name: str = "length"
    words: int = 8
    """A caption of more words is long."""


@dataclass(kw_only=True)
class LengthBatch(PairBatch):
    """Captions, and whether they are long."""

    labels: Array
    """[B] int64, 1 = long."""


class LengthCollator(PairCollator):
    """Make a `LengthBatch`."""

    def __init__(self, processor: Any, train: bool, words: int) -> None:
        super().__init__(processor, train)
        self.words = words

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> LengthBatch:
        lengths = [len(sample["record"].text.split()) for sample in prepared]
        labels = np.array([length > self.words for length in lengths], np.int64)
        return LengthBatch(**self.join(prepared), labels=labels)


class LengthTask(Task):
    """Pooled vector of a pair -> short or long."""

    Config = LengthConfig
    needs = frozenset({"fusion"})
    asked_with = "text"

    def __init__(self, model: Model, config: LengthConfig, metadata: Any = None) -> None:
        super().__init__(model, config, metadata)
        self.classifier = linear(model.pooled_size, 2)
        self.freeze_unused(text=True, image=True)

    @classmethod
    def open_data(cls, run: Any, processor: Any, metadata: Any = None) -> TaskData:
        def collator(train: bool) -> LengthCollator:
            return LengthCollator(processor, train, run.task.words)

        return corpus_data(run, run.data.path, "pairs", processor, collator)

    def logits(self, batch: PairBatch) -> Tensor:
        text = self.model.encode_text(batch.input_ids, batch.attention_mask)
        pooled = self.model.fuse(text, self.model.encode_image(batch.images), outputs="pooled").pooled
        return self.classifier(pooled)

    def losses(self, batch: LengthBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        loss = F.cross_entropy(self.logits(batch), batch.labels, reduction="sum")
        return {"length": global_mean(loss, batch.labels.shape[0])}, {}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        return losses["length"]

    def predict(self, batch: LengthBatch) -> dict[str, Any]:
        best = self.logits(batch).argmax(axis=1)
        rows = zip(batch.sample_ids, best.tolist(), strict=True)
        return {"best": best, "records": [{"sample_id": key, "length": NAMES[row]} for key, row in rows]}

    def ask(self, processor: Any, questions: Sequence[Question], count: int) -> list[list[Answer]]:
        return ranked(NAMES, F.softmax(self.logits(asked_pairs(processor, questions)), axis=1), count)

    def new_metric(self) -> LengthAccuracy:
        return LengthAccuracy()


class LengthAccuracy:
    """Share of captions judged right, percent."""

    def __init__(self) -> None:
        self._averages = Averages()

    def update(self, prediction: Mapping[str, Any], batch: LengthBatch) -> None:
        for guess, label in zip(prediction["best"].tolist(), batch.labels.tolist(), strict=True):
            self._averages.add("accuracy", 100.0 * (guess == label))

    def compute(self) -> dict[str, float]:
        return self._averages.compute()


TASK = LengthTask
