"""Image-text retrieval with ITC and ITM, as BridgeTower is fine-tuned, after the scheme of ALBEF.

Training contrasts the class tokens of the two towers (ITC) and lets the fusion judge each pair and two hard
negatives (ITM), re-using the output of the towers. With `task.loss=itc` training is that of VLMo instead:
contrast alone. On mismatched pairs drawn at random (`mismatched.py`) `task.loss=circle` is that of UNIMO's
and UNIMO-2's releases, `task.loss=cross_entropy` as METER's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import paddle
from paddle import Tensor

from unimo.data.loading.task_data import TaskData, corpus_data
from unimo.data.processor import Processor
from unimo.errors import ConfigError
from unimo.losses.contrastive import PairVectors, contrast_pairs, hard_negatives, matching_loss
from unimo.models.base import Model
from unimo.models.paper import Paper
from unimo.nn.heads import TEMPERATURE_START, clip_temperature, contrastive_heads
from unimo.nn.init import constant_attr
from unimo.nn.outputs import Encoded
from unimo.ranges import Count, Number, Positive, Size, Width
from unimo.settings import RunConfig
from unimo.tasks.base import Batch, Metadata
from unimo.tasks.retrieval import mismatched
from unimo.tasks.retrieval.batches import RetrievalCollator
from unimo.tasks.retrieval.matching import MatchingTask
from unimo.tasks.retrieval.negatives import NegativesCollator


@dataclass(frozen=True)
class RetrievalConfig:
    """Fields of the task section of a retrieval run."""

    name: str = "retrieval"
    loss: Literal["itc", "itc_itm", "circle", "cross_entropy"] = "itc_itm"
    """itc (the default for VLMo): contrast of single vectors, which also rank. itc_itm: the same, and
    matching of hard negatives, which re-ranks. circle: matching scores of pairs above those of random
    mismatched ones; evaluation scores every pair. cross_entropy (the default for models without such
    vectors): the same by cross-entropy over a pair and its mismatched ones."""
    rerank: Count = 0
    """With itc: results of each query that the fusion re-ranks, for which matching of hard negatives is
    learned too; 0 for neither, as in the paper. VLMo's code, which does not call it, has 32."""
    negatives: Size = 20
    """With circle and cross_entropy: mismatched pairs of each pair, half with another image, half with
    another caption."""
    margin: Number = 0.2
    """With circle: training pushes scores of matches above 1 - margin, others below margin."""
    scale: Positive = 1.0
    """With circle: factor of the scores in the exponents."""
    itc_size: Width = 256
    """With itc_itm: width of the contrastive vectors; with itc it is that of the model."""
    temperature: Positive = TEMPERATURE_START
    """Start of the learned temperature of ITC, which itc_itm clips to [0.001, 0.5]."""
    candidates: Size = 128
    """With itc_itm: results of each query that evaluation re-ranks (BridgeTower: 128 on Flickr30k, 256 on
    COCO)."""
    exhaustive: bool = False
    """With itc_itm, and itc with rerank: evaluation re-ranks every pair instead."""
    fusion_batch_size: Size = 64
    """Pairs that evaluation fuses at a time."""

    def __post_init__(self) -> None:
        if self.negatives % 2:
            raise ConfigError(f"task.negatives {self.negatives}: expected an even number of at least 2")
        if self.rerank and self.loss != "itc":
            raise ConfigError(
                f"task.rerank={self.rerank} is for task.loss=itc; with {self.loss} "
                + (
                    "every pair is scored"
                    if self.loss in mismatched.TASKS
                    else "task.candidates is that number"
                )
            )
        if self.exhaustive and not self.has_matching:
            raise ConfigError(
                "task.exhaustive re-ranks by matching, which task.loss=itc alone does not learn; try "
                "task.rerank=32"
            )

    @property
    def has_matching(self) -> bool:
        """Whether pairs are fused, to learn and to rank by matching."""
        return self.loss != "itc" or self.rerank > 0

    @property
    def first(self) -> int | None:
        """Number of results of each query that evaluation re-ranks; None for all."""
        if self.exhaustive:
            return None
        return self.rerank if self.loss == "itc" else self.candidates


