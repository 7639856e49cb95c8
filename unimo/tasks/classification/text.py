"""Classification of texts and pairs of texts (GLUE), and regression on pairs (STS-B).

The model reads the text alone: grounded tokens come from it, and no image takes part (UNIMO-2, section 3.3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from unimo.data.loading.task_data import TaskData
from unimo.data.processor import Processor
from unimo.data.readers.glue import TASKS, GlueName
from unimo.data.readers.open_glue import open_glue
from unimo.data.record import Record
from unimo.errors import ConfigError
from unimo.files import write_text
from unimo.losses.reduce import global_mean
from unimo.metrics import glue
from unimo.metrics.average import gather_objects
from unimo.models.base import Model
from unimo.models.paper import Paper
from unimo.nn.init import linear
from unimo.ranges import Dropout
from unimo.registry import paper_of
from unimo.settings import RunConfig
from unimo.tasks.base import Answer, Batch, Metadata, Metric, Question, to_tensors
from unimo.tasks.classification.batches import NO_LABEL, TextCollator
from unimo.tasks.classifier import ClassifierTask


@dataclass(frozen=True)
class TextClassificationConfig:
    """Fields of the task section of a text classification run."""

    name: str = "text_classification"
    dataset: GlueName = "sst2"
    """Data set that decides on files, classes and metric: a task of GLUE. SST-2, MNLI, CoLA and STS-B are
    those of UNIMO and UNIMO-2, all but WNLI those of UNIMO-3 (Table 3). `ax` is GLUE's diagnostic set, which
    models of MNLI answer."""
    head: Literal["linear", "dense"] = "linear"
    """linear: the classifier reads the vector of the model, which a pooler made. dense (the default for text
    towers without one): a layer with tanh before it, as RoBERTa's, which BridgeTower's code takes."""
    head_dropout: Dropout = 0.1
    """Dropout of the pooled vector, before the classifier."""


class TextClassificationTask(ClassifierTask):
    """Pooled vector of a text -> classes by cross-entropy, or one score by squared error."""

    Config = TextClassificationConfig
    pictures = 0
    asked_with = "text"
    published_data = "GLUE"
    needs = frozenset({"text_alone"})

    def __init__(self, model: Model, config: TextClassificationConfig, metadata: Metadata = None) -> None:
        super().__init__(model, config, metadata)
        self.classes = TASKS[config.dataset].class_names
        self.dropout = nn.Dropout(config.head_dropout)
        width = model.alone_sizes[0]
        self.dense = linear(width, width) if config.head == "dense" else None
        self.classifier = linear(width, len(self.classes) or 1)
        self.freeze_unused(text=True, image=False)

    @classmethod
    def default_config(cls, paper: Paper) -> TextClassificationConfig:
        """Return the settings of a paper: without pre-training on texts alone there is no pooler for them."""
        return TextClassificationConfig(head="linear" if "text_only" in paper.capabilities else "dense")

    @classmethod
    def open_data(cls, run: RunConfig, processor: Processor, metadata: Metadata = None) -> TaskData:
        """Open the sentences of `data.path`, read as `task.dataset` says."""
        dataset, separators = run.task.dataset, paper_of(run.model.name).pair_separators
        classes = TASKS[dataset].class_names
        return TaskData(
            corpora=run.data.path,
            open_split=lambda corpus, split: open_glue(corpus, split, run.data, dataset),
            processor=processor,
            collator=lambda train: TextCollator(processor, len(classes), train, separators),
            metadata={"classes": list(classes)},
        )

    def logits(self, batch: Batch) -> Tensor:
        """Compute class logits [B, classes]; for regression the scores [B, 1], in the units of the files."""
        vectors = self.dropout(self.model.text_alone(batch.input_ids, batch.attention_mask))
        if self.dense is not None:
            vectors = self.dropout(paddle.tanh(self.dense(vectors)))
        return self.classifier(vectors)

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute the cross-entropy and accuracy, or the squared error, a mean over samples."""
        if self.classes:
            return super().losses(batch)
        logits = self.logits(batch).astype("float32")
        loss = F.mse_loss(logits.squeeze(1), batch.scores, reduction="sum")
        return {"regression": global_mean(loss, logits.shape[0])}, {}

    def predict(self, batch: Batch) -> dict[str, Any]:
        """Predict as all classifiers do; in regression, `guesses` [B] are scores and records name them.

        Records of GLUE's files also have their `index` and, spelled as its server does, the `prediction`.
        """
        dataset = TASKS[self.config.dataset]
        if self.classes:
            found = super().predict(batch)
            spelled = [dataset.classes[guess] for guess in found["guesses"].tolist()]
        else:
            logits = self.logits(batch)
            found = {"logits": logits, "guesses": logits.squeeze(1)}
            scores = found["guesses"].tolist()
            rows = zip(batch.sample_ids, scores, strict=True)
            found["records"] = [{"sample_id": key, "score": round(score, 4)} for key, score in rows]
            spelled = [f"{min(max(score, 0.0), dataset.max_score):.3f}" for score in scores]
        for record, index, text in zip(found["records"], batch.question_ids, spelled, strict=True):
            if index is not None:
                record |= {"index": index, "prediction": text}
        return found

    @staticmethod
    def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
        """Write a JSON list, or, if the name of the file ends in `.tsv`, the file that GLUE's server takes.

        Raises:
            ConfigError: the server cannot take the samples: they are not all of one file.
        """
        if path.suffix == ".tsv":
            write_text(path, server_file(records))
        else:
            ClassifierTask.write_records(path, records)

    def ask(self, processor: Processor, questions: Sequence[Question], count: int) -> list[list[Answer]]:
        """Classify sentences, or pairs of them; in regression the one answer is the similarity in [0, 1].

        Raises:
            ConfigError: one sentence for a classifier of pairs, or two for one of single sentences.
            RecordError: a text is empty.
        """
        dataset = TASKS[self.config.dataset]
        for question in questions:
            given = 1 + (question.text_pair is not None)
            if given != len(dataset.texts):
                raise ConfigError(f"{self.config.dataset} has {len(dataset.texts)} text(s), found {given}")
        separators = paper_of(self.model.config.name).pair_separators
        collator = TextCollator(processor, len(self.classes), False, separators)
        rng = np.random.default_rng(0)
        records = [
            Record(str(row), "", text=question.text, text_pair=question.text_pair)
            for row, question in enumerate(questions)
        ]
        batch = to_tensors(collator.collate([collator.prepare(record, rng) for record in records], rng))
        if self.classes:
            return self.best_classes(batch, count)
        scores = self.logits(batch).squeeze(1).tolist()
        return [[Answer("similarity", score / dataset.max_score)] for score in scores]

    def new_metric(self) -> GlueMetric:
        return GlueMetric(self.config.dataset)


