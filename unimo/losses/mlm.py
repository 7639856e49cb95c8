"""Masked language modelling, -log P(w_m | w_\\m) (UNIMO, Eq. (4)); for pairs the image is context, too."""

from __future__ import annotations

from collections.abc import Callable

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from unimo.losses.reduce import global_mean


def masked_lm_loss(
    states: Tensor, positions: Tensor, labels: Tensor, head: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Compute the cross-entropy of the masked tokens, with vocabulary logits at their positions only.

    Args:
        states: text states [B, T, D].
        positions: flat index b * T + t of each target, [N]; N may be 0.
        labels: token ids [N].
        head: maps states [N, D] to logits [N, vocabulary].

    Returns:
        Loss in nats (mean over the masked tokens of the global batch) and accuracy on this rank, scalars.
    """
    flat, count = states.flatten(0, 1), labels.shape[0]
    if count == 0:
        # Data parallelism waits for a gradient of every parameter, so the head runs all the same.
        nothing = head(flat[:1]).sum() * 0.0
        return global_mean(nothing, 0), paddle.zeros([])
    logits = head(paddle.gather(flat, positions)).astype("float32")
    loss = global_mean(F.cross_entropy(logits, labels, reduction="sum"), count)
    with paddle.no_grad():
        accuracy = (logits.argmax(-1) == labels).astype("float32").mean()
    return loss, accuracy
