"""Masked image modelling (BEiT, section 2.3): what is predicted of masked patches, and how far off it is.

Legend: B images, N patches each, M masked ones of all images, C numbers of a prediction.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from unimo.nn.embeddings import cut_patches

_SMALLEST_VARIANCE = 1e-6


def patch_pixels(images: Tensor, patch_size: int) -> Tensor:
    """Return the pixels of each patch, less their mean and divided by their standard deviation (MAE, He et
    al., 2022, section 3): float32 [B, N, 3 * P * P].

    Mean and (unbiased) variance are those of the patch itself, over its three colours together.

    Args:
        images: [B, 3, g * P, g * P].
        patch_size: P.
    """
    patches = cut_patches(images.astype("float32"), patch_size)
    centred = patches - patches.mean(axis=2, keepdim=True)
    variance = paddle.square(centred).sum(axis=2, keepdim=True) / (patches.shape[2] - 1)
    return centred / paddle.sqrt(variance + _SMALLEST_VARIANCE)


def squared_errors(predicted: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean square of the differences of M predictions and targets [M, C], [M] (MAE)."""
    return paddle.square(predicted - targets).mean(axis=1)


def cosine_distances(predicted: Tensor, targets: Tensor) -> Tensor:
    """Compute 1 - cosine of M predictions and targets [M, C], [M].

    EVA (Fang et al., 2023) minimizes the negative cosine, which has the same gradient.
    """
    return 1 - F.cosine_similarity(predicted, targets.astype("float32"), axis=1)


def code_errors(predicted: Tensor, codes: Tensor) -> Tensor:
    """Compute the cross-entropy of M codes [M] in nats, [M], from logits [M, C] (BEiT,
    section 2.3)."""
    return F.cross_entropy(predicted, codes, reduction="none").flatten()
