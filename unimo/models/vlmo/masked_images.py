"""Masked image modelling (BEiT): what stands for masked patches, and the head that predicts them.

Whatever stage or kind of input it is used in: the states may come from images alone or from pairs.
"""

from __future__ import annotations

import paddle
from paddle import Tensor, nn

from unimo.losses.mlm import predict_masked
from unimo.models.batches import MaskedImageBatch
from unimo.models.objective import Scalars
from unimo.models.vlmo.config import Config
from unimo.models.vlmo.image_targets import build_targets
from unimo.nn.init import linear, normal_attr


class MaskedImages(nn.Layer):
    """Parameters: `mask_embedding` [D] (BEiT's e_[M]) and `head`, a linear layer as BEiT's."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, std = config.hidden_size, config.transformer.init_std
        self.targets = build_targets(config)
        self.mask_embedding = self.create_parameter([width], attr=normal_attr(std))
        self.head = linear(width, self.targets.size, std)

    def hide(self, patches: Tensor, masked: Tensor) -> Tensor:
        """Put the mask embedding in the place of masked patches.

        Args:
            patches: projected patches [B, P, D].
            masked: bool [B, P].
        """
        return paddle.where(masked.unsqueeze(2), self.mask_embedding.astype(patches.dtype), patches)

    def errors(self, states: Tensor, batch: MaskedImageBatch) -> Scalars:
        """Compute how far off the prediction of each masked patch is.

        Args:
            states: last states of the patches [B, P, D].
            batch: which patches are masked, and what their targets follow from.

        Returns:
            `errors` [M], and of codes `hits` [M], 1 = predicted; where no patch is masked a single 0, with
            gradients of 0.
        """
        positions = batch.mim_positions
        predicted = predict_masked(states, positions, self.head)
        if not positions.shape[0]:
            none = predicted.sum(axis=1) * 0.0
            return {"errors": none, **({"hits": none.detach()} if self.targets.are_codes else {})}
        targets = paddle.gather(self.targets.of(batch).flatten(0, 1), positions)
        found = {"errors": self.targets.errors(predicted, targets)}
        if self.targets.are_codes:
            found["hits"] = (predicted.argmax(axis=1) == targets).astype("float32")
        return found
