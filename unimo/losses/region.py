"""Masked region modelling (UNIMO, section 2.2, Eqs (2), (3)): f(v_m | v_\\m) and f(v_m | v_\\m, W).

Masked regions are predicted from the others (and the text, for pairs) in two ways: their features by
regression, and the classes that the detector gave them.

Legend: B images, R regions each, N masked ones, D width of a state, F of a feature, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from unimo.losses.mlm import predict_masked
from unimo.losses.reduce import accuracy, global_mean


def region_regression_loss(
    states: Tensor,
    positions: Tensor,
    targets: Tensor,
    head: Callable[[Tensor], Tensor],
    reduction: Literal["mean", "sum"] = "mean",
    error: Literal["squared", "smooth"] = "squared",
) -> Tensor:
    """Compute the squared error ||r(h_v) - v||^2 of the features of masked regions.

    Args:
        states: h_v, region states [B, R, D].
        positions: flat index b * R + r of each masked region, [N]; N may be 0.
        targets: v, the masked features [N, F].
        head: r, maps states [N, D] to features [N, F].
        reduction: over the F numbers of a feature. The paper prints their `sum`; with F = 2048 that is some
            2000 times the other losses, which it adds without weights, so `mean` is the default.
        error: of a number: squared, or `smooth` as in LXMERT's code, d^2 / 2 up to a difference d of 1, and
            |d| - 1/2 above.

    Returns:
        Mean over the masked regions of the global batch; 0, with gradients of 0, when there is none.
    """
    predicted, count = predict_masked(states, positions, head), positions.shape[0]
    if count == 0:
        return global_mean(predicted.sum() * 0.0, 0)
    targets = targets.astype("float32")
    if error == "smooth":
        errors = F.smooth_l1_loss(predicted, targets, reduction="none")
    else:
        errors = paddle.square(predicted - targets)
    return global_mean((errors.mean(axis=1) if reduction == "mean" else errors.sum(axis=1)).sum(), count)


def region_classification_loss(
    states: Tensor, positions: Tensor, class_probs: Tensor, head: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Compute CE(softmax(s(h_v)), c(v)) of masked regions, the cross-entropy against the detector's classes.

    Args:
        states: h_v, region states [B, R, D].
        positions: flat index b * R + r of each masked region, [N]; N may be 0.
        class_probs: c(v), [N, C], not negative; scaled to sum to 1. A row of zeros (no class known) has
            loss 0 and counts in the mean.
        head: s, maps states [N, D] to logits [N, C].

    Returns:
        Loss in nats (mean over the masked regions of the global batch; 0, with gradients of 0, when there is
        none) and the share of this rank's regions whose most probable class is the detector's, both scalars.
    """
    logits, count = predict_masked(states, positions, head), positions.shape[0]
    if count == 0:
        return global_mean(logits.sum() * 0.0, 0), paddle.zeros([])
    targets = class_probs.astype("float32")
    totals = targets.sum(axis=1, keepdim=True)
    targets = targets / paddle.clip(totals, min=1e-12)
    losses = F.cross_entropy(logits, targets, soft_label=True, reduction="none")
    # The gradient of Paddle's kernel assumes that each row of targets sums to 1; rows of zeros must get none.
    loss = global_mean((losses * (totals > 0).astype("float32")).sum(), count)
    return loss, accuracy(logits, targets.argmax(axis=1))
