"""Logging, evaluation, saving and checks around training steps. All callbacks are called on every rank."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import paddle
from tqdm import tqdm

from unimo import distributed
from unimo.errors import ConfigError, DataError, TrainingError, nearest
from unimo.files import write_text
from unimo.tasks.base import Batch
from unimo.training import checkpoint
from unimo.training.optimizer import learning_rate
from unimo.training.state import SIGNALS, Callback, StepReport, TrainState
from unimo.training.stopping import StoppedError, agree_to_stop, until_stopped

logger = logging.getLogger(__name__)
_LISTED = 16
_MB = 1 << 20
_HIDDEN = {"lr", "data_wait", "memory_mb", "peak_memory_mb", "step_seconds", "grad_norm"}
FILE_NAME = "metrics.jsonl"


class NonFiniteGuard(Callback):
    """Checks the loss of every step when metrics are read.

    That also happens before each checkpoint, so none is written after a loss that is not finite.
    """

    def on_read(self, state: TrainState, reports: Sequence[StepReport]) -> None:
        """Check the losses of the steps just read.

        Raises:
            TrainingError: on all ranks, with the step, the metrics, and the sample ids of the batch.
        """
        found = None
        report = next((r for r in reports if not math.isfinite(r.local[r.names.index("loss")])), None)
        if report is not None:
            values = {name: f"{value:g}" for name, value in zip(report.names, report.local, strict=True)}
            found = report.step, report.sample_ids, values
        # The step of the first bad loss on any rank decides; each rank names its own samples.
        bad = [entry for entry in distributed.gather(found) if entry is not None]
        if not bad:
            return
        step = min(entry[0] for entry in bad)
        ids = [sample for entry in bad if entry[0] == step for sample in entry[1]]
        numbers = next(entry[2] for entry in bad if entry[0] == step)
        path = state.output_dir / "nonfinite_batch.json"
        if distributed.rank() == 0:
            write_text(path, json.dumps({"step": step, "values": numbers, "sample_ids": ids}, indent=1))
        more = f" and {len(ids) - _LISTED} more (all in {path})" if len(ids) > _LISTED else ""
        raise TrainingError(
            f"the loss of step {step} is not finite ({', '.join(f'{k} {v}' for k, v in numbers.items())}); "
            f"its batch: {', '.join(ids[:_LISTED])}{more}. Look at these samples, or lower the learning "
            "rate; checkpoints are only from before this step"
        )


class Throughput(Callback):
    """Adds `lr`, `samples_per_second` over all ranks, `step_seconds`, `data_wait` (share of the time spent
    waiting for batches), `memory_mb` and `peak_memory_mb` of this process.

    Memory is the resident set on a CPU and the memory that Paddle has allocated on a GPU.
    """

    def __init__(self) -> None:
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0
        self.total_steps, self.total_seconds = 0, 0.0

    def on_step_end(self, state: TrainState, report: StepReport) -> None:
        self._steps += 1
        self._seconds += report.seconds
        self._waited += report.data_seconds

    def on_log(self, state: TrainState, values: dict[str, float]) -> None:
        """Add the entries; times of evaluation and saving are not included."""
        run = state.run
        values["lr"] = learning_rate(state.step - 1, run.train.max_steps, run.optim)
        if self._steps and self._seconds > 0:
            values["samples_per_second"] = run.train.batch_size * self._steps / self._seconds
            values["step_seconds"] = self._seconds / self._steps
            values["data_wait"] = self._waited / self._seconds
        values["memory_mb"], values["peak_memory_mb"] = memory()
        self.total_steps += self._steps
        self.total_seconds += self._seconds
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0


def memory() -> tuple[float, float]:
    """Return the memory in use and its peak, in MB (2^20 bytes)."""
    if distributed.is_on_gpu():
        cuda = paddle.device.cuda
        return cuda.memory_allocated() / _MB, cuda.max_memory_allocated() / _MB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_mb = peak / _MB if sys.platform == "darwin" else peak / 1024
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux: the peak is all there is
        return peak_mb, peak_mb
    now_mb = pages * resource.getpagesize() / _MB
    return now_mb, max(peak_mb, now_mb)


class Checkpoint(Callback):
    """Saves every `train.save_every` steps, before each evaluation, and at the end, unless an error ends the
    run.

    SIGTERM, SIGINT and `train.max_minutes` let the current step finish, then save and end the run with exit
    code 0. It stands before `Evaluate`, so whatever happens to an evaluation costs no training.
    """

    def __init__(self) -> None:
        self._saved_step = -1

    def on_step_logged(self, state: TrainState) -> None:
        """Save if it is due, and agree with the other ranks whether to stop."""
        train = state.run.train
        if state.is_due(train.save_every) or (train.save_every and state.is_due(train.eval_every)):
            self._save(state)
        if train.max_minutes is not None and time.monotonic() - state.started > 60 * train.max_minutes:
            state.stop_wanted = state.stop_wanted or "max_minutes"
        # On a GPU, asking the other ranks waits for the device, so it is done when metrics are read anyway.
        if not distributed.is_on_gpu() or state.is_due(train.log_every):
            agree_to_stop(state, state.stop_wanted)

    def on_end(self, state: TrainState) -> None:
        self._save(state)

    def _save(self, state: TrainState) -> None:
        if self._saved_step == state.step:
            return
        self._saved_step = state.step
        state.read_metrics()
        state.emit("on_checkpoint", checkpoint.save(state))


class Evaluate(Callback):
    """Evaluates a split every `train.eval_every` steps and after the last step.

    With `train.select_metric`, `best/` holds the model with its highest value, or its lowest for a loss (a
    name that contains `loss`). A run that is asked to stop does so after the current batch; when it is
    resumed, it makes up for the evaluation first.

    Args:
        split: what is evaluated.
        about: what is saved beside the scores: how the checkpoint was chosen.
    """

    def __init__(self, split: str = "val", about: Mapping[str, str] | None = None) -> None:
        self.split, self.about = split, dict(about or {})
        self._batches: Iterable[Batch] | None = None
        self.last_step = -1
        self.last: dict[str, float] = {}

    def on_start(self, state: TrainState) -> None:
        """Open the split and look for `train.select_metric` before hours of training; without the split the
        run is not evaluated.

        Raises:
            ConfigError: `train.select_metric` is none of the metrics.
            DataError: there is no such split, and `train.select_metric` needs it.
        """
        ranks, size = (distributed.rank(), distributed.world_size()), state.run.train.eval_batch_size
        try:
            self._batches = state.data.eval_loader(self.split, state.run, *ranks, size)
        except DataError as error:
            if state.run.train.select_metric:
                raise
            logger.warning("no evaluation during this run: %s", error)
            return
        if state.run.train.select_metric not in ("", *state.best):
            self._look_for_metric(state)

    def on_step_logged(self, state: TrainState) -> None:
        if state.is_due(state.run.train.eval_every) and not state.stop_reason:
            self.evaluate(state)

    def on_end(self, state: TrainState) -> None:
        """Evaluate the final model, unless the run was interrupted or this step was just evaluated."""
        if self.last_step != state.step and state.stop_reason not in SIGNALS:
            self.evaluate(state)

    def on_resume(self, state: TrainState) -> None:
        """Make up for an evaluation that the checkpoint was saved before, unless it comes now anyway."""
        if state.awaits_evaluation and not state.is_finished:
            self.evaluate(state)

    def evaluate(self, state: TrainState) -> None:
        """Compute the metrics, hand them to the callbacks, keep the best model. Collective.

        Raises:
            ConfigError: `train.select_metric` is none of the metrics.
            DataError: too many records, or all, are broken.
        """
        if self._batches is None:
            return
        try:
            values = self._measure(state, state.run.train.eval_max_batches or None)
        except StoppedError:
            logger.warning("the evaluation of step %d is made up for when the run goes on", state.step)
            return
        self.last_step, self.last = state.step, values
        state.emit("on_evaluate", self.split, values)
        metric = state.run.train.select_metric
        if not metric:
            return
        check_metric(metric, values)
        sign = -1.0 if "loss" in metric else 1.0
        if state.best and sign * values[metric] <= sign * state.best[metric]:
            return
        state.best = {**values, "step": float(state.step)}
        if distributed.rank() == 0:
            from unimo.inference.loading import save_model

            best = state.output_dir / "best"
            save_model(state.task, state.processor, best, {**values, **self.about}, state.run)
        distributed.barrier()

    def _measure(self, state: TrainState, most: int | None) -> dict[str, float]:
        seen = 0

        def counted() -> Iterator[Batch]:
            nonlocal seen
            for batch in until_stopped(state, islice(self._batches, most)):
                seen += 1
                yield batch

        try:
            values = state.task.evaluate(counted())
        finally:
            state.layer.train()
        if len(self._batches) and not distributed.any_over_ranks(seen > 0):
            raise DataError(
                f"all records of the split {self.split} are broken; the log names the first and why"
            )
        return values

    def _look_for_metric(self, state: TrainState) -> None:
        """Check `train.select_metric` by an evaluation of one batch, and of all if its name is not there."""
        if not distributed.any_over_ranks(len(self._batches) > 0):
            return
        with contextlib.suppress(StoppedError):
            values = self._measure(state, 1)
            if state.run.train.select_metric not in values:
                values = self._measure(state, state.run.train.eval_max_batches or None)
            check_metric(state.run.train.select_metric, values)


def check_metric(metric: str, values: Iterable[str]) -> None:
    """Raise ConfigError unless `train.select_metric` is one of the computed metrics."""
    if metric not in values:
        raise ConfigError(f"train.select_metric={metric!r} is not computed here; {nearest(metric, values)}")


class Progress(Callback):
    """Shows step, metrics, speed and remaining time on rank 0."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def on_start(self, state: TrainState) -> None:
        """Open the bar if standard error is a terminal."""
        self._first_step, self._started = state.step, time.monotonic()
        if distributed.rank() == 0 and sys.stderr.isatty():
            total = state.run.train.max_steps
            self._bar = tqdm(total=total, initial=state.step, unit="step", dynamic_ncols=True)

    def on_step_end(self, state: TrainState, report: StepReport) -> None:
        """Advance the bar."""
        if self._bar is not None:
            self._bar.update(1)

    def on_log(self, state: TrainState, values: dict[str, float]) -> None:
        """Show the metrics."""
        shown = {name: f"{value:.4g}" for name, value in values.items() if name not in _HIDDEN}
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
        elif distributed.rank() == 0:
            numbers = " ".join(f"{name} {text}" for name, text in shown.items())
            total, done = state.run.train.max_steps, max(1, state.step - self._first_step)
            left = (time.monotonic() - self._started) / done * (total - state.step)
            logger.info("step %d/%d  %s  ETA %s", state.step, total, numbers, tqdm.format_interval(left))

    def on_evaluate(self, state: TrainState, split: str, values: dict[str, float]) -> None:
        """Show the scores."""
        numbers = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        self._say(f"step {state.step}  {split}: {numbers}")

    def on_checkpoint(self, state: TrainState, folder: Path) -> None:
        """Show where it is."""
        self._say(f"step {state.step}  checkpoint {folder}")

    def close(self, state: TrainState) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        elif distributed.rank() == 0:
            logger.info(text)


