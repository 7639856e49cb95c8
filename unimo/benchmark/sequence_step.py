"""Timed pre-training steps of UNIMO on real batches, grouped by kind as in training, or padded naively."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import paddle

from unimo.benchmark.machine import timed_step
from unimo.benchmark.naive_padding import PaddedUnimo, pad_batch
from unimo.data.processor import Processor
from unimo.errors import ConfigError
from unimo.models.unimo.batches import UnifiedBatch
from unimo.registry import build_model
from unimo.settings import RunConfig, load_run_config
from unimo.tasks.base import to_tensors
from unimo.tasks.pretrain import PretrainTask
from unimo.training.optimizer import build_optimizer
from unimo.training.run import open_processor, resolve


def open_run(recipe: str, overrides: Sequence[str]) -> tuple[RunConfig, Processor]:
    """Open the pre-training run of a recipe, with the sizes that follow from its data.

    Raises:
        ConfigError: unknown recipe or setting, or a model that does not read regions.
        DataError: no such data.
    """
    run = load_run_config(recipe, "pretrain", list(overrides))
    if not hasattr(run.model, "regions"):
        raise ConfigError(f"sequences of regions and tokens are measured on a UNIMO, not on {run.model.name}")
    processor = open_processor(run)
    return resolve(run, processor, keep_init=False), processor


def read_batches(run: RunConfig, processor: Processor, count: int) -> list[UnifiedBatch]:
    """Read the first `count` training batches of a run, as NumPy arrays.

    Raises:
        DataError: a corpus cannot be opened, or has too many broken records.
    """
    loader = PretrainTask.open_data(run, processor).train_loader(run)
    try:
        return list(itertools.islice(loader, count))
    finally:
        loader.close()


class SequenceStep:
    """Training steps with clipping and AdamW on the batches of a run, one after the other and again.

    Args:
        model: `{"name": recipe}`.
        sizes: `batches`, the number of batches.
        overrides: overrides of the recipe.
        padded: pad all samples to `data.max_regions` and `data.max_text_len`, with pseudo images and texts.
    """

    def __init__(
        self, model: dict[str, Any], sizes: dict[str, int], *, overrides: Sequence[str], padded: bool
    ) -> None:
        run, processor = open_run(model["name"], overrides)
        paddle.seed(run.seed)
        self.batches = read_batches(run, processor, sizes["batches"])
        self.task = PretrainTask(build_model(run.model), run.task)
        self.task.train()
        self.model: Any = self.task.model
        if padded:
            full = run.data.max_regions, run.data.max_text_len
            self.model = PaddedUnimo(self.model, *full)
            padding = run.model.text.padding_id
            self.batches = [pad_batch(batch, *full, padding) for batch in self.batches]
        self.optimizer = build_optimizer(self.task, run.optim)
        self.parameters = sum(int(np.prod(parameter.shape)) for parameter in self.task.parameters())
        self.done = 0

    def loss(self, number: int) -> paddle.Tensor:
        """Compute the loss of batch `number`."""
        objective = self.task.objective
        losses, _ = objective.losses(self.model, to_tensors(self.batches[number]))
        return objective.total(losses)

    def __call__(self) -> dict[str, float]:
        """Take the next step and time it, see `timed_step`."""
        number = self.done % len(self.batches)
        self.done += 1
        return timed_step(lambda: self.loss(number), self.optimizer)
