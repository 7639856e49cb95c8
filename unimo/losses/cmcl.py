"""Cross-modal contrastive learning (CMCL) of UNIMO (section 2.1, Eqs (1), (6), (7)) over the global batch.

For an image-text pair (V, W) the paper names these sets:

    X^+  rewrites of W that are true of V (the caption itself, back-translations), read together with V
    X^-  rewrites of W that are false (similar captions of other images, swapped words), read together with V
    X^I  images related to V, encoded alone and compared with W
    X^T  texts related to W, encoded alone and compared with V
    Y^I, Y^T  the other images and texts of the batch, encoded alone and compared with W and with V

Legend: P image-text pairs (V, W) of this rank, M rewritten pairs of theirs, N vectors of this rank, G of all
ranks, D width, d(V, W) similarity of an image and a text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

from unimo.losses.contrastive import gather_rows, row_counts
from unimo.losses.reduce import global_mean
from unimo.losses.vectors import Vectors

LOG_ZERO = -1e30
"""Stands for log 0 in masked sums: finite, so that its gradient is 0 and not NaN."""


@dataclass(frozen=True)
class Bank:
    """Images (V and V^r) or texts (W and W^r) that this rank encoded alone, each once."""

    vectors: Tensor
    """Representations [N, D]."""
    ids: Tensor
    """Identities [N] int64, not negative, equal for equal images (texts) on every rank."""


@dataclass(frozen=True)
class Pairs:
    """The pairs (V, W) that the loss is averaged over."""

    images: Tensor
    """[P] int64: row of V in this rank's bank of images."""
    texts: Tensor
    """[P] int64: row of W in this rank's bank of texts."""
    related_images: Tensor
    """[P, c] int64: ids (not rows) of X^I, which any rank may hold; -1 for none; c may be 0."""
    related_texts: Tensor
    """[P, c] int64: ids (not rows) of X^T, in the same form."""


@dataclass(frozen=True)
class Rewrites:
    """Scores of X^+ and X^-: texts encoded together with the image, the pair's own text among X^+."""

    scores: Tensor
    """[M]: d(V, W')."""
    pairs: Tensor
    """[M] int64: index of the pair that each belongs to, 0 .. P - 1."""
    positive: Tensor
    """[M] bool: True for X^+, False for X^-."""


@dataclass(frozen=True)
class Compared(Vectors):
    """All that CMCL compares: pairs and the banks that they name rows of."""

    pairs: Pairs
    rewrites: Rewrites
    images: Bank
    texts: Bank

    @classmethod
    def join(cls, parts: Sequence[Compared]) -> Compared:
        """Return several batches as one; rows of later ones move behind those of earlier ones.

        A sample of several batches has a row of each: the loss knows it by its id and counts it once.
        """
        moved, images, texts, count = [], 0, 0, 0
        for part in parts:
            pairs = replace(part.pairs, images=part.pairs.images + images, texts=part.pairs.texts + texts)
            rewrites = replace(part.rewrites, pairs=part.rewrites.pairs + count)
            moved.append(replace(part, pairs=pairs, rewrites=rewrites))
            images, texts = images + part.images.ids.shape[0], texts + part.texts.ids.shape[0]
            count += pairs.images.shape[0]
        return super().join(moved)


