"""Visual contrastive learning (VCL) of UNIMO-2 (section 3.2) on images alone.

Two random views of an image must find each other among the views of all images, as in SimCLR (Chen et al.,
2020).
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from unimo.losses.contrastive import gather_rows, row_counts, rows_before
from unimo.losses.reduce import accuracy, global_mean


def nt_xent_loss(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Compute the normalised temperature-scaled cross-entropy (SimCLR, Eq. (1)), averaged over all views.

    For every view the other view of its image is the target, and the views of all other images of all ranks
    are the negatives. Ranks may hold different numbers of images, at least one each.

    Args:
        first, second: unit vectors [B, E] of this rank; row i of both belongs to image i.
        temperature: scalar by which cosines are divided.

    Returns:
        Loss (mean over the 2 G views of the global batch) and the share of this rank's views that score their
        target highest, both scalars.
    """
    size = first.shape[0]
    counts = row_counts(size)
    total, begin = sum(counts), rows_before(counts)
    views = gather_rows(paddle.stack([first, second], axis=1).astype("float32"), counts)
    # Columns: the first views of all G images, then the second views.
    candidates = paddle.concat([views[:, 0], views[:, 1]])
    queries = paddle.concat([first, second]).astype("float32")
    scores = paddle.matmul(queries, candidates, transpose_y=True) / temperature
    index = paddle.arange(begin, begin + size, dtype="int64")
    itself, partner = paddle.concat([index, index + total]), paddle.concat([index + total, index])
    scores = scores - 1e9 * F.one_hot(itself, 2 * total)  # a view is no candidate for itself
    loss = global_mean(F.cross_entropy(scores, partner, reduction="sum"), 2 * size)
    return loss, accuracy(scores, partner)
