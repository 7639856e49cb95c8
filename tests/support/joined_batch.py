"""Loss and gradients of a small UNIMO-3 on one batch, by one rank or by two ranks with half of it each.

    python tests/support/joined_batch.py OUTPUT [stage=1] [recompute] [hard]

Rank 0 writes `loss.json`; every rank writes what it has of the applied gradients to
`gradients-RANK.safetensors`. With `hard` the ranks hold different numbers of pairs, and ITM's false images
are drawn from both; groups leave one candidate to all texts, so that chance does not matter.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import paddle
from rank_step import join_fields, write_step

from unimo import cli, distributed
from unimo.models.batches import PretrainBatch
from unimo.models.paper import PretrainConfig
from unimo.nn.block import set_recompute
from unimo.registry import create_model
from unimo.settings import OptimConfig, TrainConfig
from unimo.tasks.base import to_tensors
from unimo.tasks.pretrain import PretrainTask
from unimo.training.loop import average_gradients, backward_pass
from unimo.training.optimizer import build_optimizer
from unimo.training.state import wrap

VOCABULARY, LENGTH, SIZE = 50, 9, 32
TARGETS = (1, 5)
"""MLM targets of the two halves: means over each half alone would be wrong."""


def half(number: int, hard: bool = False) -> PretrainBatch:
    """Four pairs, two of them mismatched.

    With `hard` the second half has three pairs, and all pairs but one show the same image.
    """
    rng = np.random.default_rng(number)
    size = 3 if hard and number else 4
    ids = rng.integers(5, VOCABULARY, size=(size, LENGTH))
    mask = (np.arange(LENGTH) < rng.integers(4, LENGTH + 1, size=(size, 1))).astype(np.int64)
    group = 4 * number + np.arange(size)
    count = TARGETS[number]
    return PretrainBatch(
        images=rng.normal(size=(size, 3, SIZE, SIZE)).astype(np.float32),
        input_ids=ids,
        mlm_input_ids=np.where(rng.random(ids.shape) < 0.2, 4, ids),
        attention_mask=mask,
        mlm_positions=np.sort(rng.choice(np.flatnonzero(mask), count, replace=False)),
        mlm_labels=rng.integers(5, VOCABULARY, size=count),
        itm_image_index=np.array([0, 2, 1, 3])[:size],
        itm_labels=np.array([1, 0, 0, 1])[:size],
        image_group=(group == 0).astype(np.int64) if hard else group,
        sample_ids=[f"{number}/{row}" for row in range(size)],
    )


def join(first: PretrainBatch, second: PretrainBatch) -> PretrainBatch:
    """Join the halves; positions and image rows of the second move behind those of the first."""
    second = dataclasses.replace(
        second,
        mlm_positions=second.mlm_positions + 4 * LENGTH,
        itm_image_index=second.itm_image_index + 4,
    )
    return join_fields(first, second)


def main() -> None:
    output, stage, hard = Path(sys.argv[1]), int("stage=1" in sys.argv), "hard" in sys.argv
    distributed.setup(TrainConfig(device="cpu", sharding_stage=stage))
    paddle.seed(distributed.rank())  # different starts: rank 0's must reach all
    part = {"hidden_size": 16, "num_heads": 2, "intermediate_size": 32, "num_layers": 2}
    model = create_model(
        "unimo3_tiny",
        text={**part, "vocab_size": VOCABULARY},
        vision={**part, "image_size": SIZE, "patch_size": 16},
        fusion=part,
        objective={"itm_negatives": "hard" if hard else "random"},
    )
    task = PretrainTask(model, PretrainConfig())
    task.train()
    recompute = "recompute" in sys.argv
    set_recompute(task, recompute)
    optim = OptimConfig(clip_grad_norm=None, weight_decay=0.0, lr=0.0)
    adamw = build_optimizer(task, optim)
    layer, optimizer = wrap(task, adamw, stage)
    two = distributed.world_size() == 2
    batch = half(distributed.rank(), hard) if two else join(half(0, hard), half(1, hard))
    with backward_pass(layer, is_last=True, recompute=recompute):
        loss, values = layer(to_tensors(batch))
        loss.backward()
    average_gradients(layer, recompute)
    optimizer.step()
    write_step(output, task, adamw, optim.betas[0], {"loss": loss, **values})


if __name__ == "__main__":
    cli.run(main)
