"""Pre-training: the objective of a paper behind the interface of tasks.

What is learned from pairs, texts and images is part of each paper (`unimo/models/<paper>/pretrain.py`, class
`Objective`); this file connects it to the loop and measures it on held-out samples.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from paddle import Tensor

from unimo import registry
from unimo.data.loading.task_data import TaskData
from unimo.losses.vectors import Vectors
from unimo.metrics.average import Averages
from unimo.models.base import Model
from unimo.models.paper import Paper, PretrainConfig
from unimo.tasks.base import Batch, Task
from unimo.weights.name_map import Tensors

if TYPE_CHECKING:
    from unimo.data.processor import Processor
    from unimo.settings import CorpusConfig, RunConfig


class PretrainTask(Task):
    """A model and its objective.

    Training batches of a model with the capabilities `text_only` and `image_only` may have three parts;
    held-out batches are pairs, or texts or images where there are no pairs.
    """

    needs = frozenset({"fusion"})

    def __init__(
        self, model: Model, config: PretrainConfig, metadata: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(model, config, metadata)
        self.objective = registry.paper_of(model.config.name).objective(model.config, config)
        self.objective.freeze(model)
        in_batch = config.false_images == "batch" and self.objective.reads_pairs
        self.draws_in_round = in_batch or self.objective.hard

    @classmethod
    def open_data(
        cls, run: RunConfig, processor: Processor, metadata: Mapping[str, Any] | None = None
    ) -> TaskData:
        """Open the pairs of `data.pairs`, and for training the corpora of `data.texts` and `data.images`.

        Raises:
            CapabilityError: texts or images alone, from which the model cannot learn.
        """
        paper = registry.paper_of(run.model.name)
        data = paper.batches(run, processor)
        for kind, capability in (("texts", "text_only"), ("images", "image_only")):
            if data.unpaired.get(kind):
                registry.require(run.model.name, {capability}, f"{run.task.name} on data.{kind}")
        return data

    @classmethod
    def default_config(cls, paper: Paper) -> PretrainConfig:
        """Return the settings of pre-training, with the defaults of the paper."""
        return paper.pretraining()

    @classmethod
    def corpora(cls, run: RunConfig) -> dict[str, list[CorpusConfig]]:
        """Return the pairs, and the texts and images alone, as far as the objective reads them."""
        return {f"data.{kind}": getattr(run.data, kind) for kind in run.task.kinds}

    def fit_start(self, tensors: Tensors) -> tuple[Tensors, Sequence[str]]:
        """Fit what an earlier stage left, or another model, as the paper does (`Paper.fit_start`)."""
        return registry.paper_of(self.model.config.name).fit_start(self.model, self.config, tensors)

    def begin_step(self, seed: int) -> None:
        """Let the objective draw what is one for a whole step."""
        self.objective.begin_step(seed)

    @property
    def contrasts(self) -> Collection[str]:
        """Names of the contrastive losses of the objective."""
        return self.objective.contrasts

    def counts(self, batch: Batch) -> dict[str, int]:
        """Count what the losses of the objective are means of."""
        return super().counts(batch) | self.objective.counts(self.model, batch)

    def vectors(self, batch: Batch) -> dict[str, Vectors]:
        """Compute what the contrastive losses of the objective compare."""
        return self.objective.vectors(self.model, batch)

    def compare(self, name: str, vectors: Vectors) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute a contrastive loss of the objective. Collective."""
        return self.objective.compare(name, vectors, self.model)

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute the losses of the objective, and what it reports (accuracies and other shares), in %."""
        losses, report = self.objective.losses(self.model, batch)
        return losses, {name: 100 * value for name, value in report.items()}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Add up the losses with the weights of the paper."""
        return self.objective.total(losses)

    def predict(self, batch: Batch) -> dict[str, Any]:
        """Compute the errors and hits of a held-out batch (`Objective.predict`)."""
        return self.objective.predict(self.model, batch)

    def new_metric(self) -> PretrainMetric:
        return PretrainMetric()


class PretrainMetric(Averages):
    """Means over all that is predicted of a kind, masked tokens for example: `mlm_loss`, `mlm_accuracy`
    (percent) and so on."""

    def update(self, prediction: Mapping[str, Any], batch: Batch) -> None:
        """Add one batch."""
        for key, values in prediction.items():
            name, _, kind = key.rpartition("_")
            score, factor = {"errors": ("loss", 1.0), "hits": ("accuracy", 100.0)}[kind]
            self.add(f"{name}_{score}", factor * values.sum().item(), values.shape[0])


TASK = PretrainTask
