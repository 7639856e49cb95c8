"""Pre-training of UNIMO-3 (section 3.4): masked language modelling and image-text matching."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import paddle
from paddle import Tensor, nn

from unimo.losses.contrastive import contrastive_loss, hard_negatives
from unimo.losses.itm import matching_loss
from unimo.losses.mlm import masked_lm_loss
from unimo.models.batches import PretrainBatch
from unimo.models.unimo3.config import Config
from unimo.models.unimo3.model import Unimo3
from unimo.nn.heads import MlmHead, ProjectionHead
from unimo.nn.init import constant_attr, linear
from unimo.nn.outputs import Encoded


class Objective(nn.Layer):
    """MLM on the masked text with its image, ITM on the clean text with a true or false image.

    Both objectives read one encoding of the images; masked and clean texts go through the text tower
    and all but the last fusion layer as one batch.
    """

    judges_pairs = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, std = config.fusion.hidden_size, config.fusion.init_std
        self.mlm_head = MlmHead(width, config.text.vocab_size, std)
        self.itm_head = linear(2 * width, 2, std)
        self.hard = config.objective.itm_negatives == "hard"
        if self.hard:
            size = config.objective.contrastive_size
            self.itc_text_head = ProjectionHead(config.text.hidden_size, size, std)
            self.itc_image_head = ProjectionHead(config.vision.hidden_size, size, std)
            self.itc_temperature = self.create_parameter([], attr=constant_attr(0.07))

    def losses(self, model: Unimo3, batch: PretrainBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses and accuracies of a batch .

        Returns:
            `mlm` and `itm` (and `itc` with hard negatives), and a report of accuracies, all scalars.
        """
        size = batch.images.shape[0]
        image = self._encode_images(model, batch)
        ids = paddle.concat([batch.mlm_input_ids, batch.input_ids])
        mask = paddle.concat([batch.attention_mask, batch.attention_mask])
        text = model.encode_text(ids, mask)
        losses: dict[str, Tensor] = {}
        itm_rows = batch.itm_image_index
        if self.hard:
            losses["itc"], itm_rows = self._contrast(text, image, batch)
        rows = paddle.concat([paddle.arange(size, dtype="int64"), itm_rows])
        # What the fusion reads is in `links`; the last tower states need not be copied.
        state = model.interact(replace(text, text=None), replace(image, image=None).select(rows))
        fused = model.read_out(state.rows(0, size), "text").fused_text
        losses["mlm"], mlm_accuracy = masked_lm_loss(
            fused, batch.mlm_positions, batch.mlm_labels, self.mlm_head
        )
        pooled = model.read_out(state.rows(size, 2 * size), "pooled").pooled
        losses["itm"], itm_accuracy = matching_loss(self.itm_head(pooled), batch.itm_labels)
        return losses, {"mlm_accuracy": mlm_accuracy, "itm_accuracy": itm_accuracy}

    def match_logits(self, model: Unimo3, pooled: Tensor) -> Tensor:
        """ITM logits [N, 2] of pooled pairs; class 1 is a match."""
        return self.itm_head(pooled)

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The objective: equal weights (section 3.4)."""
        if self.hard:
            return losses["mlm"] + losses["itm"] + losses["itc"]
        return losses["mlm"] + losses["itm"]

    def _encode_images(self, model: Unimo3, batch: PretrainBatch) -> Encoded:
        """The batch's images, and behind them the false ones that ITM may bring along."""
        pixels = batch.images
        if batch.false_pixels is not None:
            pixels = paddle.concat([pixels, batch.false_pixels])
        return model.encode_image(pixels)

    def _contrast(self, text: Encoded, image: Encoded, batch: PretrainBatch) -> tuple[Tensor, Tensor]:
        """Contrastive loss of the clean texts, and for each text the image row that ITM shows it."""
        labels, size = batch.itm_labels, batch.images.shape[0]
        own = paddle.arange(size, dtype="int64")
        group = own
        vectors = self.itc_text_head(text.text[size:, 0])
        temperature = paddle.clip(self.itc_temperature, 0.001, 0.5)
        loss, scores = contrastive_loss(
            vectors, self.itc_image_head(image.image[:size, 0]), temperature, group
        )
        return loss, paddle.where(labels == 1, own, hard_negatives(scores, group))
