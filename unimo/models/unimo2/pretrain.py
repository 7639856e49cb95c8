"""Pre-training of UNIMO-2 (sections 3.1 and 3.2) on pairs, texts alone and images alone."""

from __future__ import annotations

from collections.abc import Mapping

import paddle
import paddle.distributed as dist
import paddle.nn.functional as F
from paddle import Tensor, nn

from unimo.losses.contrastive import PairVectors, ViewVectors, matching_loss, nt_xent_loss
from unimo.losses.mlm import masked_lm_loss
from unimo.losses.reduce import ranks
from unimo.losses.vectors import Vectors
from unimo.models import objective
from unimo.models.batches import MaskedTextBatch, PretrainBatch
from unimo.models.objective import Scalars, encode_images, hard_images
from unimo.models.unimo2.batches import UnpairedBatch, ViewsBatch
from unimo.models.unimo2.config import Config
from unimo.models.unimo2.grounding import Grounding
from unimo.models.unimo2.model import Unimo2
from unimo.nn.heads import MlmHead, ProjectionHead
from unimo.nn.init import linear
from unimo.nn.outputs import Encoded

ROWS = "grounding_rows"
"""Stands for the second term of the grounding loss, among what losses are means of."""
CHOSEN = "chosen"
"""In the report of a part: how often it chose each entry of the dictionary, [entries]."""


class UnitLength(nn.Layer):
    """Image head of the release's contrast, which has no parameters; the text keeps its length there."""

    def forward(self, states: Tensor) -> Tensor:
        """Scale [B, W] to unit vectors."""
        return F.normalize(states, axis=-1)


