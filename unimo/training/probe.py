"""A short probe of a training step: the memory of forward and backward passes of a few real samples.

It leaves no trace: parameters, buffers, chance, gradients and the position in the data are as before.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import paddle
from paddle import Tensor
from paddle.base import core

from unimo import distributed
from unimo.data.loading.loader import Collator, TrainLoader, read_batch
from unimo.data.loading.sampler import SampleKey
from unimo.errors import DataError
from unimo.losses.reduce import alone
from unimo.models.contrastive import Round, one_round
from unimo.nn.kernels import no_gradients_yet
from unimo.tasks.base import Batch, Task, to_tensors
from unimo.training.state import TrainState, keeping_statistics

_LOOKED_AT = 4
"""Samples among which the probe takes the largest."""
_COMPARED = (32, 64)
"""Samples whose vectors are compared; what more of them need follows from both."""

_SIGNS = ("ResourceExhausted", "out of memory", "Out of memory", "ALLOC_FAILED")
"""In messages of Paddle, and of the CUDA libraries below it, that report a lack of memory."""


@dataclass(frozen=True)
class Probe:
    """Result of a probe, in bytes."""

    activations: int
    """Tensors of the forward and backward pass of `micro_batch` samples."""
    micro_batch: int
    constant: int
    """Part of `activations` that does not grow with the number of samples."""
    comparison: int
    """Contrastive losses over all samples of a step; 0 without such losses."""
    evaluation: int
    """Forward pass of a batch of evaluation; 0 where that is a search or a method of the task's own."""
    sample: int
    """Arrays of one sample."""


def measure(state: TrainState) -> Probe | None:
    """Measure the memory of the passes of two samples, and on a GPU of four besides.

    What does not grow with their number follows from both: the narrow copies of parameters that autocast
    keeps. Without autocast, so always on a CPU, where passes are slow, there is nothing of the kind. One
    sample would not do: it has no other in its batch whose image or text it could be shown with. Other ranks
    are not asked for anything, except with sharding from stage 2 on.

    Returns:
        None if the first samples are all broken.

    Raises:
        MemoryError: the passes do not fit into memory.
    """
    loader, on_gpu = state.loader, distributed.is_on_gpu()
    keys = largest(loader)
    if not keys:
        return None
    with alone(), no_trace(state):
        found = {}
        for size in (2, 4) if on_gpu else (2,):
            found[size] = _needs(state, keys, size)
        if found[2] is None:
            found = {1: peak_of(lambda: run_pass(state, read(loader, loader.collator, keys, 1)))}
        most = max(size for size, needed in found.items() if needed is not None)
        batch = read(loader, loader.collator, keys, min(2, most))
        comparison = _comparison(state, batch)
        evaluation = _evaluation(state, keys) * state.run.train.eval_batch_size
    return Probe(
        activations=found[most],
        micro_batch=most,
        constant=max(0, 2 * found[2] - found[4]) if most == 4 else 0,
        comparison=comparison,
        evaluation=evaluation,
        sample=size_of(_arrays(batch)) // min(2, most),
    )


def _needs(state: TrainState, keys: list[SampleKey], size: int) -> int | None:
    """Return the memory of the passes of so many samples; None if it does not suffice."""
    try:
        return peak_of(lambda: run_pass(state, read(state.loader, state.loader.collator, keys, size)))
    except Exception as error:
        if not is_lack_of_memory(error):
            raise
    release()
    return None


def largest(loader: TrainLoader) -> list[SampleKey]:
    """Return the keys of some of the next samples, the largest first; the position in the data stays.

    Where corpora are of several kinds, they are of the first: pairs, if there are any, of which a model
    learns most. Broken ones are left out.
    """
    curriculum, rank = loader.sampler.curriculum, loader.sampler.rank
    kinds = curriculum.kind_of if curriculum else {}
    first = next(iter(kinds.values()), None)
    found: list[tuple[int, SampleKey]] = []
    for key in next_keys(loader, 16 * _LOOKED_AT):
        if kinds.get(key.corpus) != first:
            continue
        batch, _ = read_batch(loader.datasets, loader.collator, [key], loader.seed, 0, rank)
        if batch is not None:
            found.append((size_of(_arrays(batch)), key))
        if len(found) == _LOOKED_AT:
            break
    return [key for _, key in sorted(found, key=lambda pair: -pair[0])]


def next_keys(loader: TrainLoader, count: int) -> list[SampleKey]:
    """Return the keys of the next samples of this rank, at least `count`; the position in the data stays."""
    keys: list[SampleKey] = []
    position = loader.sampler.state_dict()
    while len(keys) < count:
        keys += loader.sampler.next()
    loader.sampler.load_state_dict(position)
    return keys


def read(loader: TrainLoader, collator: Collator, keys: list[SampleKey], size: int) -> Batch:
    """Read a batch of `size` samples, the first of `keys`, from the beginning again if they are too few."""
    chosen = [keys[number % len(keys)] for number in range(size)]
    batch, bad = read_batch(loader.datasets, collator, chosen, loader.seed, 0, loader.sampler.rank)
    if batch is None:
        raise DataError(f"cannot be read: {bad[0]}")
    return batch


