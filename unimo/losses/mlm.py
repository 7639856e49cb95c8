r"""Prediction of tokens: masked ones, -log P(w_m | w_\m) (UNIMO, Eq. (4)), for pairs with images as context,
and the next one, -log P(T | S) = -sum_j log P(T_j | T_<j, S) (UNIMO, Eq. (5)).
"""

from __future__ import annotations

from collections.abc import Callable

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from unimo.losses.reduce import accuracy, global_mean


def predict_masked(states: Tensor, positions: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a head to the states at masked positions, [N, ...] float32.

    Without any it is applied to one state all the same: data parallelism waits for a gradient of every
    parameter.

    Args:
        states: [B, S, D].
        positions: flat index b * S + s of each masked token or region, [N]; N may be 0.
        head: maps states [N, D].
    """
    flat = states.flatten(0, 1)
    return head(paddle.gather(flat, positions) if positions.shape[0] else flat[:1]).astype("float32")


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
    logits, count = predict_masked(states, positions, head), labels.shape[0]
    if count == 0:
        return global_mean(logits.sum() * 0.0, 0), paddle.zeros([])
    loss = global_mean(F.cross_entropy(logits, labels, reduction="sum"), count)
    return loss, accuracy(logits, labels)


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
