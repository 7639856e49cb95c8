"""A run in its output folder, one process at a time, and its loop: from the last checkpoint to the end.

Logging, evaluation and saving are callbacks, see `callbacks/`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import paddle
from paddle import Tensor, nn
from paddle.distributed.fleet.utils.hybrid_parallel_util import fused_allreduce_gradients

from unimo import distributed
from unimo.errors import CheckpointError
from unimo.files import is_at, make_folder, remove_leftovers, write_text
from unimo.models.contrastive import Round
from unimo.tasks.base import Batch, to_tensors
from unimo.training import checkpoint, micro_batch, probe, rounds
from unimo.training.optimizer import learning_rate
from unimo.training.state import StepReport, TrainState, step_seed
from unimo.training.stopping import StoppedError, signals_stop, stop_if_asked, take

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def only_run_in(output_dir: Path) -> Iterator[None]:
    """Keep a second process from training in the same folder; the lock is released when this process ends.

    Enter it before anything in the folder is read: the other process might still change that.

    Raises:
        ConfigError: the folder cannot be made.
        CheckpointError: another process holds the lock, or the folder was removed or moved meanwhile.
    """
    if distributed.rank() != 0:
        yield
        return
    path = make_folder(output_dir, "output_dir") / ".lock"
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(
                f"another process is training in {output_dir}; end it, or choose another output folder"
            ) from error
        except OSError:  # file systems without locks
            logger.debug("%s cannot be locked", output_dir)
        yield
        if not is_at(file, path):
            raise CheckpointError(
                f"{output_dir} was removed or moved during the run: what is there now lacks all from before "
                "that; run again, and leave the folder where it is"
            )


def carry_out(state: TrainState, last: Path | None, config: str) -> None:
    """Train from the checkpoint `last`, if any, to the end, or until a callback asks to stop.

    Call it inside `only_run_in`. `config` is the text for the `config.yaml` of the output folder.

    Raises:
        UnimoError: checkpoint, data, numbers or disk cannot be used.
    """
    train = state.run.train
    if last is not None:
        checkpoint.restore(state, last)
        logger.info("resuming after step %d of %d", state.step, train.max_steps)
    if distributed.rank() == 0:
        remove_leftovers(state.output_dir)
        checkpoint.remove_unfinished(state.output_dir)
        checkpoint.set_aside(state.output_dir, state.step)
        write_text(state.output_dir / checkpoint.CONFIG, config)
    distributed.barrier()
    batches = iter(state.loader)
    state.layer.train()
    try:
        with signals_stop(state):
            state.emit("on_start")
            if last is not None:
                state.emit("on_resume")
            while not (state.is_finished or state.stop_reason):
                report = take_whole_step(state, batches)
                if report is None:
                    break
                state.step += 1
                state.window.add(report)
                state.emit("on_step_end", report)
                is_due = state.is_due(train.log_every) or state.is_finished
                if is_due or state.step == 1:  # a sign of life; its metrics count in the next line too
                    state.read_metrics()
                    state.emit("on_log", state.window.take_means() if is_due else state.window.means())
                state.emit("on_step_logged")
            state.emit("on_end")
    except BaseException as error:
        state.emit("on_exception", error)
        raise
    finally:
        state.loader.close()


def take_whole_step(state: TrainState, batches: Iterator[Batch]) -> StepReport | None:
    """Take a step; if the run is asked to stop meanwhile, drop it and return None, on all ranks. If memory
    does not suffice for it, drop it and take it again with smaller micro-batches.

    Raises:
        TrainingError: memory does not suffice, and the step cannot be repeated.
    """
    position = state.loader.state_dict()
    while True:
        try:
            return take_step(state, batches)
        except StoppedError:
            smaller = None
        except Exception as error:
            if not probe.is_lack_of_memory(error):
                raise
            smaller = micro_batch.after_lack(state)
        drop_step(state, position)
        if smaller is None:
            logger.warning("%s: step %d was not whole and is dropped", state.stop_reason, state.step + 1)
            return None
        micro_batch.use(state, smaller)


def drop_step(state: TrainState, position: Mapping[str, Any]) -> None:
    """Undo a step that has not changed the parameters yet, so that it can be taken again, whole and the same.

    Its chance follows from its number, and its rate too; what is left are gradients and batches.

    Args:
        position: what `state.loader.state_dict` returned before the step.
    """
    state.optimizer.clear_grad()
    state.loader.load_state_dict(position)


def take_step(state: TrainState, batches: Iterator[Batch]) -> StepReport:
    """Take one optimizer step: micro-batches forward and backward, clip, update, clear.

    Several micro-batches are the rounds of the step, which together equal one batch (`rounds.py`). Before
    each, ranks ask each other whether to go on; the parameters change after the last.

    Raises:
        StoppedError: the run was asked to stop, on all ranks. `drop_step` is to follow.
    """
    run = state.run
    count, rank = run.train.rounds(distributed.world_size()), distributed.rank()
    state.adamw.set_lr(learning_rate(state.step, run.train.max_steps, run.optim))
    started, sums = time.perf_counter(), {}
    state.task.begin_step(step_seed(run.seed, 0, state.step, "step"))
    parts = deque(take(state, batches, count))
    stop_if_asked(state)
    waited = time.perf_counter() - started
    sample_ids = [sample for batch in parts for sample in batch.sample_ids]

    def after_round(doing: str, done: int) -> None:
        state.emit("on_round", doing, done, count)
        if (doing, done) != ("training", count):
            stop_if_asked(state)

    places: list[tuple[Round, ...]] = [()]
    if count > 1:
        seeds = [step_seed(run.seed, rank, state.step, number) for number in range(count)]
        planned = partial(after_round, "planning")
        places = [(place,) for place in rounds.plan(state.task, parts, seeds, state.precision, planned)]
    paddle.seed(step_seed(run.seed, rank, state.step))
    for number, place in enumerate(places, 1):
        batch = parts.popleft()  # arrays of earlier rounds are no longer needed
        with backward_pass(state.layer, not parts, run.train.recompute):
            with state.precision.autocast():
                loss, values = state.layer(to_tensors(batch), *place)
            state.precision.backward(loss / count)
        for name, value in {"loss": loss, **values}.items():
            tensor = value.detach() if isinstance(value, Tensor) else paddle.to_tensor(float(value))
            share = tensor.astype("float32").reshape([]) / count
            sums[name] = sums[name] + share if name in sums else share
        after_round("training", number)
    with micro_batch.lack_ends_run(state):  # the parameters change in here
        average_gradients(state.layer, run.train.recompute)
        state.precision.step(state.optimizer)
    state.optimizer.clear_grad()
    norm = getattr(state.adamw._grad_clip, "norm", None)
    if norm is not None:
        sums["grad_norm"] = norm
    return StepReport(
        step=state.step + 1,
        names=tuple(sums),
        values=paddle.stack(list(sums.values())),
        sample_ids=sample_ids,
        data_seconds=waited,
        seconds=time.perf_counter() - started,
    )


@contextlib.contextmanager
def backward_pass(layer: nn.Layer, is_last: bool, recompute: bool) -> Iterator[None]:
    """Return the context of a micro-batch: DataParallel averages gradients in the last one of a step only.

    With recomputation it never does: it would take an inner backward pass for the last one and start early.
    """
    if isinstance(layer, paddle.DataParallel) and (recompute or not is_last):
        with layer.no_sync():
            yield
    else:
        yield


def average_gradients(layer: nn.Layer, recompute: bool) -> None:
    """Average gradients over ranks once per step if `backward_pass` has kept DataParallel from doing so."""
    if isinstance(layer, paddle.DataParallel) and recompute:
        fused_allreduce_gradients(list(layer.parameters()), None)
