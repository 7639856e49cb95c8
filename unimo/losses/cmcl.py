"""Cross-modal contrastive learning of UNIMO (section 2.1, Eqs (1), (6), (7)) over the global batch.

Legend: P image-text pairs (V, W) of this rank, M rewritten pairs of theirs, N vectors of this rank, G of all
ranks, D width, d(V, W) similarity of an image and a text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

from unimo.losses.contrastive import gather_rows, row_counts
from unimo.losses.reduce import global_mean

NOWHERE = -1e30
"""Log of no score at all: finite, so that its gradient is 0 and not NaN."""


@dataclass(frozen=True)
class Bank:
    """What one rank encoded alone, of one kind: images V and V^r, or texts W and W^r, each once."""

    vectors: Tensor
    """[N, D]."""
    ids: Tensor
    """[N] int64, 0 or more, equal for equal images (texts) on whichever rank."""


@dataclass(frozen=True)
class Pairs:
    """The pairs (V, W) that the loss is averaged over."""

    images: Tensor
    """[P] int64: row of V in this rank's bank of images."""
    texts: Tensor
    """[P] int64: row of W in this rank's bank of texts."""
    related_images: Tensor
    """[P, c] int64: ids of X^I (not rows; on whichever rank they are), -1 for none; c may be 0."""
    related_texts: Tensor
    """[P, c] int64: ids of X^T, likewise."""


@dataclass(frozen=True)
class Rewrites:
    """Scores of X^+ and X^-: texts encoded together with the image, the pair's own among the positives."""

    scores: Tensor
    """[M]: d(V, W')."""
    pairs: Tensor
    """[M] int64: number of the pair, below P, that each belongs to."""
    positive: Tensor
    """[M] bool: in X^+, otherwise in X^-."""


def cmcl_loss(
    pairs: Pairs,
    rewrites: Rewrites,
    images: Bank,
    texts: Bank,
    score: Callable[[Tensor, Tensor], Tensor],
    temperature: Tensor | float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """-log(pos / (neg + pos)), pos = pos_p + pos_i + pos_t over rewrites, images and texts, neg likewise.

    All images and texts of the global batch are negatives, but for V and W themselves, what is related to
    them, and what belongs or is related to other pairs of the same image or the same caption: that is true
    of V or W as well, and one number d would have to rise and fall. What several ranks hold counts once.
    A pair without any positive is left out. A rank without pairs takes part: what it encoded is negative
    for the others, and its parameters get a gradient of 0 from its own loss. Collective.

    Args:
        pairs, rewrites, images, texts: of this rank; vectors of both banks have one width.
        score: image vectors [A, D] and text vectors [B, D] to d [A, B]; A or B may be 0.
        temperature: tau, what scores are divided by.

    Returns:
        Loss (mean over the global batch's pairs), and of this rank's pairs: `accuracy`, the share whose best
        candidate is positive, and `negatives`, how many each has on average.
    """
    all_images, all_texts = _gather(images, texts)
    own_images, own_texts = paddle.gather(images.ids, pairs.images), paddle.gather(texts.ids, pairs.texts)
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

    # -log(pos / (neg + pos)) = log(1 + neg / pos)
    losses = F.softplus(_log_sum(scores, neg) - _log_sum(scores, pos))
    answerable = pos.any(axis=1)
    losses = paddle.where(answerable, losses, paddle.zeros_like(losses))
    return global_mean(losses.sum(), answerable.astype("float32").sum()), _report(scores, pos, neg)


def _gather(images: Bank, texts: Bank) -> tuple[Bank, Bank]:
    """The banks of all ranks, each id once: its first place in the order of the ranks.

    One gather for both kinds, because the gradients of two could cross in another order on another rank.
    """
    vectors = paddle.concat([images.vectors, texts.vectors])
    if vectors.stop_gradient:
        # A rank without vectors must still answer when the others ask for their gradients.
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
    """Which images and texts are negative for each pair, bool [P, G] each."""
    own = paddle.stack([own_images, own_texts], axis=1)
    table = paddle.concat([own, pairs.related_images, pairs.related_texts], axis=1)
    table = gather_rows(table, row_counts(table.shape[0]))
    is_kin = (_same(own_images, table[:, 0]) | _same(own_texts, table[:, 1])).astype("float32")
    width = 2 + pairs.related_images.shape[1]
    of_images = paddle.concat([table[:, :1], table[:, 2:width]], axis=1)
    of_texts = paddle.concat([table[:, 1:2], table[:, width:]], axis=1)
    known_images = paddle.matmul(is_kin, _among(of_images, images).astype("float32"))
    known_texts = paddle.matmul(is_kin, _among(of_texts, texts).astype("float32"))
    return known_images == 0, known_texts == 0


def _same(rows: Tensor, columns: Tensor) -> Tensor:
    """Where numbers [P] equal numbers [G], bool [P, G]."""
    return rows.unsqueeze(1) == columns.unsqueeze(0)


def _among(related: Tensor, ids: Tensor) -> Tensor:
    """Which ids [G] are among each pair's related ones [P, c], bool [P, G]."""
    return (related.unsqueeze(2) == ids).any(axis=1)


def _log_sum(scores: Tensor, chosen: Tensor) -> Tensor:
    """Log of the sum of exp(score) over the chosen of each row, [P]; `NOWHERE` or so for none."""
    return paddle.logsumexp(paddle.where(chosen, scores, paddle.full_like(scores, NOWHERE)), axis=1)


@paddle.no_grad()
def _report(scores: Tensor, pos: Tensor, neg: Tensor) -> dict[str, Tensor]:
    if not scores.shape[0]:
        return {"accuracy": paddle.zeros([]), "negatives": paddle.zeros([])}
    nowhere = paddle.full_like(scores, NOWHERE)
    best_pos, best_neg = (paddle.where(chosen, scores, nowhere).max(axis=1) for chosen in (pos, neg))
    return {
        "accuracy": (best_pos > best_neg).astype("float32").mean(),
        "negatives": neg.astype("float32").sum(axis=1).mean(),
    }
