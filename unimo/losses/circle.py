"""Circle loss (Sun et al., 2020), with which UNIMO's released code fine-tunes retrieval.

A pair's score is pushed above 1 - m and the scores of mismatched pairs below m. The further a score is from
its goal, the larger its weight in the gradient.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from unimo.losses.reduce import global_mean


def circle_loss(positives: Tensor, negatives: Tensor, margin: float = 0.2, scale: float = 1.0) -> Tensor:
    """Compute log(1 + sum_n exp(g a_n (s_n - m)) * sum_p exp(-g a_p (s_p - (1 - m)))) in float64.

    The weights a_p = max(0, 1 + m - s_p) and a_n = max(0, s_n + m) carry no gradient.

    Args:
        positives: s_p [B, P], scores of matching pairs.
        negatives: s_n [B, N], scores of mismatched pairs.
        margin: m.
        scale: g.

    Returns:
        Mean over the rows of all ranks, float32.
    """
    matched, mismatched = positives.astype("float64"), negatives.astype("float64")
    pull = F.relu(1 + margin - matched).detach()
    push = F.relu(mismatched + margin).detach()
    log_positives = paddle.logsumexp(-scale * pull * (matched - (1 - margin)), axis=1)
    log_negatives = paddle.logsumexp(scale * push * (mismatched - margin), axis=1)
    # The product of both sums is the sum of their logs, and log(1 + exp(x)) is softplus(x). Above the
    # threshold Paddle returns x itself, which at 40 is exact in float64.
    losses = F.softplus(log_positives + log_negatives, threshold=40)
    return global_mean(losses.sum().astype("float32"), positives.shape[0])
