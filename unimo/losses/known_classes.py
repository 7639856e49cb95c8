"""Classification of some rows of a batch: questions among captions, for example."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from unimo.losses.reduce import global_mean


def known_class_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the cross-entropy of rows whose class is known.

    Args:
        logits: [N, C] float32.
        labels: [N] int64; -1 for rows that do not count.

    Returns:
        Loss in nats (mean over the rows of the global batch that count; 0, with gradients of 0, where there
        are none), and the share of this rank's whose class has the largest logit, both scalars.
    """
    known = (labels >= 0).astype("float32")
    losses = F.cross_entropy(logits, paddle.clip(labels, min=0), reduction="none").flatten()
    with paddle.no_grad():
        hits = (logits.argmax(axis=1) == labels).astype("float32").sum() / paddle.clip(known.sum(), min=1.0)
    return global_mean((losses * known).sum(), known.sum()), hits
