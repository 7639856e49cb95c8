"""What a rank leaves of one step of a small model, for tests that compare ranks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import paddle

from unimo.tasks.base import Task
from unimo.training import distributed
from unimo.training.optim import optimizer_tensors
from unimo.weights import write_safetensors


def write_step(
    output: Path,
    task: Task,
    adamw: paddle.optimizer.AdamW,
    beta1: float,
    numbers: Mapping[str, paddle.Tensor],
) -> None:
    """Write `gradients-RANK.safetensors`, what this rank has of the applied gradients, and on rank 0
    `loss.json`, the means of `numbers` over the ranks.

    Args:
        output: folder.
        task: what took the step.
        adamw: after its first step, whose first moments are (1 - beta1) times the gradients.
        beta1: of `adamw`.
        numbers: scalars of this rank.
    """
    means = {
        name: float(distributed.mean_over_ranks(value.detach()).item()) for name, value in numbers.items()
    }
    state = optimizer_tensors(adamw, task)
    gradients = {name: value / (1 - beta1) for name, value in state.items() if name.endswith("moment1")}
    write_safetensors(output / f"gradients-{distributed.rank()}.safetensors", gradients)
    if distributed.rank() == 0:
        (output / "loss.json").write_text(json.dumps(means))
