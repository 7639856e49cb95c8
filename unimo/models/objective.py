"""Base of the pre-training objectives of all papers: the loop over the parts of a batch, contrast, matching.

Each paper has a subclass, `Objective` in `unimo/models/<paper>/pretrain.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import paddle
from paddle import Tensor, nn

from unimo.data.loading.batch import Batch, PairBatch
from unimo.losses.contrastive import Contrast, contrastive_loss, draw_hard_images, gather_rows
from unimo.models.base import Model
from unimo.models.batches import PretrainBatch
from unimo.nn.heads import TEMPERATURE_START, clip_temperature, contrastive_heads
from unimo.nn.init import constant_attr
from unimo.nn.outputs import Encoded

Scalars = dict[str, Tensor]
PARTS = {"pairs": "", "texts": "text_", "images": "image_"}
"""Part of a batch -> prefix of the names of its losses."""


class Objective(nn.Layer):
    """Base of the pre-training objectives.

    A batch is one of pairs (`PretrainBatch`), or has the parts `pairs`, `texts` and `images`, some of which
    may be None. A paper says what it learns from a part (`part_losses`) and how it weights its losses
    (`weigh`).

    Attributes:
        mlm_head: text states [N, D] to vocabulary logits.
        itm_head: pooled pairs [N, P] to the logits of mismatch and match; unused where `match_logits` is
            overridden.
        judges_pairs: whether matching is learned, so that `match_logits` means something.
    """

    LOSSES: ClassVar[tuple[str, ...]]
    """Names of all losses; a batch without some part gives only those of the others."""
    judges_pairs = True

    def losses(self, model: Model, batch: Batch) -> tuple[Scalars, Scalars]:
        """Compute the losses of the parts that a batch has, and a report of shares in [0, 1], all scalars.

        An absent part adds nothing but zero gradients, so that all ranks, and all steps, agree on which
        parameters have a gradient: data parallelism waits for every one of them.
        """
        parts = (
            {"pairs": batch}
            if isinstance(batch, PairBatch)
            else {name: getattr(batch, name) for name in PARTS}
        )
        losses: Scalars = {}
        report: Scalars = {}
        for name, part in parts.items():
            if part is not None:
                part_losses, part_report = self.part_losses(model, name, part)
                losses |= part_losses
                report |= part_report
        absent = {name for name in PARTS if parts.get(name) is None}
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

    def match_logits(self, model: Model, pooled: Tensor) -> Tensor:
        """Compute the logits [N, 2] of mismatch and match of pooled pairs [N, P]."""
        return self.itm_head(pooled)

    def build_contrast(self, text_size: int, image_size: int, size: int, std: float) -> None:
        """Create the heads and the learned temperature of image-text contrast (ITC)."""
        self.itc_text_head, self.itc_image_head = contrastive_heads(text_size, image_size, size, std)
        self.itc_temperature = self.create_parameter([], attr=constant_attr(TEMPERATURE_START))

    def contrast(self, text: Tensor, image: Tensor, group: Tensor) -> Contrast:
        """Compute ITC between texts and images that were encoded alone. Collective.

        Args:
            text, image: first states [B, D_t] and [B, D_v] of the towers.
            group: [B] identities of the images (`PairBatch.image_group`).
        """
        vectors = self.itc_text_head(text), self.itc_image_head(image)
        return contrastive_loss(*vectors, clip_temperature(self.itc_temperature), group)


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


def prefixed(prefix: str, scalars: Scalars) -> Scalars:
    """Put a prefix before every name."""
    return {prefix + name: value for name, value in scalars.items()}
