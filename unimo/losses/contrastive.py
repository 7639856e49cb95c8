"""Contrastive losses over the global batch, and hard negatives drawn from their scores.

- Image-text contrast (ITC) is the InfoNCE loss of CLIP in both directions.
- Image-text matching (ITM): a binary classifier on a fused pair decides whether its parts belong together
  (UNIMO-2, section 3.2; UNIMO-3, section 3.4); retrieval reranks by its scores. Hard negatives are drawn in
  proportion to the probabilities of ITC, as in ALBEF (Li et al., 2021, section 3.2).
- Visual contrast (VCL) of UNIMO-2 (section 3.2) is on images alone: two random views of an image must find
  each other among the views of all images, as in SimCLR (Chen et al., 2020).
- Circle loss (Sun et al., 2020) is what the released code of UNIMO and UNIMO-2 fine-tunes retrieval with. A
  pair's score is pushed above 1 - m and the scores of mismatched pairs below m. The further a score is from
  its goal, the larger its weight in the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import paddle
import paddle.distributed as dist
import paddle.nn.functional as F
from paddle import Tensor
from paddle.autograd import PyLayer

from unimo.losses.reduce import accuracy, global_mean, ranks
from unimo.losses.vectors import Vectors
from unimo.nn.kernels import log_softmax


class _Gather(PyLayer):
    """All-gather along the batch; its backward sums the gradients of all ranks and keeps this rank's rows.

    Ranks may hold different numbers of rows. That is settled in here, so that every rank has the same graph
    and runs the collectives of the backward pass in the same order.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor, counts: list[int]) -> Tensor:
        ctx.first, ctx.rows = rows_before(counts), local.shape[0]
        return _all_rows(local, counts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient[ctx.first : ctx.first + ctx.rows]


def _all_rows(local: Tensor, counts: list[int]) -> Tensor:
    missing = max(counts) - local.shape[0]  # all-gather wants equal shapes
    if missing:
        local = paddle.concat([local, paddle.zeros([missing, *local.shape[1:]], local.dtype)])
    parts: list[Tensor] = []
    dist.all_gather(parts, local.detach())
    return paddle.concat([part[:count] for part, count in zip(parts, counts, strict=True) if count])


def row_counts(rows: int) -> list[int]:
    """Return the number of rows of each rank, in rank order. Collective."""
    return _all_rows(paddle.to_tensor([rows]), [1] * ranks()).tolist() if ranks() > 1 else [rows]


def rows_before(counts: list[int]) -> int:
    """Return the index of this rank's first row among those of all ranks."""
    return sum(counts[: dist.get_rank()]) if ranks() > 1 else 0


def gather_rows(local: Tensor, counts: list[int]) -> Tensor:
    """Gather rows [B, ...] of all ranks, in rank order, to [G, ...], with gradient. Collective.

    Each rank's loss is over its own rows, which it compares with those of all ranks, so the gradient of a row
    is the sum of its gradients in the losses of all ranks. `counts` is from `row_counts`.
    """
    if ranks() == 1:
        return local
    return _all_rows(local, counts) if local.stop_gradient else _Gather.apply(local, counts)


@dataclass(frozen=True)
class PairVectors(Vectors):
    """Texts and images that ITC compares."""

    text: Tensor
    """Unit vectors [B, E]."""
    image: Tensor
    """Unit vectors [B, E]."""
    group: Tensor
    """[B] identities of the images (`Record.image_group`), equal on every rank for the same picture."""


@dataclass(frozen=True)
class ViewVectors(Vectors):
    """Two views of each image, which VCL compares; row i of both belongs to image i."""

    first: Tensor
    """Unit vectors [B, E]."""
    second: Tensor
    """Unit vectors [B, E]."""


@dataclass(frozen=True)
class Contrast:
    """Contrast of the B pairs of this rank with the G pairs of all ranks."""

    loss: Tensor
    """Scalar; its average over ranks is the mean over all pairs."""
    scores: Tensor
    """[B, G] cosines of this rank's texts with all images, divided by the temperature."""
    groups: Tensor
    """[G] identities of the images."""
    counts: list[int]
    """Number of pairs of each rank."""

    @property
    def own_rows(self) -> Tensor:
        """Rows of this rank's pairs among those of all ranks, [B] int64."""
        first = rows_before(self.counts)
        return paddle.arange(first, first + self.scores.shape[0], dtype="int64")

    @property
    def own_scores(self) -> Tensor:
        """Scores [B, B] of this rank's texts with its own images."""
        first = rows_before(self.counts)
        return self.scores[:, first : first + self.scores.shape[0]]


def contrast_pairs(vectors: PairVectors, temperature: Tensor) -> Contrast:
    """Compute `contrastive_loss` of pairs. Collective."""
    return contrastive_loss(vectors.text, vectors.image, temperature, vectors.group)


def contrastive_loss(text: Tensor, image: Tensor, temperature: Tensor, group: Tensor) -> Contrast:
    """Compute the mean of image-to-text and text-to-image cross-entropy against soft targets.

    The target of a row is uniform over all gathered rows of the same image: another caption of the picture is
    a positive, not a negative. Collective.

    Args:
        text, image: unit vectors [B, E] of this rank.
        temperature: scalar by which cosines are divided.
        group: [B] identities of the images (`Record.image_group`), equal on every rank for the same picture.
    """
    counts = row_counts(text.shape[0])
    all_text, all_image, all_group = (gather_rows(rows, counts) for rows in (text, image, group))
    same = (group.unsqueeze(1) == all_group.unsqueeze(0)).astype("float32")
    targets = same / same.sum(1, keepdim=True)
    text_scores = paddle.matmul(text, all_image, transpose_y=True) / temperature
    image_scores = paddle.matmul(image, all_text, transpose_y=True) / temperature
    to_image = -(log_softmax(text_scores) * targets).sum(1).mean()
    to_text = -(log_softmax(image_scores) * targets).sum(1).mean()
    loss = (to_image + to_text) * 0.5
    if min(counts) < max(counts):
        # Ranks hold different numbers of rows: weight them, so that the average over ranks is that over rows.
        loss = loss * (text.shape[0] * len(counts) / sum(counts))
    return Contrast(loss, text_scores, all_group, counts)


def draw_hard_images(contrast: Contrast, matched: Tensor) -> tuple[Tensor, Tensor]:
    """Choose the image that matching (ITM) shows with each text of this rank: its own, or a hard negative.

    Negatives are drawn among the images of all ranks, in proportion to the softmax of their scores.

    Args:
        matched: [B], 1 for texts that keep their image.

    Returns:
        Rows of the images among those of all ranks, [B] int64, and labels [B] int64, 1 = match. Where all
        ranks hold a single picture, there is no negative: what is drawn is a match, and labelled as one.
    """
    own = contrast.own_rows
    group = paddle.gather(contrast.groups, own)
    drawn = hard_negatives(contrast.scores, group, contrast.groups)
    rows = paddle.where(matched == 1, own, drawn)
    return rows, (paddle.gather(contrast.groups, rows) == group).astype("int64")


def hard_negatives(
    scores: Tensor,
    group: Tensor,
    column_group: Tensor | None = None,
    chance: Tensor | None = None,
    pool: Tensor | None = None,
) -> Tensor:
    """Draw for each row a column of another group, with probability softmax(scores), as indices [B] int64.

    Args:
        scores: similarity [B, C] of each row to each column.
        group: [B]; columns of the row's own group are never drawn, unless there is no other.
        column_group: [C] groups of the columns; those of the rows when None.
        chance: [B] numbers from [0, 1) that decide; new ones when None.
        pool: [B, C], 1 for columns that a row may draw, as long as one is of another group; all when None.
    """
    with paddle.no_grad():
        columns = group if column_group is None else column_group
        other = (group.unsqueeze(1) != columns.unsqueeze(0)).astype("float32")
        if pool is not None:
            near = other * pool.astype("float32")
            other = paddle.where(near.sum(1, keepdim=True) > 0, near, other)
        # A row without other groups may draw any column.
        alone = (other.sum(1, keepdim=True) == 0).astype("float32")
        # The small constant keeps columns possible whose softmax underflows, if no others are left.
        weights = (F.softmax(scores.astype("float32")) + 1e-5) * other + alone
        ends = paddle.cumsum(weights.astype("float64"), axis=1)
        chance = paddle.rand([scores.shape[0]]) if chance is None else chance
        # The column whose share of [0, sum) holds the number: the first that ends above it.
        return (ends <= chance.astype("float64").unsqueeze(1) * ends[:, -1:]).astype("int64").sum(1)


def circle_loss(positives: Tensor, negatives: Tensor, margin: float = 0.2, scale: float = 1.0) -> Tensor:
    """Compute log(1 + sum_n exp(g a_n (s_n - m)) * sum_p exp(-g a_p (s_p - (1 - m)))) in float64.

    The weights a_p = max(0, 1 + m - s_p) and a_n = max(0, s_n + m) carry no gradient.

    Args:
        positives: s_p [B, P], scores of matching pairs.
        negatives: s_n [B, N], scores of mismatched pairs.
        margin, scale: m and g.

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


def two_classes(scores: Tensor) -> Tensor:
    """Turn scores [N] into logits [N, 2] of mismatch and match, so that P(match) = sigmoid(score)."""
    return paddle.stack([paddle.zeros_like(scores), scores], axis=1)


def matching_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the cross-entropy of logits [B, 2] of mismatch and match, and labels [B] int64, 1 = match.

    Returns:
        Loss in nats (mean over the global batch) and accuracy on this rank, both scalars.
    """
    logits = logits.astype("float32")
    loss = global_mean(F.cross_entropy(logits, labels, reduction="sum"), labels.shape[0])
    return loss, accuracy(logits, labels)
