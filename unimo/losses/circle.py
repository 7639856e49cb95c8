"""Circle loss (Sun et al., 2020), by which UNIMO's release ranks a pair above mismatched ones (facts 1.7)."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from unimo.losses.reduce import global_mean


def circle_loss(positives: Tensor, negatives: Tensor, margin: float = 0.2, scale: float = 1.0) -> Tensor:
    """log(1 + sum_n exp(g a_n (s_n - m)) * sum_p exp(-g a_p (s_p - (1 - m)))), computed in float64.

    The weights a_p = max(0, 1 + m - s_p) and a_n = max(0, s_n + m) pass no gradient.

    Args:
        positives: s_p [B, P], scores that are to be above 1 - m.
        negatives: s_n [B, N], scores that are to be below m.
        margin: m.
        scale: g.

    Returns:
        Mean over the rows of all ranks, float32.
    """
    above, below = positives.astype("float64"), negatives.astype("float64")
    pull = F.relu(1 + margin - above).detach()
    push = F.relu(below + margin).detach()
    of_positives = paddle.logsumexp(-scale * pull * (above - (1 - margin)), axis=1)
    of_negatives = paddle.logsumexp(scale * push * (below - margin), axis=1)
    # log(1 + exp(x)), which Paddle's softplus computes, is x from there on.
    losses = F.softplus(of_positives + of_negatives, threshold=40)
    return global_mean(losses.sum().astype("float32"), positives.shape[0])
