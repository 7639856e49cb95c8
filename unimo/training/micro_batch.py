"""`train.micro_batch_size=auto`: the largest micro-batch that fits, the same on all ranks.

On a CPU the forecast of `memory.py` decides, because a process that takes too much is killed. On a GPU a
pass of a real micro-batch is tried, and halved as long as it does not fit. Losses do not depend on the size,
but for chance, except where mismatched pairs or negatives are of one round: there the recipe has a size.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from unimo import distributed
from unimo.config import dump, read_yaml
from unimo.errors import CheckpointError, ConfigError, TrainingError
from unimo.files import read_json_object, write_text
from unimo.losses.reduce import alone
from unimo.nn.block import set_recompute
from unimo.training import memory, probe
from unimo.training.checkpoint import CONFIG, STATE
from unimo.training.memory import MemoryForecast
from unimo.training.optimizer import create_accumulators
from unimo.training.state import TrainState

logger = logging.getLogger(__name__)
AUTO = "auto"
GIB = 2**30
_MARGIN = 0.9
"""Share of the free memory that a forecast may use."""
_THREADS = 4
"""Threads of a run besides those that decode: of log files and of questions to other ranks."""


@dataclass(frozen=True)
class Choice:
    """The micro-batch of a run, and why it is that."""

    micro_batch: int
    wanted: int
    """The largest that the recipe allows."""
    limit: int | None
    """Bytes that a rank may hold in all; None if unknown."""
    hints: tuple[str, ...] = ()
    """Message about the lack of memory and its remedies; empty if `wanted` fits."""


def settle(state: TrainState, found: MemoryForecast | None, last: Path | None = None) -> Choice:
    """Replace `train.micro_batch_size=auto` by a number, the same on all ranks. Collective.

    A run that goes on keeps the number that it had, and so its losses, bit for bit.

    Args:
        state: a run before its first step.
        found: the forecast of its memory; None if there is none, and then all is taken for fitting.
        last: checkpoint that it goes on from.

    Raises:
        TrainingError: not even one sample fits into the memory of a GPU.
    """
    train = state.run.train
    share = train.batch_size // distributed.world_size()
    limit, free = None, memory.available(state.loader.num_workers + _THREADS)
    if None not in (found, free) and not distributed.is_on_gpu():
        limit = memory.process_memory("VmRSS") + round(_MARGIN * free)
    if train.micro_batch_size != AUTO:
        size = share // train.rounds(distributed.world_size())
        return Choice(size, size, limit, _advice(state, found, size, limit))
    state.adapts = True
    draws = state.task.draws_in_round
    wanted = min(share, train.negatives_batch_size or share) if draws else share
    possible = sizes(state, wanted) or sizes(state, share)[-1:]
    wanted = possible[0]
    kept = distributed.on_first(lambda: kept_size(Path(state.run.output_dir), last))
    if kept is not None:
        use(state, min(kept or share, share))
        logger.info("train.micro_batch_size=auto: %d, as before", state.run.train.micro_batch_size)
        return Choice(share // state.loader.rounds, wanted, limit)
    if distributed.is_on_gpu():
        size = try_out(state, wanted)
    else:
        fitting = [size for size in possible if limit is None or found.of_step(size) <= limit]
        size = min(distributed.gather(fitting[0] if fitting else possible[-1]))
    use(state, size)
    logger.info("train.micro_batch_size=auto: %d, %d rounds a step", size, state.loader.rounds)
    if size == wanted:
        return Choice(size, wanted, limit, _advice(state, found, size, limit))
    hints = _advice(state, found, wanted, limit) or (f"micro-batches of {wanted} do not fit",)
    if draws:
        lack = (
            f"mismatched pairs and negatives are drawn among {size} samples, not among the {wanted} of the "
            f"recipe: results are not those of the recipe. {hints[0]}"
        )
        logger.warning("%s", lack)
        hints = (lack,)
    return Choice(size, wanted, limit, hints)


def sizes(state: TrainState, most: int) -> list[int]:
    """Return the micro-batches of at most `most` samples that cut a step into equal rounds, largest first.

    On several ranks every round has samples of each kind of corpus.
    """
    share = state.run.train.batch_size // distributed.world_size()
    found = []
    for size in range(most, 0, -1):
        if share % size == 0:
            with contextlib.suppress(ConfigError):
                state.loader.check_rounds(share // size)
                found.append(size)
    return found


def use(state: TrainState, size: int) -> None:
    """Let a run go on with micro-batches of at most `size` samples; the config of its checkpoints says so."""
    train = replace(state.run.train, micro_batch_size=size)
    rounds = train.rounds(distributed.world_size())
    train = replace(train, micro_batch_size=train.batch_size // distributed.world_size() // rounds)
    state.run = replace(state.run, train=train)
    state.loader.cut(rounds)


def kept_size(output_dir: Path, last: Path | None) -> int | None:
    """Return the size that a run had which goes on from `last`, or was begun in this folder: 0 for the whole
    share of a rank, None if there was none. After a lack of memory on one of several ranks, the folder may
    have a smaller one than its last checkpoint."""
    found = []
    if last is not None:
        config = read_json_object(last / STATE, CheckpointError).get("config", {})
        found.append(config.get("train", {}).get("micro_batch_size"))
    if last is None or output_dir in last.parents:
        path = output_dir / CONFIG
        config = read_yaml(path) if path.is_file() else {}
        found.append((config.get("train") or {}).get("micro_batch_size"))
    numbers = [size for size in found if isinstance(size, int)]
    return min((size for size in numbers if size), default=0) if numbers else None


def try_out(state: TrainState, size: int) -> int:
    """Return the largest micro-batch of at most `size` samples whose pass fits on every rank. Collective.

    Each rank tries its own next samples, without the others, and all of them agree on the outcome: a rank
    that is out of memory would leave the others waiting in the middle of a pass.

    Raises:
        TrainingError: not even the smallest fits.
    """
    with lack_ends_run(state):
        create_accumulators(state.adamw)
    while True:
        lacks = not _fits(state, size)
        if not distributed.any_over_ranks(lacks):
            return size
        logger.info("micro-batches of %d do not fit into memory", size)
        size = next_smaller(state, size)


def next_smaller(state: TrainState, size: int) -> int:
    """Return the next micro-batch after one that does not fit: at most half of it.

    Raises:
        TrainingError: there is none.
    """
    possible = sizes(state, size // 2) if size > 1 else []
    if not possible or possible[0] >= size:
        raise TrainingError(ways_out(state, size))
    return possible[0]


def _fits(state: TrainState, size: int) -> bool:
    loader = state.loader
    batch = probe.read(loader, loader.collator, probe.next_keys(loader, size)[:size], size)
    try:
        with alone(), probe.no_trace(state):
            probe.run_pass(state, batch)
    except Exception as error:
        if not probe.is_lack_of_memory(error):
            raise
    else:
        return True
    probe.release()
    return False


def after_lack(state: TrainState) -> int:
    """Return the micro-batch with which a step is repeated that memory did not suffice for.

    Raises:
        TrainingError: it cannot be repeated: the size is one that a person chose, or the smallest, or there
            are other ranks, which wait in the middle of a pass. With `auto` those go on with half of it when
            the run is started again.
    """
    probe.release()
    size = state.run.train.batch_size // distributed.world_size() // state.loader.rounds
    if not state.adapts:
        raise TrainingError(ways_out(state, size)) from None
    smaller = next_smaller(state, size)
    if distributed.world_size() > 1:
        train = replace(state.run.train, micro_batch_size=smaller)
        write_text(state.output_dir / CONFIG, dump(replace(state.run, train=train)))
        raise TrainingError(
            f"rank {distributed.rank()} is out of memory in step {state.step + 1} with micro-batches of "
            f"{size}; run the same command again: it goes on from the last checkpoint, with {smaller}"
        ) from None
    logger.warning(
        "step %d does not fit into memory with micro-batches of %d; it is repeated with %d%s",
        state.step + 1,
        size,
        smaller,
        ", among which mismatched pairs and negatives are drawn" if state.task.draws_in_round else "",
    )
    return smaller


def ways_out(state: TrainState, size: int) -> str:
    """Return what a person can do who is out of memory with micro-batches of `size` samples."""
    train, ways = state.run.train, []
    if size > 1:
        choice = "auto" if train.micro_batch_size != AUTO and not state.adapts else str(size // 2)
        ways.append(f"train.micro_batch_size={choice}")
    if not train.recompute:
        ways.append("train.recompute=true")
    if train.precision == "fp32":
        ways.append("on a GPU train.precision=bf16")
    if distributed.world_size() > 1 and not train.sharding_stage:
        ways.append("train.sharding_stage=1")
    ways.append("a smaller model or image")
    return (
        f"out of memory in step {state.step + 1} with micro-batches of {size} on rank {distributed.rank()}; "
        f"try {', '.join(ways[:-1])} or {ways[-1]}"
    )


@contextlib.contextmanager
def lack_ends_run(state: TrainState, size: int | None = None) -> Iterator[None]:
    """Say what a person can do if memory does not suffice for something that cannot be repeated.

    Raises:
        TrainingError: it does not.
    """
    try:
        yield
    except Exception as error:
        if not probe.is_lack_of_memory(error):
            raise
        train = state.run.train
        share = train.batch_size // distributed.world_size()
        raise TrainingError(ways_out(state, size or share // state.loader.rounds)) from None


def _advice(
    state: TrainState, found: MemoryForecast | None, wanted: int, limit: int | None
) -> tuple[str, ...]:
    """Return what would make micro-batches of `wanted` samples fit; empty if they do, or nobody knows."""
    if limit is None:
        return ()
    there = f"there are {limit / GIB:.1f}"
    needs, besides = found.of_step(wanted) / GIB, found.at(1) / GIB
    if found.of_step(wanted) <= limit:
        if found.at(1) <= limit:
            return ()
        return (
            f"evaluation and saving need {besides:.1f} GiB, {there}; try a smaller train.eval_batch_size, "
            f"which takes {found.evaluation / GIB:.1f} of them",
        )
    lack = f"micro-batches of {wanted} need {needs:.1f} GiB, {there}; "
    with_recompute = recomputed(state, found)
    if with_recompute is None or with_recompute.of_step(1) > limit:
        return (lack + "a smaller model, image or train.batch_size would fit, or a machine with more memory",)
    most = next(size for size in range(wanted, 0, -1) if with_recompute.of_step(size) <= limit)
    return (lack + f"with train.recompute=true {most} fit",)


def recomputed(state: TrainState, found: MemoryForecast) -> MemoryForecast | None:
    """Return the forecast with `train.recompute=true`; None if that is set already."""
    if state.run.train.recompute:
        return None
    set_recompute(state.task, True)
    try:
        passes = probe.measure(state)
    finally:
        set_recompute(state.task, False)
    return replace(found, activations=passes.activations, constant=passes.constant)
