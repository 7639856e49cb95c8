"""Next-token prediction, -log P(T | S) = -sum_j log P(T_j | T_<j, S) (UNIMO, Eq. (5)), label smoothing."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from unimo.losses.reduce import global_mean


def next_token_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Compute the cross-entropy of tokens in nats, averaged over the targets of the global batch.

    With smoothing e the target distribution is (1 - e) on the label and e / V on each of the V tokens of the
    vocabulary, the label included.

    Args:
        logits: [N, V] at the target positions only.
        labels: token ids [N].
        label_smoothing: e in [0, 1).
    """
    logits = logits.astype("float32")
    losses = F.cross_entropy(logits, labels, reduction="none").flatten()
    if label_smoothing:
        # (1 - e) CE(label) + e mean_v CE(v), where CE(v) = log sum exp - logit_v: the log sum exp cancels.
        label_logits = paddle.take_along_axis(logits, labels.unsqueeze(1), axis=1).squeeze(1)
        losses = losses + label_smoothing * (label_logits - logits.mean(axis=1))
    return global_mean(losses.sum(), labels.shape[0])
