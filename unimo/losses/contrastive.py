"""Image-text contrastive loss (ITC) over the global batch, and hard negatives drawn from its scores.

ITC is the InfoNCE loss of CLIP in both directions; hard negatives for image-text matching (ITM) are drawn in
proportion to the ITC probabilities, as in ALBEF (Li et al., 2021, section 3.2).
"""

from __future__ import annotations

from typing import Any

import paddle
import paddle.distributed as dist
import paddle.nn.functional as F
from paddle import Tensor
from paddle.autograd import PyLayer

from unimo.losses.reduce import world_size


class _Gather(PyLayer):
    """All-gather along the batch; its backward sums the gradients of all ranks and keeps this rank's rows."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        ctx.rows = local.shape[0]
        return paddle.concat(_all_gather(local))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        first = dist.get_rank() * ctx.rows
        return gradient[first : first + ctx.rows]


def _all_gather(local: Tensor) -> list[Tensor]:
    parts: list[Tensor] = []
    dist.all_gather(parts, local.detach())
    return parts


def row_counts(rows: int) -> list[int]:
    """Return the number of rows of each rank, in rank order. Collective."""
    if world_size() == 1:
        return [rows]
    return paddle.concat(_all_gather(paddle.to_tensor([rows]))).tolist()


def rows_before(counts: list[int]) -> int:
    """Return the index of this rank's first row among those of all ranks."""
    return sum(counts[: dist.get_rank()]) if world_size() > 1 else 0


def gather_rows(local: Tensor, counts: list[int] | None = None) -> Tensor:
    """Gather the rows of all ranks in rank order, [G, ...], with gradient.

    Each rank's loss is over its own rows, which it compares with those of all ranks, so the gradient of a row
    is the sum of its gradients in the losses of all ranks.

    Args:
        local: rows [B, ...] of this rank.
        counts: B of each rank, see `row_counts`; None when all are equal.
    """
    if world_size() == 1:
        return local
    longest = max(counts) if counts else local.shape[0]
    missing = longest - local.shape[0]
    if missing:
        local = paddle.concat([local, paddle.zeros([missing, *local.shape[1:]], local.dtype)])
    gathered = paddle.concat(_all_gather(local)) if local.stop_gradient else _Gather.apply(local)
    if counts is None or min(counts) == longest:
        return gathered
    real = [rank * longest + row for rank, count in enumerate(counts) for row in range(count)]
    return paddle.gather(gathered, paddle.to_tensor(real))


def contrastive_loss(
    text: Tensor, image: Tensor, temperature: Tensor, group: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the mean of image-to-text and text-to-image cross-entropy against soft targets.

    The target of a row is uniform over all gathered rows of the same image: another caption of the picture is
    a positive, not a negative.

    Args:
        text, image: unit vectors [B, E] of this rank.
        temperature: scalar by which cosines are divided.
        group: [B] identities of the images (`Record.image_group`), equal on every rank for the same picture.

    Returns:
        Loss, whose average over ranks is the mean over all rows, and the text-to-image scores within this
        rank [B, B].
    """
    counts = row_counts(text.shape[0])
    all_text, all_image, all_group = (gather_rows(rows, counts) for rows in (text, image, group))
    same = (group.unsqueeze(1) == all_group.unsqueeze(0)).astype("float32")
    targets = same / same.sum(1, keepdim=True)
    text_scores = paddle.matmul(text, all_image, transpose_y=True) / temperature
    image_scores = paddle.matmul(image, all_text, transpose_y=True) / temperature
    to_image = -(F.log_softmax(text_scores) * targets).sum(1).mean()
    to_text = -(F.log_softmax(image_scores) * targets).sum(1).mean()
    first = rows_before(counts)
    loss = (to_image + to_text) * 0.5
    if min(counts) < max(counts):
        # Ranks hold different numbers of rows: weight them, so that the average over ranks is that over rows.
        loss = loss * (text.shape[0] * len(counts) / sum(counts))
    return loss, text_scores[:, first : first + text.shape[0]]


def hard_negatives(scores: Tensor, group: Tensor, column_group: Tensor | None = None) -> Tensor:
    """Draw for each row a column of another group, with probability softmax(scores).

    Args:
        scores: similarity [B, C] of each row to each column.
        group: [B]; columns of the row's own group are never drawn, unless there is no other.
        column_group: [C] groups of the columns; those of the rows when None.

    Returns:
        Column indices [B], int64.
    """
    with paddle.no_grad():
        columns = group if column_group is None else column_group
        other = (group.unsqueeze(1) != columns.unsqueeze(0)).astype("float32")
        # A row without other groups may draw any column: `multinomial` refuses weights that are all zero.
        alone = (other.sum(1, keepdim=True) == 0).astype("float32")
        # The small constant keeps columns possible whose softmax underflows, if no others are left.
        weights = (F.softmax(scores.astype("float32")) + 1e-5) * other + alone
        return paddle.multinomial(weights).squeeze(1)
