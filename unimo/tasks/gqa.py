"""GQA: questions about pictures, answered as in VQA, with one right answer each and scores of its own."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from paddle import Tensor

from unimo.data.loading.batch import Array, PairBatch, PairCollator, Prepared
from unimo.data.processor import Processor
from unimo.data.readers.answers import NO_CLASS
from unimo.data.record import Record
from unimo.errors import RecordError, shown
from unimo.metrics.average import gather_objects
from unimo.metrics.gqa import Judged, QuestionFacts, gqa_scores, unasked
from unimo.ranges import Positive
from unimo.settings import RunConfig
from unimo.tasks.base import Batch, Metric
from unimo.tasks.classifier import ClassifierTask
from unimo.tasks.vqa import AnswerHeadName, VqaTask

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GqaConfig:
    """Fields of the task section of a GQA run."""

    name: str = "gqa"
    head_hidden_multiplier: Positive = 2.0
    """Hidden width of the classifier in units of the model width."""
    head: AnswerHeadName = "mlp"
    """As of VQA."""


class GqaTask(VqaTask, ClassifierTask):
    """Pooled vector of question and image -> one logit for each answer; cross-entropy."""

    Config = GqaConfig
    kind = "gqa"
    row_keys = ("questionId", "prediction")
    published_data = "GQA"
    paper_selection = "testdev"
    left_out = ("grounding",)

    @classmethod
    def choose_classes(cls, run: RunConfig, processor: Processor, answers: list[str]) -> list[str]:
        """Return all answers: every question has one, and those of GQA's balanced questions are 1,800."""
        return answers

    @classmethod
    def collator(cls, processor: Processor, answers: Sequence[str], train: bool) -> PairCollator:
        """Make the collator of questions with these classes."""
        return GqaCollator(processor, answers, train)

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute the cross-entropy, a mean over questions; report the accuracy in percent."""
        logits = self.logits(batch)
        return {self.config.name: self.cross_entropy(logits, batch)}, self.accuracy(logits, batch)

    def new_metric(self) -> GqaScores:
        return GqaScores(self.answers)


class GqaScores(Metric):
    """The scores of `unimo.metrics.gqa.gqa_scores`; questions without an answer, as in test, do not count.

    Args:
        answers: names of the classes.
    """

    def __init__(self, answers: Sequence[str]) -> None:
        self._answers, self._judged = answers, list[Judged]()

    def update(self, prediction: Mapping[str, Any], batch: Batch) -> None:
        """Note the questions of one batch."""
        rows = zip(
            batch.question_ids, batch.answers, prediction["answer_ids"].tolist(), batch.facts, strict=True
        )
        self._judged += [
            Judged(str(key), answer, self._answers[given], facts)
            for key, answer, given, facts in rows
            if answer
        ]

    def compute(self) -> dict[str, float]:
        judged = [one for of_rank in gather_objects(self._judged) for one in of_rank]
        every, missing = unasked(judged)
        if missing:
            logger.warning(
                "%d of %d entailed questions are not in this split: consistency leaves them out (GQA's is of "
                "all questions, split val_all)",
                missing,
                every,
            )
        return gqa_scores(judged)


@dataclass(kw_only=True)
class GqaBatch(PairBatch):
    """Questions about images, each with one answer."""

    labels: Array
    """[B] int64, classes of the answers; `NO_CLASS` for others."""
    answers: list[str]
    """Right answers, whether they are classes or not; empty for questions without one, as in test."""
    question_ids: list[int | str | None]
    facts: list[QuestionFacts]
    """Fields of each question that the scores read."""


class GqaCollator(PairCollator):
    """Make a `GqaBatch`; in training, questions whose answer is no class are broken records.

    Of several answers to a question the one with the highest score is right.

    Args:
        answers: names of the classes, in the order of the logits.
    """

    def __init__(self, processor: Processor, answers: Sequence[str], train: bool) -> None:
        super().__init__(processor, train)
        self.columns = {answer: column for column, answer in enumerate(answers)}

    def prepare(self, record: Record, rng: np.random.Generator) -> Prepared:
        if self.train and record.best_answer not in self.columns:
            raise RecordError(
                f"sample {record.sample_id}: the answer {shown(record.best_answer)} is none of the "
                f"{len(self.columns)} classes; leave the question out, or make the list of answers again"
            )
        return super().prepare(record, rng)

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> GqaBatch:
        records = [sample["record"] for sample in prepared]
        labels = [self.columns.get(record.best_answer, NO_CLASS) for record in records]
        return GqaBatch(
            **self.join(prepared),
            labels=np.array(labels, np.int64),
            answers=[record.best_answer for record in records],
            question_ids=[record.question_id for record in records],
            facts=[record.facts for record in records],
        )


TASK = GqaTask
