"""Save the outcome of one rank's step of a small model, for tests that compare ranks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import paddle

from unimo import distributed
from unimo.settings import OptimConfig
from unimo.tasks.base import Batch, Task, to_tensors
from unimo.training.optimizer import build_optimizer, optimizer_tensors
from unimo.training.state import wrap
from unimo.weights.files import write_safetensors

T = TypeVar("T")


def join_fields(first: T, second: T) -> T:
    """Join two batches field by field: arrays and lists end to end, and what is nested in the same way."""

    def join(one: Any, other: Any) -> Any:
        if dataclasses.is_dataclass(one):
            return join_fields(one, other)
        if isinstance(one, dict):
            return {name: join(value, other[name]) for name, value in one.items()}
        if one is None:
            return None
        return one + other if isinstance(one, list) else np.concatenate([one, other])

    names = [item.name for item in dataclasses.fields(first)]
    return dataclasses.replace(
        first, **{name: join(getattr(first, name), getattr(second, name)) for name in names}
    )


def take_step(output: Path, task: Task, batch_of: Callable[[Sequence[int]], Batch]) -> None:
    """One step without clipping, decay or rate, on this rank's batch or, alone, on that of both ranks.

    Accuracies are left out: each rank reports those of its own samples.

    Args:
        output: folder for what `write_step` writes.
        task: what takes the step.
        batch_of: the batch of some ranks.
    """
    task.train()
    optim = OptimConfig(clip_grad_norm=None, weight_decay=0.0, lr=0.0)
    adamw = build_optimizer(task, optim)
    layer, optimizer = wrap(task, adamw, 0)
    ranks = (distributed.rank(),) if distributed.world_size() == 2 else (0, 1)
    loss, values = layer(to_tensors(batch_of(ranks)))
    loss.backward()
    optimizer.step()
    numbers = {name: value for name, value in values.items() if not name.endswith("accuracy")}
    write_step(output, task, adamw, optim.betas[0], {"loss": loss, **numbers})


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