class RetrievalTask(MatchingTask):
    """ITC on the last class tokens of the towers, ITM on positives and hard negatives."""

    Config = RetrievalConfig
    contrasts = ("itc",)
    published_data = "Flickr30k"
    needs = frozenset({"dual_encoder", "fusion"})
    paper_selection = "test"
    head_aliases = MatchingTask.head_aliases | {
        "itc_text_head.": "objective.itc_text_head.",
        "itc_image_head.": "objective.itc_image_head.",
    }

    def build_heads(self) -> None:
        """Build the contrastive heads and their temperature."""
        heads = contrastive_heads(*self.model.vector_sizes, self.config.itc_size)
        self.itc_text_head, self.itc_image_head = heads
        start = paddle.nn.initializer.Constant(self.config.temperature)
        self.temperature = self.create_parameter([1], default_initializer=start)

    @classmethod
    def create(cls, model: Model, config: RetrievalConfig, metadata: Metadata = None) -> MatchingTask:
        """Build the task that learns by `config.loss`."""
        kinds = {"itc": DualEncoderTask, "itc_itm": RetrievalTask, **mismatched.TASKS}
        return kinds[config.loss](model, config, metadata)

    @classmethod
    def default_config(cls, paper: Paper) -> RetrievalConfig:
        """Return the task section with its defaults: models whose vectors rank learn by ITC alone, those
        without vectors by matching alone."""
        if "vector_retrieval" in paper.capabilities:
            return RetrievalConfig(loss="itc")
        return RetrievalConfig(loss="itc_itm" if "dual_encoder" in paper.capabilities else "cross_entropy")

    @classmethod
    def open_data(cls, run: RunConfig, processor: Processor, metadata: Metadata = None) -> TaskData:
        """Open the image-text pairs of `data.path`.

        Every rank reads the whole split to evaluate; the ranks share its pairs. With the losses
        of mismatched pairs, training batches name mismatched images and captions for each pair.
        """

        def collator(train: bool) -> RetrievalCollator:
            if train and run.task.loss in mismatched.TASKS:
                return NegativesCollator(processor, run.task.negatives // 2)
            return RetrievalCollator(processor, train)

        data = corpus_data(run, run.data.path, "pairs", processor, collator)
        data.share_eval = False
        return data

    def sigma(self) -> Tensor:
        """Return the temperature of ITC, by which cosines are divided."""
        return clip_temperature(self.temperature)

    def text_vectors(self, text: Encoded) -> Tensor:
        """Compute contrastive unit vectors [B, E] of texts."""
        return self.itc_text_head(self.model.text_vector(text))

    def image_vectors(self, image: Encoded) -> Tensor:
        """Compute contrastive unit vectors [B, E] of images."""
        return self.itc_image_head(self.model.image_vector(image))

    def encode_pairs(self, batch: Batch) -> tuple[Encoded, Encoded, PairVectors]:
        """Encode the texts and images of a batch, and compute what ITC compares."""
        self.replay("itc")
        text, image = self.encode(batch)
        return text, image, PairVectors(self.text_vectors(text), self.image_vectors(image), batch.image_group)

    def vectors(self, batch: Batch) -> dict[str, PairVectors]:
        """Compute what ITC compares."""
        return {"itc": self.encode_pairs(batch)[2]}

    def compare(self, name: str, vectors: PairVectors) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute ITC. Collective."""
        return contrast_pairs(vectors, self.sigma()).loss, {}

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute `itc`, and `itm` of the B pairs, of each text with a hard image and each image with a hard
        text; report the accuracy of ITM and the temperature.

        ITC spans the step; hard negatives are of this batch.
        """
        text, image, vectors = self.encode_pairs(batch)
        groups = batch.image_group
        temperature = self.sigma()
        contrast = contrast_pairs(vectors, temperature)
        scores = contrast.own_scores.detach()
        false_image, false_text = hard_negatives(scores, groups), hard_negatives(scores.T, groups)
        own = paddle.arange(groups.shape[0], dtype="int64")
        text_rows = paddle.concat([own, own, false_text])
        image_rows = paddle.concat([own, false_image, own])
        logits = self.match_logits(text.select(text_rows), image.select(image_rows))
        # In a batch of one image a drawn "negative" is of the same image, that is, a match.
        same = paddle.gather(groups, text_rows) == paddle.gather(groups, image_rows)
        itm, accuracy = matching_loss(logits, same.astype("int64"))
        report = {"itm_accuracy": 100 * accuracy, "temperature": temperature.detach().squeeze()}
        itc = contrast.loss if self.round is None else self.over_step("itc", vectors)[0]
        return {"itc": itc, "itm": itm}, report

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Add ITC and ITM with equal weights."""
        return losses["itc"] + losses["itm"]

    def lr_group(self, parameter: str) -> str:
        """Return the group of a parameter; as in BridgeTower, the temperature is one of the towers."""
        return "towers" if parameter == "temperature" else super().lr_group(parameter)


class DualEncoderTask(RetrievalTask):
    """ITC of texts and images that go through all layers alone: VLMo as a dual encoder (its section 3.5).

    Heads and scale are those of its pre-training, from which they start: as wide as the model, without bias,
    and a scale 1 / sigma that is learned as its logarithm and without bounds. With `rerank` the fusion
    encoder, of the same weights, learns ITM as in `RetrievalTask`, and evaluation re-ranks by it.
    """

    needs = RetrievalTask.needs | {"vector_retrieval"}
    head_aliases = RetrievalTask.head_aliases | {"itc_log_scale": "objective.itc_log_scale"}
    unread_heads = ("itm_head.",)

    def __init__(self, model: Model, config: RetrievalConfig, metadata: Metadata = None) -> None:
        super().__init__(model, config, metadata)
        alone = ({"text": True, "image": False}, {"text": False, "image": True})
        for name, parameter in model.named_parameters():
            # Such as experts for pairs.
            if not (config.has_matching or any(model.is_used(name, **kind, pooled=False) for kind in alone)):
                parameter.stop_gradient = True

    def build_heads(self) -> None:
        """Build the contrastive heads and their scale."""
        widths, std = self.model.vector_sizes, self.model.head_std
        heads = contrastive_heads(*widths, self.model.hidden_size, std, bias=False)
        self.itc_text_head, self.itc_image_head = heads
        start = constant_attr(-math.log(self.config.temperature))
        self.itc_log_scale = self.create_parameter([], attr=start)

    def sigma(self) -> Tensor:
        """Return the temperature of ITC, sigma of Eq. (4)."""
        return paddle.exp(-self.itc_log_scale)

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute `itc`, and with `rerank` also `itm`; report the temperature."""
        if self.config.has_matching:
            return super().losses(batch)
        loss, _ = self.over_step("itc", self.vectors(batch)["itc"])
        return {"itc": loss}, {"temperature": self.sigma().detach()}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Add up the losses."""
        return sum(losses.values())

    def judge(self, batch: Batch) -> tuple[str, Tensor]:
        """Compute `match` with `rerank`, else `similarity` [B], the cosine of the vectors."""
        if self.config.has_matching:
            return super().judge(batch)
        text, image = self.encode(batch)
        return "similarity", (self.text_vectors(text) * self.image_vectors(image)).sum(axis=1)


TASK = RetrievalTask
