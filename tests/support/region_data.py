"""Masked regions that test_cmcl_ranks.py and its ranks share: three on the first rank, none on the second."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paddle

from unimo.losses.region import region_classification_loss, region_regression_loss

# Positions within the rank's one picture of four regions.
MASKED = ([0, 2, 3], [])


def run_regions(ranks: Sequence[int]) -> dict:
    """Both losses and their gradients, of the pictures of these ranks in one batch."""
    rng = np.random.default_rng(0)
    states, weight = rng.standard_normal((2, 4, 3)), rng.standard_normal((3, 5))
    targets = np.abs(rng.standard_normal((3, 5)))
    leaves = [paddle.to_tensor(x.astype("float32"), stop_gradient=False) for x in (states[ranks], weight)]
    places = [4 * number + place for number, rank in enumerate(ranks) for place in MASKED[rank]]
    wanted = paddle.to_tensor(targets[: len(places)].astype("float32"))
    positions = paddle.to_tensor(np.array(places, np.int64))

    def head(rows: paddle.Tensor) -> paddle.Tensor:
        return paddle.matmul(rows, leaves[1])

    regression = region_regression_loss(leaves[0], positions, wanted, head)
    classification, _ = region_classification_loss(leaves[0], positions, wanted, head)
    (regression + 2 * classification).backward()
    losses = {"regression": float(regression), "classification": float(classification)}
    return losses | {"states": leaves[0].grad.tolist(), "weight": leaves[1].grad.tolist()}
