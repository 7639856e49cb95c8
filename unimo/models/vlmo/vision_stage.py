"""Vision stage (section 3.4): masked image modelling on images alone, as in BEiT."""

from __future__ import annotations

from collections.abc import Mapping

from paddle import Tensor, nn

from unimo.losses.reduce import global_mean
from unimo.models import objective
from unimo.models.batches import MaskedImageBatch
from unimo.models.objective import Scalars, prefixed
from unimo.models.vlmo.config import Config
from unimo.models.vlmo.masked_images import MaskedImages
from unimo.models.vlmo.model import Vlmo


class VisionStage(objective.Objective):
    """Masked patches are predicted from the others. Attention, the experts for images and what embeds images
    learn; what only texts or pairs use keeps its start."""

    LOSSES = ("mim",)
    reads_pairs = judges_pairs = False

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.masked_images = MaskedImages(config)

    def freeze(self, model: Vlmo) -> None:
        """Stop the gradients of what an image alone does not use.

        Of the types and of the relative positions the rows of texts have none; nor does decay move them.
        """
        for name, parameter in model.named_parameters():
            if not model.is_used(name, text=False, image=True, pooled=False):
                parameter.stop_gradient = True
        model.type_embedding.weight.no_decay = True

    def part_losses(self, model: Vlmo, name: str, part: MaskedImageBatch) -> tuple[Scalars, Scalars]:
        """Compute `mim`, and of codes report the accuracy."""
        found = self.masked_images.errors(self.states(model, part), part)
        loss = global_mean(found["errors"].sum(), part.mim_positions.shape[0])
        return {"mim": loss}, {"mim_accuracy": found["hits"].mean()} if "hits" in found else {}

    def states(self, model: Vlmo, part: MaskedImageBatch) -> Tensor:
        """Compute the last states of the patches [B, P, D] of masked images."""
        patches = self.masked_images.hide(model.patch_embedding(part.images), part.masked)
        return model.fuse(None, model.place(patches)).fused_image[:, 1:]

    def patch_errors(self, model: Vlmo, batch: MaskedImageBatch) -> Scalars:
        """Compute the errors of masked patches, for evaluation."""
        return prefixed("mim_", self.masked_images.errors(self.states(model, batch), batch))

    def counts(self, model: Vlmo, batch: MaskedImageBatch) -> dict[str, int]:
        """Count the masked patches."""
        return {"mim": batch.mim_positions.shape[0]}

    def idle_layers(self, model: Vlmo, absent: set[str]) -> list[nn.Layer]:
        """Return none: every batch consists of images."""
        return []

    def weigh(self, term: Mapping[str, Tensor | float]) -> Tensor:
        """Return the loss of masked patches."""
        return term["mim"]
