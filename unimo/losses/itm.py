"""Image-text matching: does this text belong to this image?"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from unimo.losses.reduce import global_mean


def two_classes(scores: Tensor) -> Tensor:
    """Scores [N] as logits [N, 2] against 0: the probability of a match is the sigmoid of its score."""
    return paddle.stack([paddle.zeros_like(scores), scores], axis=1)


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
