"""What a run will do and what it will cost, before it begins: `OUTPUT/plan.json`, and a table for people."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import paddle
from paddle import nn

from unimo import distributed
from unimo.data.loading.loader import EvalLoader
from unimo.data.readers.base import Dataset
from unimo.files import write_text
from unimo.models.base import Model
from unimo.training.memory import MemoryForecast
from unimo.training.optimizer import rate_factors
from unimo.training.pace import Pace, events
from unimo.training.state import TrainState
from unimo.training.trial import Trial, time_update, try_samples

PLAN = "plan.json"
_TITLES = {"text": "text tower", "vision": "image tower"}
_SMALL = 0.02
"""Parts with a smaller share of the model are shown together."""
_WRITTEN = 200e6
"""Bytes a second, a cautious guess at how fast checkpoints are written and checked."""


@dataclass(frozen=True)
class Part:
    """Parameters of a part of the network."""

    part: str
    """Name of the layer; `rest: ...` names all small ones."""
    parameters: int
    trainable: int
    weights: str
    """`random`, or what they are loaded from; of heads, `partly random` with what the others are."""


@dataclass(frozen=True)
class Corpus:
    """A corpus and the part of it that is read."""

    corpus: str
    use: str
    """`train` or `evaluate`, and the kind of its samples where there are several."""
    split: str
    records: int
    pictures: int | None
    """None where only reading all records would tell."""
    texts: int
    share: float
    """Of the samples of a step; with a curriculum, once all corpora have come in. 0 for what is evaluated."""
    is_built_in: bool


@dataclass(frozen=True)
class StepSize:
    """Size and cost of an optimizer step, over all ranks. The numbers of tokens and operations are estimated
    from the first samples; None if these are broken."""

    samples: int
    ranks: int
    rounds: int
    micro_batch_samples: int
    text_tokens: int | None
    image_tokens: int | None
    operations: int | None
    """Floating-point operations of all matrix products, forward and backward."""


@dataclass(frozen=True)
class Memory:
    """The most that a rank holds, and its parts, in bytes: of the device on a GPU, else of the process."""

    peak_bytes: int
    machine_bytes: int
    """Memory of the machine or GPU."""
    process_bytes: int
    """Interpreter, Paddle and data."""
    parameters_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    """Forward and backward pass of a micro-batch."""
    evaluation_bytes: int = 0
    """Forward pass of a batch of evaluation, or copies for a checkpoint; at other times than activations."""
    batches_bytes: int = 0
    """Batches of a step, and those that are read ahead."""


@dataclass(frozen=True)
class Disk:
    """Disk space of a run, in bytes."""

    checkpoint_bytes: int
    needed_bytes: int
    """Of all checkpoints that are kept, of the one that is written meanwhile, and of the models."""
    free_bytes: int


@dataclass(frozen=True)
class Plan:
    """Everything that a person wants to know of a run beforehand."""

    model: str
    task: str
    start: str
    first_step: int
    """Steps that are done already."""
    last_step: int
    parameters: tuple[Part, ...]
    data: tuple[Corpus, ...]
    step: StepSize
    memory: Memory | None
    time: Pace | None
    """None if the first samples are broken."""
    disk: Disk
    rates: tuple[float, float] | None = None
    """Smallest and largest factor on `optim.lr`, where layers learn at rates of their own."""
    hints: tuple[str, ...] = ()
    """Warnings with remedies; see `hints.py`."""


def make_plan(
    state: TrainState,
    start: str = "scratch",
    fresh: Collection[str] = (),
    done: int = 0,
    held_out: Mapping[str, EvalLoader | None] = MappingProxyType({}),
    memory: MemoryForecast | None = None,
) -> Plan:
    """Make the plan of a run. Collective.

    Args:
        state: the run before its first step; a checkpoint need not be restored.
        start: source of the weights: `scratch`, `init_from=...` or a checkpoint.
        fresh: names of the parameters that `start` does not have.
        done: steps that are done already.
        held_out: what is evaluated, by split; None where there is no such split.
        memory: the forecast, if there is one.
    """
    run = state.run
    trial = try_samples(state)
    parts = tuple(parts_of(state.task, start, fresh))
    factors = rate_factors(state.task, run.optim).values()
    plan = Plan(
        model=run.model.name,
        task=getattr(getattr(run, "task", None), "name", ""),
        start=start,
        first_step=done,
        last_step=run.train.max_steps,
        parameters=parts,
        data=tuple(_corpora(state, held_out)),
        step=_step_size(state, trial),
        memory=_memory(state, memory) if memory else None,
        time=None,
        disk=_disk(state, parts),
        rates=(min(factors), max(factors)) if run.optim.layer_decay < 1 else None,
    )
    return plan if trial is None else dataclasses.replace(plan, time=_guess(state, plan, trial))


def parts_of(task: nn.Layer, start: str, fresh: Collection[str] = ()) -> list[Part]:
    """Return the parts of a network by the names of its layers, small ones together, and the heads."""
    (model_name, model), *_ = task.named_children()
    sizes: dict[str, list[int]] = {}
    for name, parameter in task.named_parameters():
        owner, _, rest = name.partition(".")
        part = rest.partition(".")[0] if owner == model_name else "heads"
        counts = sizes.setdefault(part, [0, 0])
        counts[0] += parameter.size
        counts[1] += 0 if parameter.stop_gradient else parameter.size
    heads = sizes.pop("heads", None)
    whole = sum(count for count, _ in sizes.values())
    small = [part for part, (count, _) in sizes.items() if count < _SMALL * whole]
    default = "random" if start == "scratch" else start
    towers = model.parts_to_load() if isinstance(model, Model) else ()
    loaded = {id(tower.layer): tower.directory for tower in towers if start == "scratch"}
    parts = [
        Part(_TITLES.get(part, part), *counts, loaded.get(id(getattr(model, part))) or default)
        for part, counts in sizes.items()
        if part not in small
    ]
    if small:
        rest = (sum(column) for column in zip(*(sizes[part] for part in small), strict=True))
        parts.append(Part(f"rest: {', '.join(small)}", *rest, default))
    if heads:
        names = {name for name, _ in task.named_parameters() if not name.startswith(f"{model_name}.")}
        is_new = start == "scratch" or names <= set(fresh)
        source = f"partly random, {start}" if names & set(fresh) else start
        parts.append(Part("heads", *heads, "random" if is_new else source))
    return parts


def _corpora(state: TrainState, held_out: Mapping[str, EvalLoader | None]) -> list[Corpus]:
    """List what is trained on and evaluated."""
    sampler = state.loader.sampler
    kinds = sampler.curriculum.kind_of if sampler.curriculum else {}
    data = getattr(state.run, "data", None)
    split = data.train_split if data else ""
    found = [
        _corpus(name, dataset, f"train {kinds.get(name, '')}".strip(), split, sampler.shares[name])
        for name, dataset in state.loader.datasets.items()
    ]
    for split, loader in held_out.items():
        if hasattr(loader, "dataset"):
            found.append(_corpus(loader.dataset.name, loader.dataset, "evaluate", split, 0.0))
    return found


def _corpus(name: str, dataset: Sequence[Any], use: str, split: str, share: float) -> Corpus:
    is_known = isinstance(dataset, Dataset)
    return Corpus(
        corpus=name,
        use=use,
        split=split,
        records=len(dataset),
        pictures=dataset.count_images() if is_known else len(dataset),
        texts=dataset.count_texts() if is_known else 0,
        share=share,
        is_built_in=dataset.name == "scenes",
    )


def _step_size(state: TrainState, trial: Trial | None) -> StepSize:
    samples, ranks, rounds = state.run.train.batch_size, distributed.world_size(), state.loader.rounds
    return StepSize(
        samples=samples,
        ranks=ranks,
        rounds=rounds,
        micro_batch_samples=samples // ranks // rounds,
        text_tokens=trial and round(samples * trial.text_tokens),
        image_tokens=trial and round(samples * trial.image_tokens),
        operations=trial and round(samples * (trial.training_operations + trial.encoding_operations)),
    )


def _memory(state: TrainState, found: MemoryForecast) -> Memory:
    micro_batch = state.run.train.batch_size // distributed.world_size() // state.loader.rounds
    return Memory(
        peak_bytes=found.at(micro_batch),
        machine_bytes=machine_memory(),
        process_bytes=found.process,
        parameters_bytes=found.parameters,
        gradients_bytes=found.gradients,
        optimizer_bytes=found.optimizer,
        activations_bytes=found.activations_of(micro_batch),
        evaluation_bytes=max(found.evaluation, found.saving),
        batches_bytes=found.batches(micro_batch),
    )


def machine_memory() -> int:
    """Return the memory of the GPU, or of the machine, in bytes."""
    if distributed.is_on_gpu():
        return paddle.device.cuda.get_device_properties().total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _disk(state: TrainState, parts: Sequence[Part]) -> Disk:
    train = state.run.train
    weights = 4 * sum(part.parameters for part in parts)
    checkpoint = weights + 8 * sum(part.trainable for part in parts)
    models = 2 if getattr(train, "select_metric", "") else 1
    return Disk(
        checkpoint_bytes=checkpoint,
        needed_bytes=(train.keep_checkpoints + 1) * checkpoint + models * weights,
        free_bytes=shutil.disk_usage(state.output_dir).free,
    )


def _guess(state: TrainState, plan: Plan, trial: Trial) -> Pace:
    """Return the time of all parts, from that of the forward pass of a few samples."""
    train, step = state.run.train, plan.step
    # All passes take time in proportion to their products: a gradient costs as much as what it belongs to.
    per_operation = step.micro_batch_samples * trial.forward_seconds / max(1.0, trial.forward_operations)
    per_round, encoding = (
        per_operation * count for count in (trial.training_operations, trial.encoding_operations)
    )
    update = time_update(sum(part.trainable for part in plan.parameters))
    evaluated = sum(corpus.records for corpus in plan.data if corpus.use == "evaluate")
    if train.eval_max_batches:
        evaluated = min(evaluated, train.eval_max_batches * train.eval_batch_size * step.ranks)
    return Pace(
        basis=f"guess from a forward pass of {trial.samples} samples",
        round_seconds=per_round,
        step_seconds=step.rounds * (per_round + encoding) + update,
        steps=plan.last_step - plan.first_step,
        evaluation_seconds=evaluated * trial.forward_seconds / step.ranks,
        evaluations=events(train.eval_every, plan.first_step, plan.last_step),
        checkpoint_seconds=plan.disk.checkpoint_bytes / _WRITTEN,
        checkpoints=events(train.save_every, plan.first_step, plan.last_step),
    )


def save(plan: Plan, state: TrainState) -> None:
    """Write a plan to `OUTPUT/plan.json`, on rank 0."""
    if distributed.rank() == 0:
        content = dataclasses.asdict(plan)
        if plan.time is not None:
            content["time"]["run_seconds"] = plan.time.run_seconds
        write_text(state.output_dir / PLAN, json.dumps(content, indent=1))
