"""Pre-training of UNIMO-2 (sections 3.1 and 3.2) on pairs, texts alone and images alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import paddle
import paddle.distributed as dist
from paddle import Tensor, nn

from unimo.losses.contrastive import (
    contrastive_loss,
    gather_rows,
    hard_negatives,
    row_counts,
    rows_before,
)
from unimo.losses.itm import matching_loss
from unimo.losses.mlm import masked_lm_loss
from unimo.losses.visual_contrastive import nt_xent_loss
from unimo.models.batches import MaskedTextBatch, PretrainBatch
from unimo.models.unimo2.batches import UnpairedBatch, ViewsBatch
from unimo.models.unimo2.config import Config
from unimo.models.unimo2.grounding import Grounding
from unimo.models.unimo2.model import Unimo2
from unimo.nn.heads import MlmHead, ProjectionHead
from unimo.nn.init import constant_attr, linear
from unimo.nn.outputs import Encoded

Scalars = dict[str, Tensor]


class Objective(nn.Layer):
    """MLM, ITM and grounding on pairs; MLM and grounding on texts; VCL and grounding on images.

    A batch is one of pairs (unimo/models/batches.py), or a mapping of parts `pairs`, `texts` and
    `images` (unimo/models/unimo2/batches.py). An absent part adds nothing but zero gradients, so that
    ranks and steps agree on which parameters have one.
    """

    judges_pairs = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        objective, width, std = config.objective, config.hidden_size, config.fusion.init_std
        pooled = 2 * width if config.fusion.itm_feature == "concat" else width
        self.mlm_head = MlmHead(width, config.text.vocab_size, std, Unimo2.head_epsilon)
        self.itm_head = linear(pooled, 2, std)
        # With the pooler before it this is SimCLR's projection: linear, ReLU, linear.
        self.vcl_head = ProjectionHead(width, objective.vcl_size, std)
        self.vcl_temperature = objective.vcl_temperature
        self.hard = objective.itm_negatives == "hard"
        self.contrastive = self.hard or objective.contrastive
        if self.contrastive:
            self.itc_text_head = ProjectionHead(width, objective.contrastive_size, std)
            self.itc_image_head = ProjectionHead(width, objective.contrastive_size, std)
            self.itc_temperature = self.create_parameter([], attr=constant_attr(0.07))

    def losses(self, model: Unimo2, batch: PretrainBatch | UnpairedBatch) -> tuple[Scalars, Scalars]:
        """Losses of the parts that a batch has, and a report of shares in [0, 1], all scalars.

        Returns:
            Of pairs `mlm`, `itm`, `grounding` (and `itc`), of texts `text_mlm`, `text_grounding`, of images
            `vcl`, `image_grounding`. The report has accuracies, and `dictionary_use`: the share of the
            dictionary's entries that were chosen at least once by the global batch of this forward pass.
        """
        readers = {"pairs": self._pairs, "texts": self._texts, "images": self._images}
        parts = UnpairedBatch(sample_ids=[], pairs=batch) if isinstance(batch, PretrainBatch) else batch
        losses: Scalars = {}
        report: Scalars = {}
        groundings: list[Grounding] = []
        for name, reader in readers.items():
            part = getattr(parts, name)
            if part is None:
                continue
            part_losses, accuracies, grounding = reader(model, part)
            losses.update(part_losses)
            report.update(accuracies)
            groundings += [] if grounding is None else [grounding]
        if groundings:
            report["dictionary_use"] = dictionary_use(groundings)
        first = next(iter(losses))
        losses[first] = losses[first] + self._unused(model, parts)
        return losses, report

    def match_logits(self, model: Unimo2, pooled: Tensor) -> Tensor:
        """ITM logits [N, 2] of pooled pairs; class 1 is a match."""
        return self.itm_head(pooled)

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The objective: equal weights, as the paper names none; losses of absent parts are missing."""
        term = {name: 0.0 for name in LOSSES} | dict(losses)
        pairs = term["mlm"] + term["itm"] + term["grounding"] + term["itc"]
        texts = term["text_mlm"] + term["text_grounding"]
        images = term["vcl"] + term["image_grounding"]
        return pairs + texts + images

    def _pairs(self, model: Unimo2, batch: PretrainBatch) -> tuple[Scalars, Scalars, Grounding | None]:
        """MLM on masked texts with their image, ITM on clean ones; each image is encoded once."""
        size, pixels = batch.images.shape[0], batch.images
        if batch.false_pixels is not None:
            pixels = paddle.concat([pixels, batch.false_pixels])
        image = model.encode_image(pixels)
        own = image.map(lambda states: states[:size])
        ids = paddle.concat([batch.mlm_input_ids, batch.input_ids])
        mask = paddle.concat([batch.attention_mask, batch.attention_mask])
        text = model.encode_text(ids, mask)
        masked, clean = text.map(lambda states: states[:size]), text.map(lambda states: states[size:])
        losses, report, grounding = self._masked_lm(model, masked, own, batch)
        shown = image.select(batch.itm_image_index)
        if self.contrastive:
            losses["itc"], drawn = self._contrast(clean, own, batch)
            shown = drawn if self.hard else shown
        pairs = model.fuse(clean, shown, grounding=model.ground(clean, shown), outputs="pooled")
        logits = self.itm_head(pairs.pooled)
        losses["itm"], report["itm_accuracy"] = matching_loss(logits, batch.itm_labels)
        return losses, report, grounding

    def _texts(self, model: Unimo2, batch: MaskedTextBatch) -> tuple[Scalars, Scalars, Grounding | None]:
        """MLM on texts alone."""
        text = model.encode_text(batch.mlm_input_ids, batch.attention_mask)
        losses, report, grounding = self._masked_lm(model, text, None, batch)
        return _prefixed("text", losses), _prefixed("text", report), grounding

    def _images(self, model: Unimo2, batch: ViewsBatch) -> tuple[Scalars, Scalars, Grounding | None]:
        """Contrast between two views of each image alone."""
        image = model.encode_image(paddle.concat([batch.pixels, batch.pixels_2]))
        grounding = model.ground(None, image)
        vectors = self.vcl_head(model.fuse(None, image, grounding=grounding, outputs="pooled").pooled)
        first, second = paddle.split(vectors, 2)
        losses: Scalars = {}
        losses["vcl"], accuracy = nt_xent_loss(first, second, self.vcl_temperature)
        if grounding is not None:
            losses["image_grounding"] = model.grounding.loss(grounding)
        return losses, {"vcl_accuracy": accuracy}, grounding

    def _masked_lm(
        self, model: Unimo2, text: Encoded, image: Encoded | None, batch: MaskedTextBatch
    ) -> tuple[Scalars, Scalars, Grounding | None]:
        """MLM, and the grounding loss of the same texts and images, which belong together."""
        grounding = model.ground(text, image)
        fused = model.fuse(text, image, grounding=grounding, outputs="text").fused_text
        loss, accuracy = masked_lm_loss(fused, batch.mlm_positions, batch.mlm_labels, self.mlm_head)
        losses = {"mlm": loss}
        if grounding is not None:
            losses["grounding"] = model.grounding.loss(grounding)
        return losses, {"mlm_accuracy": accuracy}, grounding

    def _contrast(self, text: Encoded, image: Encoded, batch: PretrainBatch) -> tuple[Tensor, Encoded]:
        """Contrastive loss of matching pairs, and for each text the image that ITM shows it.

        A text that is to get a false image gets one of the global batch, drawn by similarity.
        """
        size = text.text.shape[0]
        counts = row_counts(size)
        begin = rows_before(counts)
        own = paddle.arange(begin, begin + size, dtype="int64")
        group = batch.image_group
        text_vectors = self.itc_text_head(text.text[:, 0])
        image_vectors = self.itc_image_head(image.image[:, 0])
        temperature = paddle.clip(self.itc_temperature, 0.001, 0.5)
        loss, _ = contrastive_loss(text_vectors, image_vectors, temperature, group)
        with paddle.no_grad():
            everyone = gather_rows(image_vectors.detach(), counts)
            scores = paddle.matmul(text_vectors, everyone, transpose_y=True) / temperature
            drawn = hard_negatives(scores, group, gather_rows(group, counts))
        rows = paddle.where(batch.itm_labels == 1, own, drawn)
        return loss, Encoded(image=gather_rows(image.image, counts)).select(rows)

    def _unused(self, model: Unimo2, parts: UnpairedBatch) -> Tensor:
        """Zero, with a zero gradient for all parameters that only absent parts would use."""
        idle: list[nn.Layer] = [] if parts.images is not None else [self.vcl_head]
        if "pairs" not in parts:
            idle += [model, self]
        return sum((p.sum() for layer in idle for p in layer.parameters()), paddle.zeros([])) * 0.0


LOSSES = ("mlm", "itm", "grounding", "itc", "text_mlm", "text_grounding", "vcl", "image_grounding")


def dictionary_use(groundings: Sequence[Grounding]) -> Tensor:
    """Share of the dictionary's entries that were chosen at least once, by any rank. Collective."""
    with paddle.no_grad():
        chosen = paddle.zeros([groundings[0].scores.shape[1]])
        for grounding in groundings:
            ids, kept = grounding.ids.flatten(), grounding.token_mask
            weights = None if kept is None else kept.flatten().astype("float32")
            chosen += paddle.bincount(ids, weights, minlength=chosen.shape[0]).astype("float32")
        if dist.get_world_size() > 1:
            dist.all_reduce(chosen)
        return (chosen > 0).astype("float32").mean()


def _prefixed(prefix: str, scalars: Scalars) -> Scalars:
    return {f"{prefix}_{name}": value for name, value in scalars.items()}
