"""Base of the pre-training objectives of all papers: the loop over the parts of a batch, contrast, matching.

Each paper has a subclass, `Objective` in `unimo/models/<paper>/pretrain.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from unimo.data.loading.batch import Batch, PairBatch
from unimo.losses.contrastive import (
    Contrast,
    PairVectors,
    contrast_pairs,
    draw_hard_images,
    gather_rows,
)
from unimo.losses.vectors import Vectors
from unimo.models.base import Model
from unimo.models.batches import MaskedImageBatch, MaskedTextBatch, PretrainBatch
from unimo.models.contrastive import Contrastive, Scalars
from unimo.nn.heads import TEMPERATURE_START, clip_temperature, contrastive_heads
from unimo.nn.init import constant_attr
from unimo.nn.outputs import Encoded

PARTS = {"pairs": "", "texts": "text_", "images": "image_"}
"""Part of a batch -> prefix of the names of its losses."""


class Objective(Contrastive):
    """Base of the pre-training objectives.

    A batch is one of pairs (`PretrainBatch`), of masked texts or of masked images, or has the parts `pairs`,
    `texts` and `images`, some of which may be None. A paper says what it learns from a part (`part_losses`)
    and how it weights its losses (`weigh`). If it has contrastive losses, it names them and the parts that
    they compare (`contrasts`), computes the vectors (`part_vectors`) and, but for `itc`, the loss
    (`compare`).

    Attributes:
        mlm_head: text states [N, D] to vocabulary logits.
        itm_head: pooled pairs [N, P] to the logits of mismatch and match; unused where `match_logits` is
            overridden.
        hard: whether ITM's negatives are drawn among the images of one round, by the scores of ITC.
        judges_pairs: whether matching is learned, so that `match_logits` means something.
        contrasts: name of each contrastive loss, and the part whose samples it compares.
    """

    LOSSES: ClassVar[tuple[str, ...]]
    """Names of all losses; a batch without some part gives only those of the others."""
    reads_pairs: ClassVar[bool] = True
    """Whether its batches may have pairs, and so mismatched ones."""
    hard = False
    judges_pairs = True
    contrasts: Mapping[str, str] = MappingProxyType({})

    def freeze(self, model: Model) -> None:
        """Stop the gradients of parameters that this objective does not teach; here it teaches all."""

    def begin_step(self, seed: int) -> None:
        """Draw what is one for a whole optimizer step: the same in all its rounds and on all ranks.

        Args:
            seed: follows from the seed of the run and the number of the step alone.
        """

    def mlm_logits(self, model: Model, states: Tensor) -> Tensor:
        """Compute vocabulary logits [N, vocabulary] of the text states [N, D] of masked tokens."""
        return self.mlm_head(states)

    def losses(self, model: Model, batch: Batch) -> tuple[Scalars, Scalars]:
        """Compute the losses of the parts that a batch has, and a report of shares in [0, 1], all scalars.

        An absent part adds nothing but zero gradients, so that all ranks, and all steps, agree on which
        parameters have a gradient: data parallelism waits for every one of them.
        """
        parts = parts_of(batch)
        losses: Scalars = {}
        report: Scalars = {}
        for name, part in parts.items():
            part_losses, part_report = self.part_losses(model, name, part)
            losses |= part_losses
            report |= part_report
        absent = PARTS.keys() - parts.keys()
        idle = [parameter for layer in self.idle_layers(model, absent) for parameter in layer.parameters()]
        first = next(iter(losses))
        losses[first] = losses[first] + sum((p.sum() for p in idle), paddle.zeros([])) * 0.0
        return losses, report

    def part_losses(self, model: Model, name: str, part: Any) -> tuple[Scalars, Scalars]:
        """Compute the losses of one part of a batch, under their final names, and its report.

        Args:
            model: the network.
            name: `pairs`, `texts` or `images`.
            part: what the batch has of it.
        """
        raise NotImplementedError

    def counts(self, model: Model, batch: Batch) -> dict[str, int]:
        """Count what the losses of this rank's batch, of arrays, are means of, by name: masked tokens, for
        example."""
        found: dict[str, int] = {}
        for name, part in parts_of(batch).items():
            counts = self.part_counts(model, name, part)
            found |= {PARTS[name] + loss: count for loss, count in counts.items()}
        return found

    def part_counts(self, model: Model, name: str, part: Any) -> dict[str, int]:
        """Count what the losses of a part are means of, by their names without the prefix of the part."""
        return {
            loss: getattr(part, f"{loss}_labels").shape[0]
            for loss in ("mlm", "itm")
            if hasattr(part, f"{loss}_labels")
        }

    def vectors(self, model: Model, batch: Batch) -> dict[str, Vectors]:
        """Compute what the contrastive losses of the parts that a batch has compare, by name of the loss."""
        parts = parts_of(batch)
        chosen = {loss: parts[name] for loss, name in self.contrasts.items() if name in parts}
        return {loss: self.part_vectors(model, loss, part) for loss, part in chosen.items()}

    def part_vectors(self, model: Model, loss: str, part: Any) -> Vectors:
        """Compute what a contrastive loss compares of a part of a batch."""
        raise NotImplementedError

    def compare(self, name: str, vectors: Vectors, model: Model) -> tuple[Tensor, Scalars]:
        """Compute a contrastive loss; here that is `itc`, whose heads `build_contrast` made. Collective."""
        return contrast_pairs(vectors, self.temperature()).loss, {}

    def idle_layers(self, model: Model, absent: set[str]) -> list[nn.Layer]:
        """List layers that hold all parameters which only the absent parts use (and may hold others).

        Pairs use the whole network and all heads, unless a subclass says otherwise.
        """
        return [model, self] if "pairs" in absent else []

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Add up the losses of a batch with the paper's weights; those of absent parts count as 0."""
        return self.weigh(dict.fromkeys(self.LOSSES, 0.0) | dict(losses))

    def weigh(self, term: Mapping[str, Tensor | float]) -> Tensor:
        """Compute the weighted sum of all `LOSSES`."""
        raise NotImplementedError

    def predict(self, model: Model, batch: Batch) -> Scalars:
        """Compute how far off predictions of a held-out batch are: of words (`mlm`), and if the objective
        judges pairs of matching (`itm`); of masked patches (`mim`) where images are alone.

        Words are predicted beside the image of their pair, also where it is mismatched for ITM, whose pairs
        are those that the batch names, also where training draws hard negatives.

        Returns:
            `{name}_errors`, whose mean is the loss, and `{name}_hits`, 1 = predicted, of each token, pair or
            patch; none of what the batch has none of.
        """
        if isinstance(batch, MaskedImageBatch):
            return self.patch_errors(model, batch) if batch.mim_positions.shape[0] else {}
        image, own, found = None, None, {}
        if isinstance(batch, PretrainBatch):
            image = encode_images(model, batch)
            own = image.select(paddle.arange(batch.input_ids.shape[0], dtype="int64"))
        masked = model.encode_text(batch.mlm_input_ids, batch.attention_mask)
        states = model.fuse(masked, own, outputs="text").fused_text.flatten(0, 1)
        if batch.mlm_labels.shape[0]:
            hidden = paddle.gather(states, batch.mlm_positions)
            found |= judged("mlm", self.mlm_logits(model, hidden), batch.mlm_labels)
        if image is not None and self.judges_pairs:
            text = model.encode_text(batch.input_ids, batch.attention_mask)
            pairs = model.fuse(text, image.select(batch.itm_image_index), outputs="pooled")
            found |= judged("itm", self.match_logits(model, pairs.pooled), batch.itm_labels)
        return found

    def patch_errors(self, model: Model, batch: MaskedImageBatch) -> dict[str, Tensor]:
        """Compute how far off the predictions of masked patches are, for evaluation.

        Returns:
            `mim_errors` [M], whose mean is the loss, and where the targets are classes `mim_hits` [M], 1 =
            predicted.
        """
        raise NotImplementedError

    def match_logits(self, model: Model, pooled: Tensor) -> Tensor:
        """Compute the logits [N, 2] of mismatch and match of pooled pairs [N, P]."""
        return self.itm_head(pooled)

    def build_contrast(self, text_size: int, image_size: int, size: int, std: float) -> None:
        """Create the heads and the learned temperature of image-text contrast (ITC)."""
        self.itc_text_head, self.itc_image_head = contrastive_heads(text_size, image_size, size, std)
        self.itc_temperature = self.create_parameter([], attr=constant_attr(TEMPERATURE_START))

    def temperature(self) -> Tensor:
        """Return the temperature of ITC, a scalar by which cosines are divided."""
        return clip_temperature(self.itc_temperature)

    def pair_vectors(self, text: Tensor, image: Tensor, group: Tensor) -> PairVectors:
        """Project texts and images that were encoded alone to the space of ITC.

        Args:
            text, image: first states [B, D_t] and [B, D_v] of the towers.
            group: [B] identities of the images (`PairBatch.image_group`).
        """
        return PairVectors(self.itc_text_head(text), self.itc_image_head(image), group)

    def contrast(self, vectors: PairVectors) -> Contrast:
        """Compute ITC: the loss over the whole step, the scores of this batch. Collective."""
        contrast = contrast_pairs(vectors, self.temperature())
        return contrast if self.round is None else replace(contrast, loss=self.over_step("itc", vectors)[0])


