"""Hard negatives of VLMo: who is asked, who is never drawn, and the candidates of Table 6."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from unimo.losses.contrastive import PairVectors
from unimo.models.vlmo.pretrain import draw_both

PAIRS = 12
NEXT = (np.arange(PAIRS) + 1) % PAIRS


def vectors(group: np.ndarray, order: np.ndarray) -> PairVectors:
    """Pairs of which the text of row i is the vector of the image of row `order[i]`."""
    image = np.eye(PAIRS, dtype=np.float32)
    return PairVectors(*map(paddle.to_tensor, (image[order], image, group)))


def test_each_side_draws_by_its_own_scores() -> None:
    """A text draws the image that is nearest to it, and an image the text."""
    drawn = draw_both(vectors(np.arange(PAIRS), NEXT), paddle.to_tensor(0.01))
    np.testing.assert_array_equal(drawn.images.numpy(), NEXT)
    np.testing.assert_array_equal(drawn.texts.numpy(), (np.arange(PAIRS) - 1) % PAIRS)
    assert drawn.image_labels.tolist() == drawn.text_labels.tolist() == [0] * PAIRS


@pytest.mark.parametrize("candidates", [0, 4])
def test_no_pair_of_the_same_picture_is_drawn(candidates: int) -> None:
    """However near it is: here it is the nearest of all. Candidates are of blocks, in order."""
    group = np.array([0, 0, 1, 1, 0, 0, 2, 3, 0, 4, 0, 4])
    order = np.arange(PAIRS)
    order[[0, 1, 2, 3]] = [1, 0, 3, 2]
    rows, seen = np.arange(PAIRS), set()
    for seed in range(40):
        paddle.seed(seed)
        drawn = draw_both(vectors(group, order), paddle.to_tensor(0.05), candidates)
        for found in (drawn.images.numpy(), drawn.texts.numpy()):
            assert (group[found] != group).all()
            assert not candidates or (found // candidates == rows // candidates).all()
            seen |= set(zip(rows, found, strict=True))
    far = {(row, found) for row, found in seen if row // 4 != found // 4}
    assert bool(far) == (candidates == 0)


def test_a_single_picture_leaves_matches_only() -> None:
    drawn = draw_both(vectors(np.zeros(PAIRS, np.int64), NEXT), paddle.to_tensor(0.05))
    assert drawn.image_labels.tolist() == drawn.text_labels.tolist() == [1] * PAIRS
