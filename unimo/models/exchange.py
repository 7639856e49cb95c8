"""Rows that objectives exchange between ranks. All functions also work in a single process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paddle
import paddle.distributed as dist
from paddle import Tensor

from unimo.distributed import gather, rank, world_size


def same_on_all(tensor: Tensor) -> Tensor:
    """Return the tensor of rank 0 on all ranks. Collective."""
    if world_size() > 1:
        tensor = tensor.clone()
        dist.broadcast(tensor, 0)
    return tensor


def fetch_rows(local: Tensor, wanted: Tensor, counts: Sequence[int]) -> Tensor:
    """Return rows of the joined tensors of all ranks, without gradient. Collective.

    A row goes to the ranks that want it, once to each, and to no other. Which those are must be known to
    both sides, so the numbers are read on the host.

    Args:
        local: [B, ...] of this rank.
        wanted: [N] int64, numbers among the rows of all ranks, in rank order.
        counts: number of rows of each rank.
    """
    if world_size() == 1:
        return paddle.gather(local, wanted)
    here, asked = rank(), gather(wanted.tolist())
    starts = np.cumsum([0, *counts]).tolist()
    ranks = range(world_size())
    needed = {
        (asking, owner): sorted({row for row in asked[asking] if starts[owner] <= row < starts[owner + 1]})
        for asking in ranks
        for owner in ranks
    }
    got = []
    # All ranks go through the pairs in one order, so that none waits for one that waits for it.
    for (asking, owner), rows in needed.items():
        if here == owner and rows:
            found = paddle.gather(local, paddle.to_tensor(rows, "int64") - starts[owner])
            if asking != owner:
                dist.send(found, asking)
        elif here == asking and rows:
            found = paddle.empty([len(rows), *local.shape[1:]], local.dtype)
            dist.recv(found, owner)
        if here == asking and rows:
            got.append(found)
    order = [row for owner in ranks for row in needed[here, owner]]
    places = {row: place for place, row in enumerate(order)}
    return paddle.gather(paddle.concat(got), paddle.to_tensor([places[row] for row in asked[here]], "int64"))
