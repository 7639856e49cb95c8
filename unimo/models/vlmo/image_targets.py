"""What masked image modelling predicts of a patch, by `objective.image_targets`."""

from __future__ import annotations

from typing import ClassVar, Protocol

import paddle
from paddle import Tensor

from unimo.losses.mim import patch_pixels, squared_errors
from unimo.models.batches import MaskedImageBatch
from unimo.models.vlmo.config import Config


class ImageTargets(Protocol):
    """Targets of patches. Not a layer: what gives them is neither learned nor saved."""

    are_codes: ClassVar[bool]
    """Whether the targets are classes, so that there is an accuracy."""
    size: int
    """C, numbers that the head predicts of a patch."""

    def of(self, batch: MaskedImageBatch) -> Tensor:
        """Compute the targets of all patches, [B, P] codes or [B, P, C], without gradient."""

    def errors(self, predicted: Tensor, targets: Tensor) -> Tensor:
        """Compute how far predictions [M, C] are from their targets, [M]."""


class PixelTargets:
    """The pixels of the patch, normalised by its own mean and deviation; squared error (MAE)."""

    are_codes: ClassVar[bool] = False
    errors = staticmethod(squared_errors)

    def __init__(self, patch_size: int) -> None:
        self.patch_size, self.size = patch_size, 3 * patch_size**2

    @paddle.no_grad()
    def of(self, batch: MaskedImageBatch) -> Tensor:
        """Return normalised pixels [B, P, C]."""
        return patch_pixels(batch.images, self.patch_size)


def build_targets(config: Config) -> ImageTargets:
    """Build the targets that the config names."""
    return PixelTargets(config.vision.patch_size)
