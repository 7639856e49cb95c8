"""Pre-training batches of VLMo."""

from __future__ import annotations

from dataclasses import dataclass

import paddle
from paddle import Tensor

from unimo.data.loading.batch import Array
from unimo.models import batches


@dataclass(kw_only=True)
class PretrainBatch(batches.PretrainBatch):
    """Pairs whose images can go to other ranks as bytes."""

    pixel_scale: Array
    """[3, 1, 1] float32; the transform made pixels = bytes * scale + shift."""
    pixel_shift: Array
    """[3, 1, 1] float32."""

    def as_bytes(self) -> Tensor:
        """Return `images` as uint8 [B, 3, S, S], without loss."""
        return paddle.round((self.images - self.pixel_shift) / self.pixel_scale).astype("uint8")

    def from_bytes(self, images: Tensor) -> Tensor:
        """Return pixels [N, 3, S, S] float32 of images [N, 3, S, S] uint8."""
        return images.astype("float32") * self.pixel_scale + self.pixel_shift