def cmcl_loss(
    pairs: Pairs,
    rewrites: Rewrites,
    images: Bank,
    texts: Bank,
    score: Callable[[Tensor, Tensor], Tensor],
    temperature: Tensor | float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute -log(pos / (neg + pos)) with pos = pos_P + pos_I + pos_T and neg = neg_P + neg_I + neg_T.

    Every image and text of the global batch is a negative, except V and W themselves, what is related to
    them, and what belongs or is related to other pairs of the same image or the same caption: those are true
    of V or W as well, and the same score d would be pushed up and down. A sample held by several ranks counts
    once. Pairs without any positive are left out. A rank without pairs takes part: its images and texts are
    negatives of the others, and its own loss gives its parameters a gradient of 0. Collective.

    Args:
        pairs, rewrites, images, texts: samples of this rank; vectors of both banks have the same width.
        score: maps image vectors [A, D] and text vectors [B, D] to d [A, B]; A or B may be 0.
        temperature: tau, by which scores are divided.

    Returns:
        Loss (mean over the pairs of the global batch), and for this rank's pairs `accuracy`, the share whose
        best candidate is a positive, and `negatives`, their average number.
    """
    all_images, all_texts = _gather(images, texts)
    own_images, own_texts = paddle.gather(images.ids, pairs.images), paddle.gather(texts.ids, pairs.texts)
    # Masks of the six sums of Eq. (7), one row a pair. V and W compared alone are in none of them: the pair
    # itself is scored with its text read together with its image, in X^+.
    pos_i = _among(pairs.related_images, all_images.ids) & ~_same(own_images, all_images.ids)
    pos_t = _among(pairs.related_texts, all_texts.ids) & ~_same(own_texts, all_texts.ids)
    neg_i, neg_t = _negatives(pairs, own_images, own_texts, all_images.ids, all_texts.ids)
    belongs = _same(paddle.arange(own_images.shape[0]), rewrites.pairs)
    pos_p, neg_p = belongs & rewrites.positive, belongs & ~rewrites.positive

    image_scores = score(all_images.vectors, paddle.gather(texts.vectors, pairs.texts)).t()
    text_scores = score(paddle.gather(images.vectors, pairs.images), all_texts.vectors)
    pair_scores = rewrites.scores.unsqueeze(0).expand(belongs.shape)
    scores = paddle.concat([pair_scores, image_scores, text_scores], axis=1).astype("float32") / temperature
    pos, neg = paddle.concat([pos_p, pos_i, pos_t], axis=1), paddle.concat([neg_p, neg_i, neg_t], axis=1)

    # Eq. (6): -log(pos / (neg + pos)) = log(1 + neg / pos) = softplus(log neg - log pos)
    losses = F.softplus(_log_sum(scores, neg) - _log_sum(scores, pos))
    answerable = pos.any(axis=1)
    losses = paddle.where(answerable, losses, paddle.zeros_like(losses))
    return global_mean(losses.sum(), answerable.astype("float32").sum()), _report(scores, pos, neg)


def _gather(images: Bank, texts: Bank) -> tuple[Bank, Bank]:
    """Return the banks of all ranks, each id once, at its first occurrence in rank order.

    Both banks share one gather: with two, the backward passes could meet in a different order on each rank.
    """
    vectors = paddle.concat([images.vectors, texts.vectors])
    if vectors.stop_gradient:
        # A rank without vectors must still take part in the collective of the backward pass.
        vectors.stop_gradient = False
    labels = [
        paddle.stack([paddle.full_like(bank.ids, kind), bank.ids], axis=1)
        for kind, bank in enumerate((images, texts))
    ]
    counts = row_counts(vectors.shape[0])
    vectors, label_rows = gather_rows(vectors, counts), gather_rows(paddle.concat(labels), counts)
    table = label_rows.numpy()
    first = np.zeros(len(table), bool)
    first[np.unique(table, axis=0, return_index=True)[1]] = True
    banks = []
    for kind in (0, 1):
        rows = paddle.to_tensor(np.flatnonzero(first & (table[:, 0] == kind)))
        banks.append(Bank(paddle.gather(vectors, rows), paddle.gather(label_rows, rows)[:, 1]))
    return banks[0], banks[1]


def _negatives(
    pairs: Pairs, own_images: Tensor, own_texts: Tensor, images: Tensor, texts: Tensor
) -> tuple[Tensor, Tensor]:
    """Mark the images Y^I and the texts Y^T that are negatives of each pair, bool [P, G] each."""
    own = paddle.stack([own_images, own_texts], axis=1)
    table = paddle.concat([own, pairs.related_images, pairs.related_texts], axis=1)
    table = gather_rows(table, row_counts(table.shape[0]))
    # Pairs of the global batch that share the image or the caption; all that they show or say is excluded.
    shares = (_same(own_images, table[:, 0]) | _same(own_texts, table[:, 1])).astype("float32")
    width = 2 + pairs.related_images.shape[1]
    known_images = paddle.concat([table[:, :1], table[:, 2:width]], axis=1)
    known_texts = paddle.concat([table[:, 1:2], table[:, width:]], axis=1)
    excluded_images = paddle.matmul(shares, _among(known_images, images).astype("float32"))
    excluded_texts = paddle.matmul(shares, _among(known_texts, texts).astype("float32"))
    return excluded_images == 0, excluded_texts == 0


def _same(rows: Tensor, columns: Tensor) -> Tensor:
    """Compare numbers [P] with numbers [G]; bool [P, G]."""
    return rows.unsqueeze(1) == columns.unsqueeze(0)


def _among(related: Tensor, ids: Tensor) -> Tensor:
    """Mark the ids [G] that each pair's related ids [P, c] contain; bool [P, G]."""
    return (related.unsqueeze(2) == ids).any(axis=1)


def _log_sum(scores: Tensor, chosen: Tensor) -> Tensor:
    """Compute log(sum of exp(score)) over the chosen columns of each row, [P]; about `LOG_ZERO` for none."""
    return paddle.logsumexp(paddle.where(chosen, scores, paddle.full_like(scores, LOG_ZERO)), axis=1)


@paddle.no_grad()
def _report(scores: Tensor, pos: Tensor, neg: Tensor) -> dict[str, Tensor]:
    if not scores.shape[0]:
        return {"accuracy": paddle.zeros([]), "negatives": paddle.zeros([])}
    lowest = paddle.full_like(scores, LOG_ZERO)
    best_pos, best_neg = (paddle.where(chosen, scores, lowest).max(axis=1) for chosen in (pos, neg))
    return {
        "accuracy": (best_pos > best_neg).astype("float32").mean(),
        "negatives": neg.astype("float32").sum(axis=1).mean(),
    }