class Objective(objective.Objective):
    """MLM, ITM and grounding on pairs; MLM and grounding on texts; VCL and grounding on images (section 3.2).

    With `contrastive` or hard negatives there is an image-text contrast besides: ALBEF's, or without heads
    that of the release.
    """

    LOSSES = ("mlm", "itm", "grounding", "itc", "text_mlm", "text_grounding", "vcl", "image_grounding")

    def __init__(self, config: Config) -> None:
        super().__init__()
        options, width, std = config.objective, config.hidden_size, config.fusion.init_std
        pooled = 2 * width if config.fusion.itm_feature == "concat" else width
        self.mlm_head = MlmHead(width, config.text.vocab_size, std, Unimo2.head_epsilon)
        self.itm_head = linear(pooled, 2, std)
        # With the pooler before it this is SimCLR's projection: linear, ReLU, linear.
        self.vcl_head = ProjectionHead(width, options.vcl_size, std)
        self.vcl_temperature = options.vcl_temperature
        self.hard = options.itm_negatives == "hard"
        self.contrastive = self.hard or options.contrastive
        self.contrasts = {"vcl": "images"}
        if self.contrastive:
            self.build_contrast(width, width, options.contrastive_size, std)
            self.contrasts["itc"] = "pairs"
            if not options.contrastive_heads:
                self.itc_text_head, self.itc_image_head = nn.Identity(), UnitLength()

    def losses(self, model: Unimo2, batch: PretrainBatch | UnpairedBatch) -> tuple[Scalars, Scalars]:
        """Compute the losses of the parts that a batch has.

        The report has accuracies, and `dictionary_use`: the share of the entries of the dictionary that the
        global batch chose at least once in this forward pass, in whichever part.
        """
        losses, report = super().losses(model, batch)
        counts = [report.pop(name) for name in list(report) if name.endswith(CHOSEN)]
        if counts:
            report["dictionary_use"] = share_in_use(sum(counts))
        return losses, report

    def part_losses(
        self, model: Unimo2, name: str, part: PretrainBatch | MaskedTextBatch | ViewsBatch
    ) -> tuple[Scalars, Scalars]:
        """Compute the losses of pairs, of texts alone or of images alone."""
        return {"pairs": self._pairs, "texts": self._texts, "images": self._images}[name](model, part)

    def part_counts(
        self, model: Unimo2, name: str, part: PretrainBatch | MaskedTextBatch | ViewsBatch
    ) -> dict[str, int]:
        """Count masked tokens and matched pairs and, for both terms of the grounding loss, what they are
        means of."""
        found, samples = super().part_counts(model, name, part), len(part.sample_ids)
        if model.grounding is None:
            return found
        images = 0 if name == "texts" else samples
        positions = model.count_positions(images, getattr(part, "attention_mask", None))
        return found | dict(zip(("grounding", ROWS), model.grounding.counts(samples, positions), strict=True))

    def part_vectors(self, model: Unimo2, loss: str, part: PretrainBatch | ViewsBatch) -> Vectors:
        """Compute what `itc` compares of pairs, or `vcl` of images."""
        return self._encode_pairs(model, part)[2] if loss == "itc" else self._compare_views(model, part)[0]

    def compare(self, name: str, vectors: Vectors, model: Unimo2) -> tuple[Tensor, Scalars]:
        """Compute `itc`, or `vcl` with its accuracy. Collective."""
        if name == "itc":
            return super().compare(name, vectors, model)
        loss, accuracy = nt_xent_loss(vectors.first, vectors.second, self.vcl_temperature)
        return loss, {"vcl_accuracy": accuracy}

    def idle_layers(self, model: Unimo2, absent: set[str]) -> list[nn.Layer]:
        """List layers whose parameters only absent parts use: the head of VCL belongs to images alone."""
        return [*([self.vcl_head] if "images" in absent else []), *super().idle_layers(model, absent)]

    def weigh(self, term: Mapping[str, Tensor | float]) -> Tensor:
        """Add all up: equal weights, as the paper names none."""
        pairs = term["mlm"] + term["itm"] + term["grounding"] + term["itc"]
        texts = term["text_mlm"] + term["text_grounding"]
        images = term["vcl"] + term["image_grounding"]
        return pairs + texts + images

    def _encode_pairs(
        self, model: Unimo2, batch: PretrainBatch
    ) -> tuple[Encoded, Encoded, PairVectors | None]:
        """Encode masked and, behind them, clean texts, and images; with contrast also the vectors of clean
        texts and their images."""
        self.replay("itc")
        image = encode_images(model, batch)
        ids = paddle.concat([batch.mlm_input_ids, batch.input_ids])
        mask = paddle.concat([batch.attention_mask, batch.attention_mask])
        text = model.encode_text(ids, mask)
        if not self.contrastive:
            return text, image, None
        size = batch.images.shape[0]
        return text, image, self.pair_vectors(text.text[size:, 0], image.image[:size, 0], batch.image_group)

    def _pairs(self, model: Unimo2, batch: PretrainBatch) -> tuple[Scalars, Scalars]:
        """Compute MLM on masked texts with their image, and ITM on clean ones; images are encoded once."""
        size = batch.images.shape[0]
        text, image, vectors = self._encode_pairs(model, batch)
        own = image.map(lambda states: states[:size])
        masked, clean = text.map(lambda states: states[:size]), text.map(lambda states: states[size:])
        losses, report = self._masked_lm(model, "", masked, own, batch)
        candidates, shown, labels = image, batch.itm_image_index, batch.itm_labels
        if self.contrastive:
            contrast = self.contrast(vectors)
            losses["itc"] = contrast.loss
            if self.hard:
                candidates, shown, labels = hard_images(contrast, own, labels)
        # Mismatched pairs are grounded for ITM, but do not teach the dictionary: what they show does not
        # belong together.
        shown_image = candidates.select(shown)
        grounding = model.ground(clean, shown_image)
        pairs = model.fuse(clean, shown_image, grounding=grounding, outputs="pooled")
        losses["itm"], report["itm_accuracy"] = matching_loss(self.itm_head(pairs.pooled), labels)
        return losses, report

    def _texts(self, model: Unimo2, batch: MaskedTextBatch) -> tuple[Scalars, Scalars]:
        """Compute MLM on texts alone, from the surrounding tokens only."""
        text = model.encode_text(batch.mlm_input_ids, batch.attention_mask)
        return self._masked_lm(model, "text_", text, None, batch)

    def _compare_views(self, model: Unimo2, batch: ViewsBatch) -> tuple[ViewVectors, Grounding | None]:
        """Compute the vectors of two views of each image alone, and how they are grounded."""
        self.replay("vcl")
        image = model.encode_image(paddle.concat([batch.pixels, batch.pixels_2]))
        grounding = model.ground(None, image)
        vectors = self.vcl_head(model.fuse(None, image, grounding=grounding, outputs="pooled").pooled)
        return ViewVectors(*paddle.split(vectors, 2)), grounding

    def _images(self, model: Unimo2, batch: ViewsBatch) -> tuple[Scalars, Scalars]:
        """Compute VCL: the contrast of two views of each image alone with those of other images."""
        vectors, grounding = self._compare_views(model, batch)
        loss, compared = self.over_step("vcl", vectors, model)
        losses, report = self._grounding(model, "image_", grounding)
        return {"vcl": loss, **losses}, {**compared, **report}

    def _masked_lm(
        self, model: Unimo2, prefix: str, text: Encoded, image: Encoded | None, batch: MaskedTextBatch
    ) -> tuple[Scalars, Scalars]:
        """Compute MLM, and the grounding loss of the same texts and images, which belong together."""
        grounding = model.ground(text, image)
        fused = model.fuse(text, image, grounding=grounding, outputs="text").fused_text
        loss, accuracy = masked_lm_loss(fused, batch.mlm_positions, batch.mlm_labels, self.mlm_head)
        losses, report = self._grounding(model, prefix, grounding)
        return {f"{prefix}mlm": loss, **losses}, {f"{prefix}mlm_accuracy": accuracy, **report}

    def _grounding(self, model: Unimo2, prefix: str, grounding: Grounding | None) -> tuple[Scalars, Scalars]:
        """Compute the loss of the grounded dictionary (section 3.1), and count the chosen entries."""
        if grounding is None:
            return {}, {}
        name, share = f"{prefix}grounding", 1.0
        if self.round is not None:
            # The loss weighs by its first term; in the second this round has another share of the step.
            share = self.round.weights[prefix + ROWS] / self.round.weights[name]
        return {name: model.grounding.loss(grounding, share)}, {prefix + CHOSEN: count_chosen(grounding)}


@paddle.no_grad()
def count_chosen(grounding: Grounding) -> Tensor:
    """Count on this rank how often each entry of the dictionary was chosen, [entries] float32."""
    ids, kept = grounding.ids.flatten(), grounding.token_mask
    weights = None if kept is None else kept.flatten().astype("float32")
    return paddle.bincount(ids, weights, minlength=grounding.scores.shape[1]).astype("float32")


@paddle.no_grad()
def share_in_use(counts: Tensor) -> Tensor:
    """Compute the share of entries [entries] that any rank chose at least once. Collective."""
    if ranks() > 1:
        dist.all_reduce(counts)
    return (counts > 0).astype("float32").mean()
