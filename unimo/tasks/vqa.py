"""Visual question answering as classification over a fixed list of answers, with soft targets."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import paddle
from paddle import Tensor
from paddle.nn import functional as F

from unimo.data.loading.batch import Array, PairBatch, PairCollator, Prepared
from unimo.data.loading.task_data import TaskData, corpus_data
from unimo.data.processor import Processor
from unimo.data.readers.answer_table import common_form
from unimo.data.readers.answers import check_classes
from unimo.data.readers.base import Dataset, Kind
from unimo.data.readers.open import open_answers
from unimo.data.record import Record
from unimo.errors import CheckpointError, ConfigError, RecordError
from unimo.files import write_text
from unimo.losses.reduce import global_mean
from unimo.metrics.average import gather_objects
from unimo.metrics.vqa import accuracy_by_type
from unimo.models.base import Model
from unimo.nn.heads import AnswerHead, ClassifierHead
from unimo.ranges import Positive, Size
from unimo.settings import RunConfig
from unimo.tasks.base import Answer, Batch, Metadata, Metric, Question, Task, asked_pairs, ranked
from unimo.weights.name_map import Tensors

AnswerHeadName = Literal["mlp", "pretrained"]
_PRETRAINED = "objective.answer_head."
"""Prefix of the head of answers in the weights of pre-training."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VqaConfig:
    """Fields of the task section of a VQA run."""

    name: str = "vqa"
    head_hidden_multiplier: Positive = 2.0
    """Hidden width of the classifier in units of the model width H: METER 2, BridgeTower 4."""
    head: AnswerHeadName = "mlp"
    """`mlp`: METER's. `pretrained`: LXMERT's and StructVBERT's, which starts from the head of pre-training on
    questions, in the last layer for the answers that both know; others start at random."""
    min_answer_count: Size = 1
    """Training questions that an answer needs to become a class; for data without a list of answers."""


