"""Visual contrastive learning: two views of an image find each other among all views of the global batch."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from unimo.losses.contrastive import gather_rows, row_counts, rows_before
from unimo.losses.reduce import global_mean


def nt_xent_loss(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Normalised temperature-scaled cross-entropy (SimCLR, Eq. (1)), averaged over all views.

    Every view is to pick the other view of its image; the views of all other images of all ranks are the
    negatives. Ranks may hold different numbers of images, and each holds one at least.

    Args:
        first, second: unit vectors [B, E] of this rank: row i of both is of image i.
        temperature: what cosines are divided by.

    Returns:
        Loss (mean over the global batch's 2 G views) and the share of this rank's views that pick the
        right one, both scalars.
    """
    size = first.shape[0]
    counts = row_counts(size)
    total, begin = sum(counts), rows_before(counts)
    views = gather_rows(paddle.stack([first, second], axis=1).astype("float32"), counts)
    candidates = paddle.concat([views[:, 0], views[:, 1]])
    asking = paddle.concat([first, second]).astype("float32")
    scores = paddle.matmul(asking, candidates, transpose_y=True) / temperature
    place = paddle.arange(begin, begin + size, dtype="int64")
    itself, partner = paddle.concat([place, place + total]), paddle.concat([place + total, place])
    scores = scores - 1e9 * F.one_hot(itself, 2 * total)
    loss = global_mean(F.cross_entropy(scores, partner, reduction="sum"), 2 * size)
    with paddle.no_grad():
        accuracy = (scores.argmax(axis=1) == partner).astype("float32").mean()
    return loss, accuracy
