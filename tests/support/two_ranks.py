"""Run by test_losses_ranks.py on two ranks: losses of a part of the batch each, written as numbers.

python two_ranks.py OUTPUT ...
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import paddle
import paddle.distributed as dist
import paddle.nn.functional as F
from ranks_data import BATCH, GROUPS, MASKED, SHARES, TEMPERATURE, data, maps, pixels, table

from unimo.losses.contrastive import contrastive_loss, nt_xent_loss
from unimo.losses.mlm import masked_lm_loss
from unimo.tasks.segmentation.head import BatchNorm
from unimo.tasks.segmentation.task import PixelScores


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


def segmentation(rows: slice) -> dict:
    """A batch norm of some maps with their gradients, and the scores of some pictures."""
    norm, own = BatchNorm(3), paddle.to_tensor(maps()[rows], stop_gradient=False)
    (norm(own) ** 3).mean().backward()
    metric = PixelScores(3)
    truth, found = (list(each[rows]) for each in pixels())
    metric.update({"class_maps": found}, SimpleNamespace(class_maps=truth))
    statistics = [norm._mean.tolist(), norm._variance.tolist()]
    return {"gradient": own.grad.tolist(), "statistics": statistics, "scores": metric.compute()}


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
        "segmentation": segmentation(slice(rank * half, (rank + 1) * half)),
        "mlm": float(mlm),
        "states": states.grad.tolist(),
    }
    (Path(sys.argv[1]) / f"rank{rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