def server_file(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the lines that GLUE's server takes: `index` and `prediction`, with a tab between, in order.

    Raises:
        ConfigError: samples without an index, two with one, or one that is missing.
    """
    if not all("index" in row for row in records):
        raise ConfigError("a .tsv file is for GLUE's server, and answers files of GLUE alone; write a .json")
    rows = {row["index"]: row["prediction"] for row in records}
    if len(rows) < len(records):
        raise ConfigError(
            f"{len(records)} samples have {len(rows)} indices, as those of two files have; give --split "
            "test_matched or --split test_mismatched, and a file for each"
        )
    if gaps := [place for place, index in enumerate(sorted(rows)) if place != index]:
        raise ConfigError(
            f"sample {gaps[0]} has no answer, and GLUE's server wants all: its line is broken, see the log; "
            "correct it, or write a .json"
        )
    return "index\tprediction\n" + "".join(f"{index}\t{rows[index]}\n" for index in sorted(rows))


class GlueMetric(Metric):
    """Metrics of a GLUE data set over samples that have a label, in percent.

    `accuracy` and `majority` (accuracy of the most frequent label) for all with classes, for MNLI also
    `accuracy/matched`, `accuracy/mismatched` and their mean `accuracy/mean`, `matthews` for CoLA, `f1` for
    QQP and MRPC; `pearson`, `spearman` and their mean `correlation` for STS-B. Nothing when no sample has a
    label (GLUE's test files).
    """

    def __init__(self, dataset: GlueName) -> None:
        self._dataset = dataset
        self._rows: list[tuple[float, float, str]] = []

    def update(self, prediction: Mapping[str, Any], batch: Batch) -> None:
        truths = (batch.scores if batch.labels is None else batch.labels).tolist()
        rows = zip(prediction["guesses"].tolist(), truths, batch.parts, strict=True)
        self._rows += [row for row in rows if row[1] != NO_LABEL and not math.isnan(row[1])]

    def compute(self) -> dict[str, float]:
        rows = [row for rows in gather_objects(self._rows) for row in rows]
        if not rows:
            return {}
        guesses, truths, parts = map(np.array, zip(*rows, strict=True))
        if self._dataset == "stsb":
            pearson, spearman = glue.pearson(guesses, truths), glue.spearman(guesses, truths)
            return {"pearson": pearson, "spearman": spearman, "correlation": (pearson + spearman) / 2}
        special = {"cola": ("matthews", glue.matthews), "qqp": ("f1", glue.f1), "mrpc": ("f1", glue.f1)}
        name, score = special.get(self._dataset, ("", None))
        scores = {name: score(guesses, truths)} if score else {}
        scores |= {"accuracy": glue.accuracy(guesses, truths), "majority": glue.majority(truths)}
        by_part = {
            f"accuracy/{part}": glue.accuracy(guesses[parts == part], truths[parts == part])
            for part in sorted(set(parts.tolist()) - {""})
        }
        return scores | by_part | ({"accuracy/mean": float(np.mean([*by_part.values()]))} if by_part else {})


TASK = TextClassificationTask
