"""The base of all tasks.

A task is one class, registered as `TASK` of its module. It owns its config, data, heads, losses and metrics,
and how a trained model answers questions; the training loop knows none of these. Accuracies and recalls are
percentages everywhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import paddle
from paddle import Tensor

from unimo.data.loading.batch import Batch, PairBatch
from unimo.data.loading.task_data import TaskData
from unimo.data.processor import Processor
from unimo.data.record import ImageLike
from unimo.files import write_text
from unimo.models.base import Model
from unimo.models.contrastive import OTHERS, Contrastive, Round, one_round
from unimo.models.paper import Paper
from unimo.registry import require
from unimo.settings import CorpusConfig, RunConfig
from unimo.weights.name_map import Tensors

T = TypeVar("T")
Observer = Callable[[dict[str, Any]], None]
Watch = Callable[[Iterable[T]], Iterable[T]]
"""Yields what it is given, and may end a long loop in between by an exception. Collective."""
Metadata = Mapping[str, Any] | None
"""Data that rebuilding a task needs besides config and weights, e.g. the answers."""


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
    """A question to a trained model."""

    image: ImageLike | Sequence[ImageLike] | None = None
    """Two pictures, first the left one, are a sequence (NLVR2)."""
    text: str | Sequence[str] | None = None
    """Question, sentence, or source to write from; several columns are a sequence, or separated by tabs."""
    text_pair: str | None = None
    """Second sentence, for classifiers of pairs of sentences."""


@dataclass(frozen=True)
class Answer:
    """One answer of a model."""

    text: str
    probability: float
    """For a generated text, the geometric mean over its tokens; for a class of pixels, its share of them."""
    score: float | None = None
    """Score of the beam search, log-probability over length penalty; None without a search."""
    mask: np.ndarray | None = field(default=None, repr=False, compare=False)
    """Segmentation: the pixels of the picture that the answer is about, bool [H, W]."""


class Metric(Protocol):
    """Scores of one evaluation, accumulated batch by batch."""

    def update(self, prediction: Mapping[str, Any], batch: Batch) -> None:
        """Add what `Task.predict` returned for a batch."""

    def compute(self) -> dict[str, float]:
        """Return the scores by name, over all ranks. Collective."""


class Task(Contrastive):
    """Base of all tasks. Its parameters are `model.*` and the heads.

    Attributes:
        metadata: `Metadata` that is saved in the model directory.
    """

    Config: ClassVar[type]
    """Dataclass of the task section."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """Capabilities that a model must have."""
    pictures: ClassVar[int] = 1
    """Number of pictures of a sample: 0 for tasks on texts alone."""
    published_data: ClassVar[str] = ""
    """Data sets that the papers fine-tuned on."""
    asked_with: ClassVar[str] = ""
    """Option of `tools/predict.py` that carries the question: `question`, `text`, `caption`, `generate`, or
    `image` for the image alone; empty if the task answers no questions."""
    left_out: ClassVar[tuple[str, ...]] = ()
    """Scores of the official evaluation of the data set that are not computed."""
    paper_selection: ClassVar[str] = ""
    """Split that chooses the checkpoint with `data.selection=paper`; empty where that is the clean one."""
    draws_in_round: bool = False
    """Whether mismatched pairs or negatives come from among the samples of one round, so that results depend
    on how many it has."""
    head_aliases: ClassVar[Mapping[str, str]] = {}
    """Name prefix of a head -> its prefix in the weights of pre-training, from which it may start."""
    unread_heads: ClassVar[tuple[str, ...]] = ()
    """Name prefixes of heads that weights of this task may have although its settings do without them."""

    def __init__(self, model: Model, config: Any, metadata: Metadata = None) -> None:
        super().__init__()
        require(model.config.name, self.needs, config.name)
        self.model = model
        self.config = config
        self.metadata = dict(metadata or {})

    @classmethod
    def default_config(cls, paper: Paper) -> Any:
        """Return the task section with its defaults, for models of a paper."""
        return cls.Config()

    @classmethod
    def open_data(cls, run: RunConfig, processor: Processor, metadata: Metadata = None) -> TaskData:
        """Open the data of a run.

        Args:
            run: config of the run.
            processor: processor of the model.
            metadata: metadata of an existing model, e.g. its answers; None to take them from the data.

        Raises:
            ConfigError, DataError: settings or files that cannot be used.
        """
        raise NotImplementedError

    @classmethod
    def corpora(cls, run: RunConfig) -> dict[str, list[CorpusConfig]]:
        """Return the corpora by the settings that name them; evaluation reads those of the first that has
        some."""
        return {"data.path": run.data.path}

    @classmethod
    def create(cls, model: Model, config: Any, metadata: Metadata = None) -> Task:
        """Build the task for a model; a config may choose among several classes."""
        return cls(model, config, metadata)

    def freeze_unused(self, *, text: bool, image: bool, pooled: bool = True) -> None:
        """Stop the gradients of parameters that the task does not use; see `Model.is_used`."""
        for name, parameter in self.model.named_parameters():
            if not self.model.is_used(name, text=text, image=image, pooled=pooled):
                parameter.stop_gradient = True

    def fit_start(self, tensors: Tensors) -> tuple[Tensors, Sequence[str]]:
        """Return tensors of another network, from which a run starts, as `model` needs them, and the names of
        the parameters of `model` that keep their random start."""
        return tensors, ()

    def fit_heads(self, tensors: Tensors, metadata: Mapping[str, Any]) -> Tensors:
        """Return the weights of another model, from which a run starts, with its heads as this task reads
        them.

        Args:
            metadata: that of the other model.
        """
        return tensors

    def begin_step(self, seed: int) -> None:
        """Draw what is one for a whole optimizer step: the same in all its rounds and on all ranks.

        Args:
            seed: follows from the seed of the run and the number of the step alone.
        """

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute the named scalar losses of a batch, and further scalars to log."""
        raise NotImplementedError

    def counts(self, batch: Batch) -> dict[str, int]:
        """Count what the losses of this rank's batch are means of, by name: masked tokens, for example.

        `OTHERS` is the count of all that are not named: here samples. In a step of several rounds each
        weighs as much in a loss as it has of them. `batch` holds arrays.
        """
        return {OTHERS: len(batch.sample_ids)}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Compute the weighted sum of the losses; a task of one loss returns that."""
        (loss,) = losses.values()
        return loss

    def forward(self, batch: Batch, place: Round | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the total loss, and all scalars to log; data parallelism wraps this method.

        Args:
            batch: tensors.
            place: which round of a step the batch is; None if the step has no other.
        """
        if place is None:
            losses, report = self.losses(batch)
        else:
            with one_round(self, place):
                losses, report = map(place.weigh, self.losses(batch))
        return self.total(losses), {**losses, **report}

    def predict(self, batch: Batch) -> dict[str, Any]:
        """Compute predictions for a batch.

        The entry `records`, if there is one, is a list with a plain mapping for each sample: its row in a
        result file.
        """
        raise NotImplementedError

    def new_metric(self) -> Metric:
        """Return a new metric for one evaluation."""
        raise NotImplementedError

    def evaluate(
        self, batches: Iterable[Batch], observe: Observer | None = None, watch: Watch = iter
    ) -> dict[str, float]:
        """Compute all metrics over the batches of all ranks. Collective.

        Args:
            batches: batches of this rank, arrays or tensors.
            observe: called with the prediction for each batch.
            watch: wraps every loop that the model runs in.
        """
        metric = self.new_metric()
        with self.evaluation_mode():
            for batch in map(to_tensors, watch(batches)):
                prediction = self.predict(batch)
                metric.update(prediction, batch)
                if observe is not None:
                    observe(prediction)
        return metric.compute()

    @contextlib.contextmanager
    def evaluation_mode(self) -> Iterator[None]:
        """Compute without dropout and gradients; training mode comes back at the end."""
        was_training = self.training
        self.eval()
        try:
            with paddle.no_grad():
                yield
        finally:
            if was_training:
                self.train()

    @staticmethod
    def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
        """Write the records of an evaluation: a JSON list in the order of the split."""
        write_text(path, json.dumps(records, ensure_ascii=False))

    def ask(self, processor: Processor, questions: Sequence[Question], count: int) -> list[list[Answer]]:
        """Answer questions as one batch, each with its `count` best answers, best first.

        Raises:
            RecordError: an image that cannot be decoded, or a text that is empty.
        """
        raise NotImplementedError

    def lr_group(self, parameter: str) -> str:
        """Return the learning-rate group of a parameter: that of the model, or `heads`."""
        own, _, rest = parameter.partition(".")
        return self.model.lr_group(rest) if own == "model" else "heads"

    def depth(self, parameter: str) -> int | None:
        """Return the depth of a parameter in the model (`Model.depth`); None for those of heads."""
        own, _, rest = parameter.partition(".")
        return self.model.depth(rest) if own == "model" else None


def asked_pairs(processor: Processor, questions: Sequence[Question]) -> PairBatch:
    """Return the images and texts of questions as tensors.

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
    """Return the `count` most probable names, best first, for each row of [B, names]."""
    best, places = probabilities.topk(min(count, len(names)), axis=1)
    return [
        [Answer(names[place], value) for value, place in zip(*row, strict=True)]
        for row in zip(best.tolist(), places.tolist(), strict=True)
    ]
