"""Run by test_losses_ranks.py on two ranks: losses of half a batch each, written as numbers.

python two_ranks.py OUTPUT ...
"""

import json
import sys
from pathlib import Path

import paddle
import paddle.distributed as dist
import paddle.nn.functional as F
from ranks_data import BATCH, GROUPS, MASKED, data, table

from unimo.losses.contrastive import contrastive_loss
from unimo.losses.mlm import masked_lm_loss


def main() -> None:
    """One loss and one gradient of each kind for this rank's rows."""
    dist.init_parallel_env()
    rank, half = dist.get_rank(), BATCH // dist.get_world_size()
    rows = slice(rank * half, (rank + 1) * half)
    text, image = (paddle.to_tensor(x[rows], stop_gradient=False) for x in data())
    group = paddle.to_tensor(GROUPS[rows])
    loss = contrastive_loss(F.normalize(text), F.normalize(image), paddle.to_tensor(0.2), group).loss
    loss.backward()
    states = paddle.to_tensor(data()[0][rows].reshape(half, 2, -1), stop_gradient=False)
    positions, labels = MASKED[rank]
    weight = paddle.to_tensor(table())
    mlm, _ = masked_lm_loss(
        states, paddle.to_tensor(positions), paddle.to_tensor(labels), lambda x: paddle.matmul(x, weight)
    )
    mlm.backward()
    result = {
        "loss": float(loss),
        "text": text.grad.tolist(),
        "image": image.grad.tolist(),
        "mlm": float(mlm),
        "states": states.grad.tolist(),
    }
    (Path(sys.argv[1]) / f"rank{rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