class VqaTask(Task):
    """Pooled vector of question and image -> one logit for each answer; binary cross-entropy."""

    Config = VqaConfig
    kind: ClassVar[Kind] = "vqa"
    """Kind of the records."""
    row_keys: ClassVar[tuple[str, str]] = ("question_id", "answer")
    """Keys of a row of the server file."""
    asked_with = "question"
    published_data = "VQA v2"
    needs = frozenset({"fusion"})
    paper_selection = "val"

    def __init__(self, model: Model, config: VqaConfig, metadata: Mapping[str, Any]) -> None:
        super().__init__(model, config, metadata)
        if not metadata.get("answers"):
            raise CheckpointError(
                f"{config.name} needs the list of answers; metadata.answers is missing or empty"
            )
        self.answers = check_classes(metadata["answers"], "metadata.answers", CheckpointError)
        hidden = int(config.head_hidden_multiplier * model.hidden_size)
        pretrained = config.head == "pretrained"
        head = AnswerHead if pretrained else ClassifierHead
        self.classifier = head(model.pooled_size, hidden, len(self.answers))
        self.head_aliases = {"classifier.": _PRETRAINED} if pretrained else {}
        self.freeze_unused(text=True, image=True)

    @classmethod
    def open_data(cls, run: RunConfig, processor: Processor, metadata: Metadata = None) -> TaskData:
        """Open the questions of `data.path`, with the answers of an existing model or of the corpora."""
        answers = (metadata or {}).get("answers")
        if answers is None:
            lists = (open_answers(corpus, run.data) for corpus in run.data.path)
            answers = cls.choose_classes(run, processor, list(dict.fromkeys(itertools.chain(*lists))))
        data = corpus_data(
            run, run.data.path, cls.kind, processor, lambda train: cls.collator(processor, answers, train)
        )
        data.metadata["answers"] = list(answers)
        return data

    @classmethod
    def choose_classes(cls, run: RunConfig, processor: Processor, answers: list[str]) -> list[str]:
        """Return which answers of the corpora become classes, in their order."""
        if run.task.min_answer_count == 1:
            return answers
        whole = corpus_data(run, run.data.path, cls.kind, processor, lambda train: None)
        trained = whole.train_datasets(run.data.train_split)
        return frequent_answers(trained, answers, run.task.min_answer_count)

    def fit_heads(self, tensors: Tensors, metadata: Mapping[str, Any]) -> Tensors:
        """Return the weights with the last layer of the head of pre-training for the answers of this task
        (LXMERT's code): those that it knows, by `common_form`, have its weights, the others a random start.

        Weights without such a head, or with one whose answers are not noted, are returned without the layer.
        """
        if not self.head_aliases:
            return tensors
        known = {answer: place for place, answer in enumerate(metadata.get("answers") or ())}
        pairs = [
            (row, known[form]) for row, one in enumerate(self.answers) if (form := common_form(one)) in known
        ]
        rows, places = (list(column) for column in zip(*pairs, strict=True)) if pairs else ([], [])
        fitted = dict(tensors)
        for name, parameter in self.classifier.out.named_parameters():
            found = fitted.pop(key := f"{_PRETRAINED}out.{name}", None)
            value = parameter.numpy()
            if rows and found is not None and found.shape == (*value.shape[:-1], len(known)):
                value[..., rows] = found[..., places]
                fitted[key] = value
        count = len(rows) if f"{_PRETRAINED}out.weight" in fitted else 0
        logger.info(
            "classifier: %d answers start from those of pre-training, %d at random",
            count,
            len(self.answers) - count,
        )
        return fitted

    @classmethod
    def collator(cls, processor: Processor, answers: Sequence[str], train: bool) -> PairCollator:
        """Make the collator of questions with these classes."""
        return VqaCollator(processor, answers, train)

    def logits(self, batch: Batch) -> Tensor:
        """Compute answer logits [B, A]."""
        text = self.model.encode_text(batch.input_ids, batch.attention_mask)
        image = self.model.encode_image(batch.images)
        return self.classifier(self.model.fuse(text, image, outputs="pooled").pooled)

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute the binary cross-entropy, summed over answers, mean over questions; report the accuracy."""
        logits, targets = self.logits(batch), batch.answer_targets
        loss = F.binary_cross_entropy_with_logits(logits.astype("float32"), targets, reduction="sum")
        accuracy = paddle.take_along_axis(targets, logits.argmax(axis=1, keepdim=True), axis=1).mean()
        return {"vqa": global_mean(loss, logits.shape[0])}, {"accuracy": 100 * accuracy}

    def predict(self, batch: Batch) -> dict[str, Any]:
        """Compute `logits` [B, A] and `answer_ids` [B]; records are rows of the official server file."""
        logits = self.logits(batch)
        best = logits.argmax(axis=1)
        rows = zip(batch.question_ids, best.tolist(), strict=True)
        records = [dict(zip(self.row_keys, (key, self.answers[row]), strict=True)) for key, row in rows]
        return {"logits": logits, "answer_ids": best, "records": records}

    @classmethod
    def write_records(cls, path: Path, records: Sequence[Mapping[str, Any]]) -> None:
        """Write the file that the server of the data set accepts: a list of rows, sorted by question.

        The first answer to a question counts; a padded last batch repeats questions.
        """
        rows: dict[int | str, Mapping[str, Any]] = {}
        for row in records:
            rows.setdefault(row[cls.row_keys[0]], row)
        order = sorted(rows, key=lambda key: (isinstance(key, str), key))
        write_text(path, json.dumps([rows[key] for key in order], ensure_ascii=False))

    def ask(self, processor: Processor, questions: Sequence[Question], count: int) -> list[list[Answer]]:
        """Answer questions about images. Probabilities are sigmoids of logits and do not sum to 1."""
        return ranked(self.answers, F.sigmoid(self.logits(asked_pairs(processor, questions))), count)

    def new_metric(self) -> VqaAccuracy:
        return VqaAccuracy()


class VqaAccuracy(Metric):
    """Mean target score of the chosen answers in percent: `overall`, and an entry for each question type.

    Questions without any answer, as in test, do not count; there are no scores if all are so.
    """

    def __init__(self) -> None:
        self._scores: list[float] = []
        self._types: list[str] = []

    def update(self, prediction: Mapping[str, Any], batch: Batch) -> None:
        chosen = paddle.take_along_axis(batch.answer_targets, prediction["answer_ids"].unsqueeze(1), axis=1)
        for score, kind in zip(chosen.flatten().tolist(), batch.question_types, strict=True):
            if not math.isnan(score):
                self._scores.append(score)
                self._types.append(kind)

    def compute(self) -> dict[str, float]:
        parts = gather_objects((self._scores, self._types))
        scores, types = (sum(lists, []) for lists in zip(*parts, strict=True))
        return accuracy_by_type(scores, types)


def frequent_answers(datasets: Mapping[str, Dataset], answers: Sequence[str], minimum: int) -> list[str]:
    """Return the answers that at least `minimum` training questions have, in their order.

    Raises:
        ConfigError: there are none.
    """
    counts: Counter[str] = Counter()
    for dataset in datasets.values():
        for index in range(len(dataset)):
            with contextlib.suppress(RecordError):
                counts.update(dataset[index].answer_scores.keys())
    kept = [answer for answer in answers if counts[answer] >= minimum]
    if not kept:
        most = max(counts.values(), default=0)
        raise ConfigError(
            f"no answer has task.min_answer_count={minimum} questions; the most frequent: {most}"
        )
    return kept


@dataclass(kw_only=True)
class VqaBatch(PairBatch):
    """Questions about images."""

    answer_targets: Array
    """[B, A] float32 soft scores of the A answers; NaN for a question without answers, as in test."""
    question_ids: list[int | str | None]
    question_types: list[str]
    """Names under which accuracy is broken down."""


class VqaCollator(PairCollator):
    """Make a `VqaBatch`; in training, questions without answers are broken records.

    Args:
        answers: the A answers, in the order of the classifier's outputs.
    """

    def __init__(self, processor: Processor, answers: Sequence[str], train: bool) -> None:
        super().__init__(processor, train)
        self.columns = {answer: column for column, answer in enumerate(answers)}

    def prepare(self, record: Record, rng: np.random.Generator) -> Prepared:
        if self.train and not record.answer_scores:
            raise RecordError(f"sample {record.sample_id} has no answers to learn from")
        return super().prepare(record, rng)

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> VqaBatch:
        """Join prepared samples; targets leave out answers that are no classes."""
        records = [sample["record"] for sample in prepared]
        targets = np.zeros((len(records), len(self.columns)), np.float32)
        for row, record in enumerate(records):
            if not record.answer_scores:
                targets[row] = np.nan
            for answer, score in record.answer_scores.items():
                if answer in self.columns:
                    targets[row, self.columns[answer]] = score
        return VqaBatch(
            **self.join(prepared),
            answer_targets=targets,
            question_ids=[record.question_id for record in records],
            question_types=[record.question_type for record in records],
        )


TASK = VqaTask
