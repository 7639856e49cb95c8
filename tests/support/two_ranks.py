"""Run by test_losses_ranks.py on two ranks: losses of a part of the batch each, written as numbers.

python two_ranks.py OUTPUT ...
"""

import json
import sys
from pathlib import Path

import paddle
import paddle.distributed as dist
import paddle.nn.functional as F
from ranks_data import BATCH, GROUPS, MASKED, SHARES, TEMPERATURE, data, table

from unimo.losses.contrastive import contrastive_loss, nt_xent_loss
from unimo.losses.mlm import masked_lm_loss


def contrasts(rows: slice) -> dict:
    """ITC and NT-Xent of some rows, with their gradients."""
    result = {}
    for name in ("itc", "views"):
        leaves = [paddle.to_tensor(x[rows], stop_gradient=False) for x in data()]
        first, second = map(F.normalize, leaves)
        if name == "itc":
            group = paddle.to_tensor(GROUPS[rows])
            loss = contrastive_loss(first, second, paddle.to_tensor(TEMPERATURE), group).loss
        else:
            loss, _ = nt_xent_loss(first, second, TEMPERATURE)
        loss.backward()
        result[name] = {"loss": float(loss), "gradients": [leaf.grad.tolist() for leaf in leaves]}
    return result


def main() -> None:
    """One loss and one gradient of each kind for this rank's rows."""
    dist.init_parallel_env()
    rank, half = dist.get_rank(), BATCH // dist.get_world_size()
    shares = {
        name: contrasts(slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))) for name, sizes in SHARES.items()
    }
    own = data()[0][rank * half : (rank + 1) * half]
    states = paddle.to_tensor(own.reshape(half, 2, -1), stop_gradient=False)
    positions, labels = MASKED[rank]
    weight = paddle.to_tensor(table())
    mlm, _ = masked_lm_loss(
        states, paddle.to_tensor(positions), paddle.to_tensor(labels), lambda x: paddle.matmul(x, weight)
    )
    mlm.backward()
    result = {
        **shares,
        "mlm": float(mlm),
        "states": states.grad.tolist(),
    }
    (Path(sys.argv[1]) / f"rank{rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
