"""Pre-training of UNIMO-3 (section 3.4): masked language modelling and image-text matching."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import paddle
from paddle import Tensor

from unimo.losses.contrastive import PairVectors, matching_loss
from unimo.losses.mlm import masked_lm_loss
from unimo.models import objective
from unimo.models.batches import PretrainBatch
from unimo.models.objective import Scalars, encode_images, hard_images
from unimo.models.unimo3.config import Config
from unimo.models.unimo3.model import Unimo3
from unimo.nn.heads import MlmHead
from unimo.nn.init import linear
from unimo.nn.outputs import Encoded


class Objective(objective.Objective):
    """MLM on the masked text with its image, ITM on the clean text with a true or false image.

    Both read one encoding of the images; masked and clean texts go through the text tower and all but the
    last fusion layer as one batch.
    """

    LOSSES = ("mlm", "itm", "itc")

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, std = config.fusion.hidden_size, config.fusion.init_std
        self.mlm_head = MlmHead(width, config.text.vocab_size, std, config.fusion.epsilon)
        self.itm_head = linear(2 * width, 2, std)
        self.hard = config.objective.itm_negatives == "hard"
        if self.hard:
            self.build_contrast(*config.vector_sizes, config.objective.contrastive_size, std)
            self.contrasts = {"itc": "pairs"}

    def encode(self, model: Unimo3, part: PretrainBatch) -> tuple[Encoded, Encoded, PairVectors | None]:
        """Encode masked and, behind them, clean texts, and images; with hard negatives also the vectors of
        clean texts and their images."""
        self.replay("itc")
        image = encode_images(model, part)
        ids = paddle.concat([part.mlm_input_ids, part.input_ids])
        mask = paddle.concat([part.attention_mask, part.attention_mask])
        text = model.encode_text(ids, mask)
        if not self.hard:
            return text, image, None
        size = part.images.shape[0]
        return (
            text,
            image,
            self.pair_vectors(text.text[size:, 0], model.image_vector(image)[:size], part.image_group),
        )

    def part_vectors(self, model: Unimo3, loss: str, part: PretrainBatch) -> PairVectors:
        """Compute what `itc` compares."""
        return self.encode(model, part)[2]

    def part_losses(self, model: Unimo3, name: str, part: PretrainBatch) -> tuple[Scalars, Scalars]:
        """Compute `mlm`, `itm` and, with hard negatives, `itc` of pairs; report the accuracies."""
        size = part.images.shape[0]
        text, image, vectors = self.encode(model, part)
        losses: Scalars = {}
        own, shown, labels = paddle.arange(size, dtype="int64"), part.itm_image_index, part.itm_labels
        # Fusion reads `links`; the last states of the towers need not be copied.
        candidates = replace(image, image=None)
        if self.hard:
            contrast = self.contrast(vectors)
            losses["itc"], own = contrast.loss, contrast.own_rows
            candidates = candidates.map(lambda states: states[:size])
            candidates, shown, labels = hard_images(contrast, candidates, labels)
        # Rows 0 .. B - 1: masked texts with their images (MLM); rows B .. 2 B - 1: clean texts (ITM).
        shown = paddle.concat([own, shown])
        state = model.interact(replace(text, text=None), candidates.select(shown))
        fused = model.read_out(state.rows(0, size), "text").fused_text
        losses["mlm"], mlm_accuracy = masked_lm_loss(
            fused, part.mlm_positions, part.mlm_labels, self.mlm_head
        )
        pooled = model.read_out(state.rows(size, 2 * size), "pooled").pooled
        losses["itm"], itm_accuracy = matching_loss(self.itm_head(pooled), labels)
        return losses, {"mlm_accuracy": mlm_accuracy, "itm_accuracy": itm_accuracy}

    def weigh(self, term: Mapping[str, Tensor | float]) -> Tensor:
        """Add all up: equal weights (section 3.4)."""
        return term["mlm"] + term["itm"] + term["itc"]
