"""The task: a model, its heads, its losses, its metrics. The loop knows none of them.

A task is one class, registered as `TASK` of its module. It owns its config, the data that it reads, heads,
losses, metrics, and what asking a trained model means. Accuracies and recalls are percentages everywhere.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import paddle
from paddle import Tensor, nn

from unimo.data.loading.batch import Batch, PairBatch
from unimo.data.loading.task_data import TaskData
from unimo.data.processor import Processor
from unimo.data.record import ImageLike
from unimo.files import write_text
from unimo.models.base import Model
from unimo.models.paper import Paper
from unimo.settings import CorpusConfig, DataConfig, RunConfig

T = TypeVar("T")
Observer = Callable[[dict[str, Any]], None]


def to_tensors(batch: T) -> T:
    """Return a batch with tensors in place of its NumPy arrays, in nested batches too."""
    if isinstance(batch, np.ndarray):
        return paddle.to_tensor(batch)
    if isinstance(batch, dict):
        return {name: to_tensors(value) for name, value in batch.items()}
    if dataclasses.is_dataclass(batch):
        changes = {item.name: to_tensors(getattr(batch, item.name)) for item in dataclasses.fields(batch)}
        return dataclasses.replace(batch, **changes)
    return batch


@dataclass(frozen=True)
class Question:
    """What a person asks a trained model."""

    image: ImageLike | None = None
    text: str | Sequence[str] | None = None
    """Question, sentence, or source to write from; several columns are a sequence, or have tabs between."""
    text_pair: str | None = None
    """Second sentence, for classifiers of pairs of sentences."""


@dataclass(frozen=True)
class Answer:
    """One answer of a model."""

    text: str
    probability: float
    """Of a written text, the geometric mean over its tokens."""
    score: float | None = None
    """By which a search ranks: log-probability over length penalty; None without a search."""


class Metric(Protocol):
    """Accumulates predictions of an evaluation; one instance for each pass."""

    def update(self, prediction: Mapping[str, Any], batch: Batch) -> None:
        """Take one batch of what `Task.predict` returned."""

    def compute(self) -> dict[str, float]:
        """Final scores by name, over all ranks."""


class Task(nn.Layer):
    """Base of all tasks. Parameters: `model.*` and the heads, which are in the group `heads`.

    Attributes:
        metadata: what besides config and weights is needed to rebuild the task, e.g. the answers; saved
            in the model directory.
    """

    Config: ClassVar[type]
    """Dataclass of the task section."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """Capabilities that a model must have."""
    reads_images: ClassVar[bool] = True
    """False for tasks on texts alone."""
    asked_with: ClassVar[str] = ""
    """Option of `tools/predict.py` that carries what is asked: `question`, `text`, `caption`, `generate`, or
    `image` for the image alone; empty: the task answers nothing."""
    head_aliases: ClassVar[Mapping[str, str]] = {}
    """Name prefix of a head here -> its prefix in the weights of pre-training, from which it may start."""

    def __init__(self, model: Model, config: Any, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        model.require(self.needs, config.name)
        self.model = model
        self.config = config
        self.metadata = dict(metadata or {})

    @classmethod
    def default_config(cls, paper: Paper) -> Any:
        """The task section with its defaults, for models of a paper."""
        return cls.Config()

    @classmethod
    def open_data(
        cls, run: RunConfig, processor: Processor, metadata: Mapping[str, Any] | None = None
    ) -> TaskData:
        """The data of a run, ready to make loaders from.

        Args:
            run: the run.
            processor: of the model.
            metadata: of an existing model, e.g. its answers; None: those of the data.

        Raises:
            ConfigError, DataError: settings or files that cannot be used.
        """
        raise NotImplementedError

    @classmethod
    def corpora(cls, data: DataConfig) -> dict[str, list[CorpusConfig]]:
        """Return the corpora by the settings that name them; evaluation reads those of the first."""
        return {"data.path": data.path}

    @classmethod
    def create(cls, model: Model, config: Any, metadata: Mapping[str, Any] | None = None) -> Task:
        """The task for a model; where a config chooses among several classes, one of these."""
        return cls(model, config, metadata)

    def freeze_unused(self, *, text: bool, image: bool, pooled: bool = True) -> None:
        """Stop the gradients of what the model does not use for this task; see `Model.is_used`."""
        for name, parameter in self.model.named_parameters():
            if not self.model.is_used(name, text=text, image=image, pooled=pooled):
                parameter.stop_gradient = True

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Named scalar losses of a batch, and a report of further scalars to log."""
        raise NotImplementedError

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The one expression that weights the losses."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss, and all losses and report values together (what data parallelism wraps)."""
        losses, report = self.losses(batch)
        return self.total(losses), {**losses, **report}

    def predict(self, batch: Batch) -> dict[str, Any]:
        """Predictions for a batch, without gradient.

        An entry `records` is a list with one JSON-able mapping for each sample: the row of a result file.
        """
        raise NotImplementedError

    def new_metric(self) -> Metric:
        """A fresh metric for one evaluation."""
        raise NotImplementedError

    def evaluate(self, batches: Iterable[Batch], observe: Observer | None = None) -> dict[str, float]:
        """All metrics over the batches of this rank, joined over ranks (collective).

        Args:
            batches: as the evaluation loader gives them, numpy or tensors.
            observe: called with what `predict` returned for each batch.
        """
        metric = self.new_metric()
        was_training = self.training
        self.eval()
        try:
            for batch in batches:
                batch = to_tensors(batch)
                with paddle.no_grad():
                    prediction = self.predict(batch)
                metric.update(prediction, batch)
                if observe is not None:
                    observe(prediction)
        finally:
            if was_training:
                self.train()
        return metric.compute()

    @staticmethod
    def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
        """Write the records of an evaluation: a JSON list in the order of the split."""
        write_text(path, json.dumps(records, ensure_ascii=False))

    def ask(self, processor: Processor, questions: Sequence[Question], count: int) -> list[list[Answer]]:
        """Answer questions as one batch: of each the `count` best answers, best first. Without gradient.

        Raises:
            RecordError: an image that cannot be decoded, or a text that is empty.
        """
        raise NotImplementedError

    def lr_group(self, parameter: str) -> str:
        """Learning-rate group of a parameter of the task."""
        own, _, rest = parameter.partition(".")
        return self.model.lr_group(rest) if own == "model" else "heads"


def asked_pairs(processor: Processor, questions: Sequence[Question]) -> PairBatch:
    """Return the images and texts of questions, tensors.

    Raises:
        RecordError: an image that cannot be decoded, or a text that is empty.
    """
    batch = processor([question.image for question in questions], [question.text for question in questions])
    images = batch.pop(processor.image_key)
    rows = np.arange(len(questions))
    return to_tensors(
        PairBatch(images=images, **batch, image_group=rows, sample_ids=[str(row) for row in rows])
    )


def ranked(names: Sequence[str], probabilities: Tensor, count: int) -> list[list[Answer]]:
    """Return the `count` most probable of named answers, best first, for each row of [B, names]."""
    best = probabilities.topk(min(count, len(names)), axis=1)
    rows = zip(*(part.tolist() for part in best), strict=True)
    return [
        [Answer(names[place], value) for value, place in zip(values, places, strict=True)]
        for values, places in rows
    ]
