"""Next-token prediction for generation, with label smoothing."""

from __future__ import annotations

from collections.abc import Callable

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from unimo.losses.reduce import global_mean


def next_token_loss(
    states: Tensor,
    positions: Tensor,
    labels: Tensor,
    head: Callable[[Tensor], Tensor],
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the next tokens; vocabulary logits exist at the target positions only.

    With smoothing e the target is (1 - e) on the label and e / V on each of the V tokens of the
    vocabulary, the label included.

    Args:
        states: decoder states [B, T, D].
        positions: flat index b * T + t of each state that predicts a token, [N].
        labels: the tokens that they predict, [N].
        head: states [N, D] to logits [N, V].
        label_smoothing: e in [0, 1).

    Returns:
        Loss in nats (mean over the global batch's target tokens) and accuracy of this rank's (0 to 1).
    """
    logits = head(paddle.gather(states.flatten(0, 1), positions)).astype("float32")
    losses = F.cross_entropy(logits, labels, reduction="none").flatten()
    if label_smoothing:
        of_labels = paddle.take_along_axis(logits, labels.unsqueeze(1), axis=1).squeeze(1)
        losses = losses + label_smoothing * (of_labels - logits.mean(axis=1))
    with paddle.no_grad():
        accuracy = (logits.argmax(axis=1) == labels).astype("float32").mean()
    return global_mean(losses.sum(), labels.shape[0]), accuracy
