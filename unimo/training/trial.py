"""A forward pass of a few samples before training: what a step costs, in operations and in time."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.nn.initializer import Constant
from paddle.utils import unique_name

from unimo import distributed
from unimo.data.loading.batch import Batch
from unimo.data.loading.loader import read_batch
from unimo.data.loading.sampler import SampleKey
from unimo.nn.kernels import no_gradients_yet
from unimo.nn.products import count_products
from unimo.tasks.base import to_tensors
from unimo.training.state import TrainState, keeping_statistics

LONGEST_SECONDS = 4.0
"""Further samples are tried only if they take no longer than that."""
_GROWTH = 4
_UPDATED = 1 << 20
"""Parameters of the trial update."""


@dataclass(frozen=True)
class Trial:
    """What a rank measured of its first samples; the numbers are means of a sample."""

    samples: int
    """Number of samples, at most a micro-batch."""
    forward_operations: float
    """Of the matrix products of a forward pass."""
    training_operations: float
    """With the backward pass."""
    encoding_operations: float
    """Of the pass that steps of several rounds begin with, for contrastive losses (`rounds.py`)."""
    forward_seconds: float
    """Of the forward pass, without reading the samples."""
    text_tokens: float
    """Tokens of the texts, without padding."""
    image_tokens: float
    """Patches or regions of the images."""


def try_samples(state: TrainState) -> Trial | None:
    """Run the first samples of a run forward: two of each kind, and more if that takes seconds. Collective.

    Nothing of the run changes: neither weights and statistics, nor random numbers, nor the place in the data.

    Returns:
        None if all of these samples are broken.
    """
    keys, tried, count = _first_keys(state), None, 2
    generators = paddle.get_rng_state()
    try:
        with keeping_statistics(state.task):
            while True:
                chosen = _some_of_each_kind(state, keys, count)
                batch, _ = read_batch(state.loader.datasets, state.loader.collator, chosen, state.run.seed, 0)
                # All ranks run the same passes, as their losses need each other.
                if not all(distributed.gather(batch is not None)):
                    return tried
                tried = _forward(state, batch)
                seconds = max(distributed.gather(tried.forward_seconds * tried.samples))
                if _GROWTH * seconds > LONGEST_SECONDS:
                    return tried
                if count >= len(keys):
                    # The first pass of a size also waits for memory, and a GPU for its programs.
                    return min(tried, _forward(state, batch), key=lambda trial: trial.forward_seconds)
                count *= _GROWTH
    finally:
        paddle.set_rng_state(generators)


def _first_keys(state: TrainState) -> list[SampleKey]:
    """Return the samples of the first micro-batch of this rank."""
    sampler = state.loader.sampler
    place = sampler.state_dict()
    keys = sampler.next()
    sampler.load_state_dict(place)
    return keys[: len(keys) // state.loader.rounds]


def _some_of_each_kind(state: TrainState, keys: Sequence[SampleKey], count: int) -> list[SampleKey]:
    """Return about `count` keys, of each kind as many as its share, and at least two."""
    curriculum = state.loader.sampler.curriculum
    kind_of = curriculum.kind_of if curriculum else {}
    kinds = [kind_of.get(key.corpus) for key in keys]
    left = {kind: max(2, round(count * kinds.count(kind) / len(keys))) for kind in kinds}
    chosen = []
    for key, kind in zip(keys, kinds, strict=True):
        if left[kind]:
            left[kind] -= 1
            chosen.append(key)
    return chosen


def _forward(state: TrainState, batch: Batch) -> Trial:
    """Run one pass, and for steps of several rounds that of the contrastive vectors, see `rounds.py`."""
    size, task, recomputes = len(batch.sample_ids), state.task, state.run.train.recompute
    tensors = to_tensors(batch)
    # Sharded parameters are gathered by the wrapper.
    layer = state.layer if state.run.train.sharding_stage >= 2 else task
    wait()
    began = time.perf_counter()
    with state.precision.autocast():
        with count_products(recomputes) as products:
            layer(tensors)
        wait()
        seconds = time.perf_counter() - began
        again = 0
        if state.loader.rounds > 1 and getattr(task, "contrasts", ()):
            with no_gradients_yet(), count_products() as encoding:
                task.vectors(tensors)
            again = encoding.forward
    texts, images = count_tokens(batch, _patch_size(task))
    return Trial(
        samples=size,
        forward_operations=products.forward / size,
        training_operations=products.training / size,
        encoding_operations=again / size,
        forward_seconds=seconds / size,
        text_tokens=texts / size,
        image_tokens=images / size,
    )


def wait() -> None:
    """Wait for a GPU to finish."""
    if distributed.is_on_gpu():
        paddle.device.synchronize()


def _patch_size(task: nn.Layer) -> int:
    """Return the side of a patch in pixels; 0 for models without patches."""
    config = getattr(getattr(task, "model", None), "config", None)
    return getattr(getattr(config, "vision", None), "patch_size", 0)


def count_tokens(batch: Any, patch_size: int = 0) -> tuple[int, int]:
    """Count the tokens of all texts, and the patches or regions of all images, that a batch of arrays holds.

    Padding does not count; what objectives see twice, such as captions that are masked and contrasted, does.
    """
    texts = images = 0
    items = batch.items() if isinstance(batch, Mapping) else vars(batch).items()
    for name, value in items:
        if dataclasses.is_dataclass(value) or isinstance(value, Mapping):
            inner = count_tokens(value, patch_size)
            texts, images = texts + inner[0], images + inner[1]
        elif not isinstance(value, np.ndarray):
            continue
        elif name in ("attention_mask", "source_mask"):
            texts += int(value.sum())
        elif name == "mask":
            images += int(value.sum())
        elif patch_size and value.ndim == 4:
            images += len(value) * (value.shape[2] // patch_size) * (value.shape[3] // patch_size)
    return texts, images


def time_update(learning: int) -> float:
    """Return the seconds that AdamW takes for so many parameters here, from an update of a million."""
    size = min(learning, _UPDATED)
    with unique_name.guard():
        parameter = paddle.create_parameter([max(1, size)], "float32", default_initializer=Constant(0.0))
        optimizer = paddle.optimizer.AdamW(parameters=[parameter])
        for _ in range(2):  # the first makes the moments
            (parameter * 2.0).sum().backward()
            wait()
            began = time.perf_counter()
            optimizer.step()
            wait()
            seconds = time.perf_counter() - began
            optimizer.clear_grad()
    return seconds * learning / max(1, size)
