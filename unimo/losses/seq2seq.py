"""Next-token prediction for generation, with label smoothing."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from unimo.losses.reduce import global_mean


def next_token_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of tokens in nats, mean over the global batch's targets.

    With smoothing e the target is (1 - e) on the label and e / V on each of the V tokens of the
    vocabulary, the label included.

    Args:
        logits: [N, V], of the target positions only.
        labels: [N].
        label_smoothing: e in [0, 1).
    """
    logits = logits.astype("float32")
    losses = F.cross_entropy(logits, labels, reduction="none").flatten()
    if label_smoothing:
        of_labels = paddle.take_along_axis(logits, labels.unsqueeze(1), axis=1).squeeze(1)
        losses = losses + label_smoothing * (of_labels - logits.mean(axis=1))
    return global_mean(losses.sum(), labels.shape[0])


@paddle.no_grad()
def token_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of this rank's labels [N] that have the largest of their logits [N, V], 0 to 1."""
    return (logits.argmax(axis=1) == labels).astype("float32").mean()
