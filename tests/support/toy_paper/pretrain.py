"""The objective of the toy paper: MLM and ITM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paddle import Tensor

from toy_paper.config import Config
from toy_paper.model import Bags
from unimo.losses.contrastive import matching_loss
from unimo.losses.mlm import masked_lm_loss
from unimo.models.batches import PretrainBatch
from unimo.models.objective import Objective
from unimo.nn.heads import MlmHead
from unimo.nn.init import linear

Scalars = dict[str, Tensor]


class BagObjective(Objective):
    """Masked words with their image, and pairs that match or do not."""

    LOSSES = ("mlm", "itm")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.mlm_head = MlmHead(config.text.hidden_size, config.text.vocab_size, 0.1)
        self.itm_head = linear(config.text.hidden_size, 2)

    def part_losses(self, model: Bags, name: str, part: PretrainBatch) -> tuple[Scalars, Scalars]:
        image = model.encode_image(part.images)
        masked = model.encode_text(part.mlm_input_ids, part.attention_mask)
        states = model.fuse(masked, image).fused_text
        mlm, mlm_accuracy = masked_lm_loss(states, part.mlm_positions, part.mlm_labels, self.mlm_head)
        text = model.encode_text(part.input_ids, part.attention_mask)
        pooled = model.fuse(text, image.select(part.itm_image_index)).pooled
        itm, itm_accuracy = matching_loss(self.match_logits(model, pooled), part.itm_labels)
        return {"mlm": mlm, "itm": itm}, {"mlm_accuracy": mlm_accuracy, "itm_accuracy": itm_accuracy}

    def weigh(self, term: Mapping[str, Any]) -> Tensor:
        return term["mlm"] + term["itm"]
