"""Vision-language pre-training of VLMo (section 3.3): contrast, matching with hard negatives, masked words.

All tasks share the one network: contrast reads it as a dual
encoder, the other two as a fusion encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from unimo import distributed
from unimo.losses.contrastive import (
    Contrast,
    PairVectors,
    contrast_pairs,
    gather_rows,
    hard_negatives,
    matching_loss,
    row_counts,
    rows_before,
)
from unimo.losses.vectors import Vectors
from unimo.models import objective
from unimo.models.exchange import fetch_rows, same_on_all
from unimo.models.objective import Scalars, encode_images
from unimo.models.vlmo.batches import PretrainBatch
from unimo.models.vlmo.config import Config
from unimo.models.vlmo.model import Vlmo
from unimo.models.vlmo.stages import masked_words
from unimo.nn.heads import TEMPERATURE_START, MlmHead, contrastive_heads
from unimo.nn.init import constant_attr, linear
from unimo.nn.outputs import Encoded, concat_rows


@dataclass(frozen=True)
class TwoContrasts(Vectors):
    """What both contrasts compare."""

    dual: PairVectors
    """Of the experts for texts and images."""
    pair: PairVectors
    """The same inputs, with the experts for pairs in the top layers; equal to `dual` where there are none."""


class Objective(objective.Objective):
    """ITC, ITM and MLM on pairs.

    Parameters: `mlm_head`, `itm_head`; where ITC is learned `itc_{text, image}_head` and `itc_log_scale`, and
    with `objective.pair_contrast` the same again as `itc_pair_*`. A scale is 1 / sigma of Eq. (4), learned as
    its logarithm and without bounds, as in the release.
    """

    LOSSES = ("itc", "itm", "mlm")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.options, width, std = config.objective, config.hidden_size, config.transformer.init_std
        self.mlm_head = MlmHead(width, config.text.vocab_size, std, Vlmo.head_epsilon)
        self.itm_head = linear(width, 2, std)
        tasks, has_experts = self.options.tasks, config.transformer.has_pair_experts
        self.judges_pairs, self.contrasts = "itm" in tasks, {"itc": "pairs"} if "itc" in tasks else {}
        self.hard = self.judges_pairs and "itc" in tasks
        self.has_pair_contrast = self.options.pair_contrast and "itc" in tasks and has_experts
        start = constant_attr(float(np.log(1 / TEMPERATURE_START)))
        sizes = width, width, width, std
        if self.contrasts:
            self.itc_text_head, self.itc_image_head = contrastive_heads(*sizes, bias=False)
            self.itc_log_scale = self.create_parameter([], attr=start)
        if self.has_pair_contrast:
            heads = contrastive_heads(*sizes, bias=False)
            self.itc_pair_text_head, self.itc_pair_image_head = heads
            self.itc_pair_log_scale = self.create_parameter([], attr=start)

    def temperature(self) -> Tensor:
        """Return sigma of Eq. (4)."""
        return paddle.exp(-self.itc_log_scale)

    def part_losses(self, model: Vlmo, name: str, part: PretrainBatch) -> tuple[Scalars, Scalars]:
        """Compute the losses of pairs, and report the accuracies."""
        losses: Scalars = {}
        report: Scalars = {}
        if "itc" in self.options.tasks:
            vectors = self.part_vectors(model, "itc", part)
            losses["itc"], report = self.over_step("itc", vectors, model)
        image = model.encode_image(part.images)
        if self.judges_pairs:
            losses["itm"], report["itm_accuracy"] = (
                self.matching(model, part, image, vectors.dual)
                if self.hard
                else self.random_matching(model, part)
            )
        if "mlm" in self.options.tasks:
            losses["mlm"], report["mlm_accuracy"] = masked_words(model, part, self.mlm_head, image)
        return losses, report

    def part_vectors(self, model: Vlmo, loss: str, part: PretrainBatch) -> TwoContrasts:
        """Compute h^w and h^v of Eq. (3), by both kinds of experts."""
        self.replay("itc")
        texts = model.contrast_states(model.encode_text(part.input_ids, part.attention_mask), None)
        images = model.contrast_states(None, model.encode_image(part.images))
        dual = PairVectors(self.itc_text_head(texts[0]), self.itc_image_head(images[0]), part.image_group)
        if not self.has_pair_contrast:
            return TwoContrasts(dual, dual)
        pair = PairVectors(
            self.itc_pair_text_head(texts[1]), self.itc_pair_image_head(images[1]), part.image_group
        )
        return TwoContrasts(dual, pair)

    def compare(self, name: str, vectors: TwoContrasts, model: Vlmo) -> tuple[Tensor, Scalars]:
        """Compute the mean of both contrasts, Eqs (3) and (4) with cross-entropy. Collective."""
        first = self._contrast(vectors.dual, self.temperature()).loss
        if not self.has_pair_contrast:
            return first, {}
        second = self._contrast(vectors.pair, paddle.exp(-self.itc_pair_log_scale)).loss
        return (first + second) * 0.5, {}

    def _contrast(self, vectors: PairVectors, temperature: Tensor) -> Contrast:
        if self.options.detach_gathered:
            # The release gives gathered vectors no gradient, but computes the loss of all ranks on each of
            # them, so that averaging over ranks divides the gradient of the vectors, and not of the scale.
            share = 1.0 / distributed.world_size()
            text, image = (x * share + (x * (1 - share)).detach() for x in (vectors.text, vectors.image))
            vectors = PairVectors(text, image, vectors.group)
        return contrast_pairs(vectors, temperature)

    def matching(
        self, model: Vlmo, part: PretrainBatch, image: Encoded, vectors: PairVectors
    ) -> tuple[Tensor, Tensor]:
        """Compute ITM of every pair, of its text with a hard negative image, and the reverse.

        Negatives are drawn from the pairs of all ranks, in proportion to the softmax of the contrast's scores
        (ALBEF). Collective.

        Returns:
            Loss (mean over 3 B pairs) and accuracy, scalars.
        """
        drawn = draw_both(vectors, self.temperature(), self.options.candidates)
        bytes_ = fetch_rows(part.as_bytes(), drawn.images, drawn.counts)
        other_image = model.encode_image(part.from_bytes(bytes_))
        words = fetch_texts(part, drawn)
        text, other_text = model.encode_text(part.input_ids, part.attention_mask), model.encode_text(*words)
        fused = model.fuse(
            concat_rows([text, text, other_text]),
            concat_rows([image, other_image, image]),
            outputs="pooled",
        )
        own = paddle.ones([part.images.shape[0]], "int64")
        labels = paddle.concat([own, drawn.image_labels, drawn.text_labels])
        return matching_loss(self.itm_head(fused.pooled), labels)

    def random_matching(self, model: Vlmo, part: PretrainBatch) -> tuple[Tensor, Tensor]:
        """Compute ITM of the pairs that the batch names, half of which match: loss and accuracy, scalars."""
        text = model.encode_text(part.input_ids, part.attention_mask)
        shown = encode_images(model, part).select(part.itm_image_index)
        fused = model.fuse(text, shown, outputs="pooled")
        return matching_loss(self.itm_head(fused.pooled), part.itm_labels)

    def idle_layers(self, model: Vlmo, absent: set[str]) -> list[nn.Layer]:
        """List layers whose parameters only tasks use that are not learned."""
        tasks = self.options.tasks
        idle = [] if "itm" in tasks else [model.pooler, self.itm_head]
        idle += [] if "mlm" in tasks else [self.mlm_head]
        top = [block.experts for block in model.blocks if "pair" in block.experts]
        if tasks == ("itc",) and not self.has_pair_contrast:
            idle += [experts["pair"] for experts in top]
        if "itc" not in tasks:
            idle += [experts[name] for experts in top for name in ("text", "image")]
        return idle

    def weigh(self, term: Mapping[str, Tensor | float]) -> Tensor:
        """Add all up, MLM of pairs with the weight of the release."""
        return term["itc"] + term["itm"] + self.options.mlm_weight * term["mlm"]


@dataclass(frozen=True)
class Drawn:
    """Hard negatives of B pairs: an image for each text, and a text for each image."""

    images: Tensor
    """[B] int64, rows of the images among those of all ranks."""
    texts: Tensor
    """[B] int64, the same of the texts."""
    image_labels: Tensor
    """[B] int64, 0; 1 where all ranks hold a single picture, so that what is drawn is a match."""
    text_labels: Tensor
    """[B] int64, the same of the texts."""
    counts: list[int]
    """Number of pairs of each rank."""


@paddle.no_grad()
def draw_both(vectors: PairVectors, temperature: Tensor, candidates: int = 0) -> Drawn:
    """Draw hard negatives from the pairs of all ranks, in both directions. Collective.

    A rank scores its own pairs only, [B, G]. One number decides each draw, and rank 0 draws these numbers for
    all, so that the negatives do not depend on how pairs lie on ranks.

    Args:
        candidates: size of the blocks of pairs, in the order of the ranks, outside of which none is drawn
            (Table 6); 0 draws from all.
    """
    counts = row_counts(vectors.text.shape[0])
    first, total = rows_before(counts), sum(counts)
    own = slice(first, first + vectors.text.shape[0])
    text, image, group = (gather_rows(x.detach(), counts) for x in vars(vectors).values())
    chance = same_on_all(paddle.rand([2, total]))[:, own]
    pool = None
    if candidates:
        block = paddle.arange(total) // candidates
        pool = block[own].unsqueeze(1) == block.unsqueeze(0)
    drawn, labels = [], []
    for row, (asking, offered) in enumerate(((vectors.text, image), (vectors.image, text))):
        scores = paddle.matmul(asking.detach(), offered, transpose_y=True) / temperature
        drawn.append(hard_negatives(scores, vectors.group, group, chance[row], pool))
        labels.append((paddle.gather(group, drawn[-1]) == vectors.group).astype("int64"))
    return Drawn(*drawn, *labels, counts)


def fetch_texts(part: PretrainBatch, drawn: Drawn) -> tuple[Tensor, Tensor]:
    """Return ids and mask [B, T] of the drawn texts; T is the longest text of any rank. Collective."""
    length = part.input_ids.shape[1]
    missing = max(distributed.gather(length)) - length
    both = paddle.stack([part.input_ids, part.attention_mask], axis=1)  # [B, 2, T]
    both = F.pad(both, [0, 0, 0, 0, 0, missing]) if missing else both
    ids, mask = fetch_rows(both, drawn.texts, drawn.counts).unbind(1)
    return ids, mask
