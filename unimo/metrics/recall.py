"""Recall at k for image and text retrieval, from a matrix of scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

KS = (1, 5, 10)
_ROWS_AT_ONCE = 1024


def retrieval_recall(
    scores: np.ndarray,
    text_image_ids: Sequence[str] | np.ndarray,
    image_ids: Sequence[str] | np.ndarray,
) -> dict[str, float]:
    """Compute R@1, R@5, R@10 of image retrieval (IR) and text retrieval (TR), their sum and their mean.

    A query is found at k when fewer than k wrong candidates score at least as high as its best right one:
    ties count against the model, so constant scores give 0 rather than a lucky 100. Candidates that a first
    stage left out have score -inf and are never found.

    Args:
        scores: [texts, images], higher is better.
        text_image_ids: [texts], id of the image of each text.
        image_ids: [images], id of each image.

    Returns:
        `ir_r1 ir_r5 ir_r10 tr_r1 tr_r5 tr_r10` in percent, `rsum`, their sum (at most 600), and `rmean`.

    Raises:
        ValueError: shapes that do not match, a NaN score, or a text or image without partner.
    """
    scores, texts, images = np.asarray(scores), np.asarray(text_image_ids), np.asarray(image_ids)
    if scores.shape != (len(texts), len(images)):
        raise ValueError(f"scores {scores.shape} do not fit {len(texts)} texts and {len(images)} images")
    result = {f"ir_r{k}": value for k, value in zip(KS, _recall(scores, texts, images), strict=True)}
    result |= {f"tr_r{k}": value for k, value in zip(KS, _recall(scores.T, images, texts), strict=True)}
    rsum = sum(result.values())
    return result | {"rsum": rsum, "rmean": rsum / len(result)}


def _recall(scores: np.ndarray, queries: np.ndarray, candidates: np.ndarray) -> list[float]:
    ranks = [np.zeros(0)]
    for start in range(0, len(queries), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        block, right = scores[rows], queries[rows, None] == candidates[None, :]
        if np.isnan(block).any():
            raise ValueError("retrieval scores contain NaN")
        if not right.any(axis=1).all():
            lonely = queries[rows][~right.any(axis=1)][0]
            raise ValueError(f"nothing in the candidates matches image id {str(lonely)!r}")
        # The rank of a query is the number of wrong candidates at or above its best right one.
        best = np.where(right, block, -np.inf).max(axis=1, keepdims=True)
        above = ((block >= best) & ~right).sum(axis=1)
        ranks.append(np.where(np.isneginf(best[:, 0]), np.inf, above))
    found = np.concatenate(ranks)
    return [100.0 * float(np.mean(found < k)) if len(found) else 0.0 for k in KS]
