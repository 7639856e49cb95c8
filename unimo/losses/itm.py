"""Image-text matching: does this text belong to this image?"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from unimo.losses.reduce import global_mean


def matching_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Two-class cross-entropy.

    Args:
        logits: [B, 2].
        labels: [B], 1 = match.

    Returns:
        Loss (mean over the global batch) and accuracy on this rank, both scalars.
    """
    logits = logits.astype("float32")
    loss = global_mean(F.cross_entropy(logits, labels, reduction="sum"), labels.shape[0])
    with paddle.no_grad():
        accuracy = (logits.argmax(-1) == labels).astype("float32").mean()
    return loss, accuracy
