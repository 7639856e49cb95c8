"""The objective of the toy paper: MLM and ITM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paddle import Tensor
from unimo.models.objective import Objective

from toy_paper.config import Config
from toy_paper.model import Bags
from unimo.losses.itm import matching_loss
from unimo.losses.mlm import masked_lm_loss
from unimo.models.batches import PretrainBatch
from unimo.nn.heads import MlmHead
from unimo.nn.init import linear

Scalars = dict[str, Tensor]


class BagObjective(Objective):
    """Masked words with their image, and pairs that match or do not."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.mlm_head = MlmHead(config.text.hidden_size, config.text.vocab_size, 0.1)
        self.itm_head = linear(config.text.hidden_size, 2)

    def pairs(self, model: Bags, batch: PretrainBatch) -> tuple[Scalars, Scalars]:
        image = model.encode_image(batch.images)
        masked = model.encode_text(batch.mlm_input_ids, batch.attention_mask)
        states = model.fuse(masked, image).fused_text
        mlm, mlm_accuracy = masked_lm_loss(states, batch.mlm_positions, batch.mlm_labels, self.mlm_head)
        text = model.encode_text(batch.input_ids, batch.attention_mask)
        pooled = model.fuse(text, image.select(batch.itm_image_index)).pooled
        itm, itm_accuracy = matching_loss(self.match_logits(model, pooled), batch.itm_labels)
        return {"mlm": mlm, "itm": itm}, {"mlm_accuracy": mlm_accuracy, "itm_accuracy": itm_accuracy}

    def match_logits(self, model: Any, pooled: Tensor) -> Tensor:
        return self.itm_head(pooled)

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        return losses["mlm"] + losses["itm"]