@contextlib.contextmanager
def no_trace(state: TrainState) -> Iterator[None]:
    """Give back chance, buffers, gradients and the mode as they were, whatever happens inside.

    Inside, every parameter that learns has a gradient, as from the second step on.
    """
    learned = [parameter for parameter in state.task.parameters() if not parameter.stop_gradient]
    chance, was_training = paddle.get_rng_state(), state.layer.training
    sharded = state.run.train.sharding_stage >= 2
    state.layer.train()
    try:
        if not sharded:
            for parameter in learned:
                parameter.grad = paddle.zeros_like(parameter)
        with keeping_statistics(state.task):
            yield
    finally:
        if sharded:
            state.optimizer.clear_grad()
        else:
            for parameter in learned:
                parameter.grad = None
        paddle.set_rng_state(chance)
        if not was_training:
            state.layer.eval()


def run_pass(state: TrainState, batch: Batch) -> None:
    """Run forward and backward, as one round of a step does."""
    # Sharding in stages 2 and 3 moves parameters and gradients in its wrapper. DataParallel would wait for
    # all ranks, and is not needed.
    layer = state.layer if state.run.train.sharding_stage >= 2 else state.task
    with state.precision.autocast():
        loss, _ = layer(to_tensors(batch))
    loss.backward()


def _comparison(state: TrainState, batch: Batch) -> int:
    """Return the memory of the contrastive losses over all samples of a step of several rounds.

    Vectors grow with the samples of this rank, scores with those and the samples of all ranks.
    """
    task, ranks = state.task, distributed.world_size()
    if not task.contrasts:
        return 0
    with no_gradients_yet(), state.precision.autocast(), one_round(task, Round(seed=0)):
        vectors = task.vectors(to_tensors(batch))
    size, share = len(batch.sample_ids), state.run.train.batch_size // ranks
    most = 0
    for name in sorted(vectors):
        needs = [
            (number * size, peak_of(lambda name=name, number=number: _compare(task, name, vectors, number)))
            for number in (max(1, samples // size) for samples in _COMPARED)
        ]
        (few, less), (many, more) = needs
        square = max(0.0, (more / many - less / few) / max(1, many - few))
        most = max(most, round(share * (less / few - square * few) + square * ranks * share**2))
    return most


def _compare(task: Any, name: str, vectors: Mapping[str, Any], copies: int) -> None:
    parts = [vectors[name].leaves() for _ in range(copies)]
    loss, _ = task.compare(name, type(parts[0]).join(parts))
    paddle.grad(loss, [leaf for part in parts for leaf in part.learned()], allow_unused=True)


def _evaluation(state: TrainState, keys: list[SampleKey]) -> int:
    """Return the memory of the forward pass of one sample in evaluation."""
    task = state.task
    is_search = hasattr(task.config, "beam")
    if is_search or type(task).evaluate is not Task.evaluate:
        return 0
    try:
        batch = read(state.loader, state.data.collator(False), keys, 1)
    except DataError:  # a record of the training split that evaluation cannot read
        return 0

    def predict() -> None:
        with task.evaluation_mode():
            task.predict(to_tensors(batch))

    return peak_of(predict)


def peak_of(function: Callable[[], Any]) -> int:
    """Return the bytes that a function has allocated at most, beyond what there was before."""
    gc.collect()  # what is freed meanwhile would be taken off
    _reset_peak()
    before = allocated()
    function()
    return _peak() - before


def allocated() -> int:
    """Return the bytes of all tensors now: of the GPU if there is one, else of the host."""
    if distributed.is_on_gpu():
        return paddle.device.cuda.memory_allocated()
    return core.host_memory_stat_current_value("Allocated", 0)


def _peak() -> int:
    if distributed.is_on_gpu():
        return paddle.device.cuda.max_memory_allocated()
    return core.host_memory_stat_peak_value("Allocated", 0)


def _reset_peak() -> None:
    if distributed.is_on_gpu():
        paddle.device.cuda.reset_max_memory_allocated()
    else:
        core.host_memory_stat_reset_peak_value("Allocated", 0)


def is_lack_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory is exhausted: Paddle raises MemoryError, the libraries of CUDA
    below it other errors with such a message."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, (RuntimeError, OSError, SystemError)) and any(
        sign in str(error) for sign in _SIGNS
    )


def release() -> None:
    """Free what an interrupted pass has left, and what Paddle keeps for later on a GPU."""
    gc.collect()
    if distributed.is_on_gpu():
        paddle.device.cuda.empty_cache()


def size_of(arrays: Iterable[Tensor | np.ndarray]) -> int:
    """Return the bytes of tensors or arrays."""
    return sum(
        int(array.size) * array.element_size() if isinstance(array, Tensor) else array.nbytes
        for array in arrays
    )


def _arrays(value: Any) -> Iterator[np.ndarray]:
    """Yield the arrays of a batch, and of batches inside."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, Mapping):
        yield from (array for part in value.values() for array in _arrays(part))
    elif is_dataclass(value):
        yield from (array for item in fields(value) for array in _arrays(getattr(value, item.name)))