class JsonLines(Callback):
    """Writes training and evaluation metrics to a file in the output folder, on rank 0.

    A resumed run first removes the lines written after its checkpoint, so that the file reads as if the run
    had never stopped.
    """

    def __init__(self, name: str = FILE_NAME) -> None:
        self._name = name
        self._file: TextIO | None = None
        self._last: tuple[int, str] | None = None

    def on_start(self, state: TrainState) -> None:
        """Open the file, without lines of steps that will be repeated."""
        if distributed.rank() == 0:
            path = state.output_dir / self._name
            rows = cut_after(path, state.step)
            self._last = (rows[-1]["step"], rows[-1].get("split", "")) if rows else None
            self._file = path.open("a", encoding="utf8")

    def on_log(self, state: TrainState, values: dict[str, float]) -> None:
        self._write({"step": state.step, "split": "train", **values})

    def on_evaluate(self, state: TrainState, split: str, values: dict[str, float]) -> None:
        """Write an evaluation line, unless a finished run that is started again would repeat its last one."""
        if self._last != (state.step, split):
            self._write({"step": state.step, "split": split, **values})

    def close(self, state: TrainState) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, row: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()


def cut_after(path: Path, step: int) -> list[dict[str, Any]]:
    """Remove lines of later steps and an unfinished last line; return the rows that stay."""
    if not path.exists():
        return []
    kept = []
    for line in path.read_text(encoding="utf8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "step" in row and row["step"] <= step:
            kept.append(row)
    write_text(path, "".join(f"{json.dumps(row)}\n" for row in kept))
    return kept


class VisualDL(Callback):
    """Writes every logged scalar on rank 0; `visualdl --logdir OUTPUT/vdl --disable-telemetry` shows them."""

    def __init__(self) -> None:
        self._writer: Any = None

    def on_start(self, state: TrainState) -> None:
        """Open a new log file; a resumed run keeps the older ones."""
        if distributed.rank() == 0:
            from visualdl import LogWriter  # costs a second of imports

            self._writer = LogWriter(logdir=str(state.output_dir / "vdl"))

    def on_log(self, state: TrainState, values: dict[str, float]) -> None:
        self.on_evaluate(state, "train", values)

    def on_evaluate(self, state: TrainState, split: str, values: dict[str, float]) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(tag=f"{split}/{name}", step=state.step, value=value)

    def close(self, state: TrainState) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
