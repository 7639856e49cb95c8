"""Image-text matching (ITM): a binary classifier on a fused pair decides whether its parts belong together.

UNIMO-2 (section 3.2) and UNIMO-3 (section 3.4) pre-train with it; retrieval reranks by its scores.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from unimo.losses.reduce import accuracy, global_mean


def two_classes(scores: Tensor) -> Tensor:
    """Turn scores [N] into logits [N, 2] of mismatch and match, so that P(match) = sigmoid(score)."""
    return paddle.stack([paddle.zeros_like(scores), scores], axis=1)


def matching_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the cross-entropy of the two classes.

    Args:
        logits: [B, 2] of mismatch and match.
        labels: [B] int64, 1 = match.

    Returns:
        Loss in nats (mean over the global batch) and accuracy on this rank, both scalars.
    """
    logits = logits.astype("float32")
    loss = global_mean(F.cross_entropy(logits, labels, reduction="sum"), labels.shape[0])
    return loss, accuracy(logits, labels)
