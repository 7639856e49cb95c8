"""Speed of the loader against that of a step, and of the base recipes against plain matrix products."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from unimo import registry
from unimo.benchmark.machine import MATMUL_SHAPE
from unimo.config import list_recipes
from unimo.doctor import trial
from unimo.doctor.devices import WIDE_SHAPE, product_rate
from unimo.doctor.report import Options, Row, verdict
from unimo.errors import CheckpointError, UnimoError
from unimo.files import read_json_object
from unimo.settings import RunConfig, load_run_config
from unimo.training.plan import PLAN
from unimo.training.run import open_processor, resolve, train
from unimo.training.state import Callback, StepReport, TrainState

STEPS, SETTLED = 8, 3
"""Steps of a measured run, and the first ones of them that do not count."""
MOST = 64
"""Samples of a measured step at most."""
LOADER_SECONDS = 4.0
LEAST_SHARE = 0.1
"""Share of the rate of plain products that a base recipe reaches on any device."""
_FORMATS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class TimedError(Exception):
    """Ends a run once its steps are timed, before anything is evaluated or saved."""


class Clock(Callback):
    """Times whole steps, metrics read, and what of them went by waiting for batches; then ends the run."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.waited: list[float] = []
        self._last = 0.0

    def on_start(self, state: TrainState) -> None:
        self._last = time.perf_counter()

    def on_step_end(self, state: TrainState, report: StepReport) -> None:
        self.waited.append(report.data_seconds)

    def on_step_logged(self, state: TrainState) -> None:
        """Take the time after the metrics were read, for which the device must have finished.

        Raises:
            TimedError: this was the last step.
        """
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now
        if state.is_finished:
            raise TimedError


def examine(options: Options) -> list[Row]:
    """Measure loader and steps of the chosen recipe."""
    run = measured_run(options, MOST, STEPS, trial.set_up(options))
    clock, _ = timed(run)
    step = median(full - waited for full, waited in zip(clock.seconds, clock.waited, strict=True))
    loader = loader_rate(run, LOADER_SECONDS)
    waited = sum(clock.waited[SETTLED:]) / sum(clock.seconds[SETTLED:])
    return [judge(options.recipe, loader, run.train.batch_size / step, waited, run.data.num_workers)]


def timed(run: RunConfig) -> tuple[Clock, int]:
    """Take the steps of a run in a temporary folder; return their times, and the operations of a step."""
    clock = Clock()
    with trial.scratch(run.output_dir) as folder:
        with contextlib.suppress(TimedError):
            train(replace(run, output_dir=str(folder)), [clock])
        plan = read_json_object(folder / PLAN, CheckpointError)
    return clock, plan["step"]["operations"] or 0


def measured_run(options: Options, most: int, steps: int, on_gpu: bool) -> RunConfig:
    """Build the config of a run on one device whose steps are one micro-batch of the recipe.

    Args:
        options: names the recipe.
        most: samples of a step at most.
        steps: their number.
        on_gpu: keep the recipe's number format and recomputation; a CPU has fp32 only.
    """
    full = load_run_config(options.recipe, "pretrain", list(options.overrides))
    size = min(full.train.batch_size // full.train.rounds(1), most)
    sizes = [f"train.batch_size={size}", f"train.micro_batch_size={size}", "data.scenes.train_images=2000"]
    if on_gpu:
        kept = full.train
        sizes += [f"train.precision={kept.precision}", f"train.recompute={kept.recompute}".lower()]
    return trial.small_run(options, Path(options.folder), steps, *sizes)


def loader_rate(run: RunConfig, seconds: float) -> float:
    """Return the samples per second of the run's loader alone, once its threads have started."""
    processor = open_processor(run)
    run = resolve(run, processor)
    loader = registry.task_class(run.task.name).open_data(run, processor).train_loader(run)
    try:
        # What the threads had ready beforehand does not count.
        for _ in range(run.data.prefetch + 1):
            next(loader)
        started, samples = time.perf_counter(), 0
        for batch in itertools.takewhile(lambda _: time.perf_counter() - started < seconds, loader):
            samples += len(batch.sample_ids)
        return samples / (time.perf_counter() - started)
    finally:
        loader.close()


def judge(recipe: str, loader: float, step: float, waited: float, threads: int) -> Row:
    """Judge the loader's samples per second against those of steps that never wait."""
    figure = (
        f"{recipe}: the loader gives {loader:.0f} samples/s with {threads} threads, steps on one device take "
        f"{step:.0f}; {waited:.0%} of a run is waiting"
    )
    advice = (
        f"data.num_workers={2 * max(1, threads)} (at most the cores), pictures shrunk to the size that is "
        "read, tar shards instead of single files on network disks"
    )
    return verdict("loader against steps", loader >= step, figure, advice)


def examine_recipes(options: Options) -> list[Row]:
    """Measure every base recipe: on a GPU at its own micro-batch, on a CPU, when asked to, at two samples."""
    on_gpu = trial.set_up(options)
    names = [name for name in list_recipes("pretrain") if name.endswith("_base")]
    if not on_gpu and not options.every_recipe:
        return [
            Row(f"speed of {name}", "not here", "a step takes minutes on a CPU", "--recipes")
            for name in names
        ]
    return [recipe_row(name, options, on_gpu) for name in names]


def recipe_row(name: str, options: Options, on_gpu: bool) -> Row:
    """Measure one base recipe on the built-in corpus."""
    most, steps = (MOST, STEPS) if on_gpu else (2, 2)
    plain = Options(recipe=name, folder=options.folder)
    try:
        run = measured_run(plain, most, steps, on_gpu)
        clock, operations = timed(run)
    except (UnimoError, MemoryError) as error:
        return Row(f"speed of {name}", "wrong", str(error), "report this table")
    shape = WIDE_SHAPE if on_gpu else MATMUL_SHAPE
    rate = product_rate(shape, _FORMATS[run.train.precision])
    return speed_row(run, clock.seconds, operations, rate)


def speed_row(run: RunConfig, seconds: Sequence[float], operations: int, rate: float) -> Row:
    """Judge the speed of a recipe.

    Args:
        run: its config.
        seconds: times of its steps.
        operations: floating-point operations of the products of a step.
        rate: those a second that plain products reach in the same number format.
    """
    step = median(seconds[SETTLED:] or seconds[1:])
    size, share = run.train.batch_size, operations / step / rate
    speed = f"{size / step:.2f} samples/s at {size} a step, {run.train.precision}"
    figure = f"{speed}; {share:.0%} of the rate of products alone, {rate / 1e12:.2f} TFLOP/s"
    advice = "is the device shared, or does the loader keep it waiting? see the row of the loader"
    return verdict(f"speed of {run.model.name}", LEAST_SHARE <= share <= 1.2, figure, advice)
