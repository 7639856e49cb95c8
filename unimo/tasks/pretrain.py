"""Pre-training: the objective of a paper behind the interface of tasks.

What is learned from pairs, texts and images is part of each paper (`unimo/models/<paper>/pretrain.py`, class
`Objective`); this file connects it to the loop and measures it on held-out samples.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import paddle
from paddle import Tensor
from paddle.nn import functional as F

from unimo import registry
from unimo.data.loading.task_data import TaskData
from unimo.losses.vectors import Vectors
from unimo.metrics.average import Averages
from unimo.models.base import Model
from unimo.models.batches import MaskedImageBatch, PretrainBatch
from unimo.models.objective import encode_images
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
        """Compute `mlm_logits` [N, vocabulary] of the masked tokens and, if the objective judges pairs,
        `itm_logits` [B, 2]. Batches of texts alone have the former only, and those of images alone
        `mim_errors` and `mim_hits` of the masked patches (`Objective.patch_errors`).

        The pairs are those that the batch names, also where training draws hard negatives.
        """
        if isinstance(batch, MaskedImageBatch):
            return self.objective.patch_errors(self.model, batch) if batch.mim_positions.shape[0] else {}
        image, own, prediction = None, None, {}
        if isinstance(batch, PretrainBatch):
            image = encode_images(self.model, batch)
            own = image.select(paddle.arange(batch.input_ids.shape[0], dtype="int64"))
        masked = self.model.encode_text(batch.mlm_input_ids, batch.attention_mask)
        states = self.model.fuse(masked, own, outputs="text").fused_text.flatten(0, 1)
        if batch.mlm_labels.shape[0]:
            found = paddle.gather(states, batch.mlm_positions)
            prediction["mlm_logits"] = self.objective.mlm_logits(self.model, found)
        if image is not None and self.objective.judges_pairs:
            text = self.model.encode_text(batch.input_ids, batch.attention_mask)
            pairs = self.model.fuse(text, image.select(batch.itm_image_index), outputs="pooled")
            prediction["itm_logits"] = self.objective.match_logits(self.model, pairs.pooled)
        return prediction

    def new_metric(self) -> PretrainMetric:
        return PretrainMetric()


class PretrainMetric(Averages):
    """Means over all masked tokens, all masked patches, and all pairs: `mlm_loss`, `itm_loss` (nats),
    `mim_loss`, `mlm_accuracy`, `itm_accuracy`, of codes `mim_accuracy` (percent)."""

    def update(self, prediction: Mapping[str, Any], batch: Batch) -> None:
        """Add one batch."""
        for key, values in prediction.items():
            name, _, kind = key.rpartition("_")
            values = values.astype("float32")
            if kind != "logits":
                score, factor = {"errors": ("loss", 1.0), "hits": ("accuracy", 100.0)}[kind]
                self.add(f"{name}_{score}", factor * values.sum().item(), values.shape[0])
                continue
            labels = getattr(batch, f"{name}_labels")
            count = labels.shape[0]
            loss = F.cross_entropy(values, labels, reduction="sum").item()
            hits = (values.argmax(axis=1) == labels).astype("int64").sum().item()
            self.add(f"{name}_loss", loss, count)
            self.add(f"{name}_accuracy", 100.0 * hits, count)


TASK = PretrainTask
