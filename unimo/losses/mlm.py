"""Masked language modelling on the masked positions alone."""

from __future__ import annotations

from collections.abc import Callable

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from unimo.losses.reduce import global_mean


def masked_lm_loss(
    states: Tensor, positions: Tensor, labels: Tensor, head: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the masked tokens; vocabulary logits exist at their positions only.

    A batch without a masked token gives loss 0 and still a (zero) gradient for every parameter, which
    data parallelism waits for.

    Args:
        states: text states [B, T, D].
        positions: flat index b * T + t of each target, [N]; N may be 0.
        labels: token ids [N].
        head: states [N, D] to logits [N, vocabulary].

    Returns:
        Loss (mean over the global batch's masked tokens) and accuracy of this rank's, both scalars.
    """
    flat, count = states.flatten(0, 1), labels.shape[0]
    if count == 0:
        nothing = head(flat[:1]).sum() * 0.0
        return global_mean(nothing, 0), paddle.zeros([])
    logits = head(paddle.gather(flat, positions)).astype("float32")
    loss = global_mean(F.cross_entropy(logits, labels, reduction="sum"), count)
    with paddle.no_grad():
        accuracy = (logits.argmax(-1) == labels).astype("float32").mean()
    return loss, accuracy