def parts_of(batch: Batch) -> dict[str, Any]:
    """Return the parts that a batch has, by name."""
    if isinstance(batch, PairBatch):
        return {"pairs": batch}
    if isinstance(batch, MaskedTextBatch):
        return {"texts": batch}
    if isinstance(batch, MaskedImageBatch):
        return {"images": batch}
    return {name: part for name in PARTS if (part := getattr(batch, name)) is not None}


def encode_images(model: Model, batch: PretrainBatch) -> Encoded:
    """Encode the images of pairs and, behind them, the false images from elsewhere, if the batch has some.

    `itm_image_index` counts in this order.
    """
    images = batch.images
    if batch.false_pixels is not None:
        images = paddle.concat([images, batch.false_pixels])
    return model.encode_image(images)


def hard_images(contrast: Contrast, image: Encoded, matched: Tensor) -> tuple[Encoded, Tensor, Tensor]:
    """Gather the images of all ranks, and choose the one that ITM shows with each text. Collective.

    Args:
        contrast: ITC of the pairs, by whose scores hard negatives are drawn (ALBEF).
        image: what fusion reads of this rank's B images.
        matched: [B], 1 for texts that keep their image.

    Returns:
        The images of all ranks, the row of the chosen one for each text [B], and labels [B], 1 = match.
    """
    shown, labels = draw_hard_images(contrast, matched)
    return image.map(lambda states: gather_rows(states, contrast.counts)), shown, labels


def judged(name: str, logits: Tensor, labels: Tensor) -> Scalars:
    """Return `{name}_errors` [N], the cross-entropies in nats, and `{name}_hits` [N] of logits [N, C]."""
    logits = logits.astype("float32")
    errors = F.cross_entropy(logits, labels, reduction="none").flatten()
    return {f"{name}_errors": errors, f"{name}_hits": (logits.argmax(axis=1) == labels).astype("float32")}


def prefixed(prefix: str, scalars: Scalars) -> Scalars:
    """Put a prefix before every name."""
    return {prefix + name: value for name, value in scalars.items()}
