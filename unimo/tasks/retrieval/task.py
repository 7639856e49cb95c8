"""Image-text retrieval with ITC and ITM, as BridgeTower is fine-tuned, after the scheme of ALBEF.

Training contrasts the class tokens of the two towers (ITC) and lets the fusion judge each pair and two hard
negatives (ITM), re-using the output of the towers. With `task.loss=circle` training is that of UNIMO's
and UNIMO-2's releases instead (`circle.py`).
"""

from __future__ import annotations

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
from unimo.nn.heads import TEMPERATURE_START, clip_temperature, contrastive_heads
from unimo.nn.outputs import Encoded
from unimo.ranges import Number, Positive, Size, Width
from unimo.settings import RunConfig
from unimo.tasks.base import Batch, Metadata
from unimo.tasks.retrieval.batches import RetrievalCollator
from unimo.tasks.retrieval.circle import CircleRetrievalTask
from unimo.tasks.retrieval.matching import MatchingTask
from unimo.tasks.retrieval.negatives import NegativesCollator


@dataclass(frozen=True)
class RetrievalConfig:
    """Fields of the task section of a retrieval run."""

    name: str = "retrieval"
    loss: Literal["itc_itm", "circle"] = "itc_itm"
    """itc_itm: contrast of single vectors, and matching of hard negatives. circle: matching scores of pairs
    above those of random mismatched ones; evaluation scores every pair."""
    negatives: Size = 20
    """With circle: mismatched pairs of each pair, half with another image, half with another caption."""
    margin: Number = 0.2
    """With circle: training pushes scores of matches above 1 - margin, others below margin."""
    scale: Positive = 1.0
    """With circle: factor of the scores in the exponents."""
    itc_size: Width = 256
    """Width of the contrastive vectors."""
    temperature: Positive = TEMPERATURE_START
    """Start of the learned temperature of ITC, which is clipped to [0.001, 0.5]."""
    candidates: Size = 128
    """With itc_itm: results of each query that evaluation re-ranks (BridgeTower: 128 on Flickr30k, 256 on
    COCO)."""
    exhaustive: bool = False
    """With itc_itm: evaluation re-ranks every pair instead."""
    fusion_batch_size: Size = 64
    """Pairs that evaluation fuses at a time."""

    def __post_init__(self) -> None:
        if self.negatives % 2:
            raise ConfigError(f"task.negatives {self.negatives}: expected an even number of at least 2")


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
        kind = CircleRetrievalTask if config.loss == "circle" else RetrievalTask
        return kind(model, config, metadata)

    @classmethod
    def open_data(cls, run: RunConfig, processor: Processor, metadata: Metadata = None) -> TaskData:
        """Open the image-text pairs of `data.path`.

        Every rank reads the whole split to evaluate; the ranks share its pairs. With the circle loss,
        training batches name mismatched images and captions for each pair.
        """

        def collator(train: bool) -> RetrievalCollator:
            if train and run.task.loss == "circle":
                return NegativesCollator(processor, run.task.negatives // 2)
            return RetrievalCollator(processor, train)

        data = corpus_data(run, run.data.path, "pairs", processor, collator)
        data.share_eval = False
        return data

    def text_vectors(self, text: Encoded) -> Tensor:
        """Compute contrastive unit vectors [B, itc_size] of texts."""
        return self.itc_text_head(self.model.text_vector(text))

    def image_vectors(self, image: Encoded) -> Tensor:
        """Compute contrastive unit vectors [B, itc_size] of images."""
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
        return contrast_pairs(vectors, clip_temperature(self.temperature)).loss, {}

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute `itc`, and `itm` of the B pairs, of each text with a hard image and each image with a hard
        text; report the accuracy of ITM and the temperature.

        ITC spans the step; hard negatives are of this batch.
        """
        text, image, vectors = self.encode_pairs(batch)
        groups = batch.image_group
        temperature = clip_temperature(self.temperature)
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


TASK = RetrievalTask
