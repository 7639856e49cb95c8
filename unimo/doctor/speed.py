"""Speed of the loader against that of a step, and of the base recipes against plain matrix products."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import paddle

from unimo import distributed, registry
from unimo.benchmark.machine import MATMUL_SHAPE
from unimo.config import list_recipes
from unimo.doctor import trial
from unimo.doctor.devices import WIDE_SHAPE, product_rate
from unimo.doctor.report import Options, Row, verdict
from unimo.errors import UnimoError
from unimo.settings import RunConfig, load_run_config
from unimo.training.run import open_processor, resolve, train
from unimo.training.state import Callback, StepReport, TrainState

STEPS, SETTLED = 8, 3
"""Steps of a measured run, and the first ones of them that do not count."""
MOST = 64
"""Samples of a measured step at most."""
LOADER_SECONDS = 4.0
_FORMATS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class Clock(Callback):
    """Times whole steps, metrics read, and what of them went by waiting for batches."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.waited: list[float] = []
        self._last = 0.0

    def on_start(self, state: TrainState) -> None:
        self._last = time.perf_counter()

    def on_step_end(self, state: TrainState, report: StepReport) -> None:
        self.waited.append(report.data_seconds)

    def on_step_logged(self, state: TrainState) -> None:
        """Take the time after the metrics were read, for which the device must have finished."""
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now


def examine(options: Options) -> list[Row]:
    """Measure loader and steps of the chosen recipe."""
    run = measured_run(options)
    with trial.scratch(options) as folder:
        clock = Clock()
        train(replace(run, output_dir=str(folder / "run")), [clock])
    step = median(full - waited for full, waited in zip(clock.seconds, clock.waited, strict=True))
    loader = loader_rate(run, LOADER_SECONDS)
    waited = sum(clock.waited[SETTLED:]) / sum(clock.seconds[SETTLED:])
    return [judge(options.recipe, loader, run.train.batch_size / step, waited, run.data.num_workers)]


def measured_run(options: Options, most: int = MOST, steps: int = STEPS, *words: str) -> RunConfig:
    """Build the config of a run at the recipe's own batch on one rank, but for the number of rounds."""
    full = load_run_config(options.recipe, "pretrain", list(options.overrides))
    size = min(full.train.micro_batch_size or full.train.batch_size, most)
    sizes = [f"train.batch_size={size}", f"train.micro_batch_size={size}", "data.scenes.train_images=2000"]
    return trial.small_run(options, Path(options.folder), steps, *sizes, *words)


def loader_rate(run: RunConfig, seconds: float) -> float:
    """Return the samples per second of the run's loader alone, once its threads have started."""
    processor = open_processor(run)
    run = resolve(run, processor, keep_init=False)
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
    on_gpu = distributed.is_on_gpu()
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
    halves = on_gpu and paddle.amp.is_bfloat16_supported()
    try:
        run = measured_run(plain, most, steps, *["train.precision=bf16"] * halves)
        with trial.scratch(plain) as folder:
            clock = Clock()
            train(replace(run, output_dir=str(folder / "run")), [clock])
    except (UnimoError, MemoryError) as error:
        return Row(f"speed of {name}", "wrong", str(error), "report this table")
    return speed_row(run, clock.seconds)


def speed_row(run: RunConfig, seconds: Sequence[float]) -> Row:
    """Report the speed of a recipe from the times of its steps."""
    step = median(seconds[SETTLED:] or seconds[1:])
    shape = WIDE_SHAPE if distributed.is_on_gpu() else MATMUL_SHAPE
    rate = product_rate(shape, _FORMATS[run.train.precision])
    size = run.train.batch_size
    figure = f"{size / step:.2f} samples/s at {size} a step, {run.train.precision}"
    figure += f"; products alone {rate / 1e12:.2f} TFLOP/s"
    return Row(f"speed of {run.model.name}", "ok", figure)
