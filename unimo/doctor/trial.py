"""Short runs of a recipe through `unimo.training`, for checks that compare them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unimo import distributed
from unimo.doctor.report import Options, Row
from unimo.doctor.versions import ROOT
from unimo.errors import UnimoError
from unimo.files import make_folder
from unimo.settings import RunConfig, load_run_config
from unimo.training.callbacks.metrics_file import FILE_NAME
from unimo.training.optional_start import optional_keys

BATCH = 8
"""Samples of a step of the runs that are compared."""
SMALL = (
    f"train.batch_size={BATCH}",
    f"train.micro_batch_size={BATCH}",
    "train.log_every=1",
    "train.eval_every=0",
    "train.eval_max_batches=1",
    f"train.eval_batch_size={BATCH}",
    "train.save_every=0",
    "train.select_metric=",
    "train.precision=fp32",
    "train.sharding_stage=0",
    "train.recompute=false",
    "optim.warmup=0",
    "data.scenes.train_images=256",
    f"data.scenes.val_images={BATCH}",
)


def small_run(options: Options, output: Path, steps: int, *words: str) -> RunConfig:
    """Build the config of a short run of the recipe; `words` are overrides after those of the user.

    Raises:
        ConfigError: unknown recipe or setting.
    """
    return load_run_config(options.recipe, "pretrain", small_words(options, output, steps, *words))


def small_words(options: Options, output: Path, steps: int, *words: str) -> list[str]:
    """Return the overrides of a short run; weights that its recipe would take where they are, it does not."""
    full = load_run_config(options.recipe, "pretrain", list(options.overrides))
    random = [f"{key}=" for key in optional_keys(full)]
    return [*options.overrides, *SMALL, *random, f"train.max_steps={steps}", f"output_dir={output}", *words]


def set_up(options: Options) -> bool:
    """Choose the device that the recipe runs on, and return whether it is a GPU.

    Raises:
        DeviceError: train.device=gpu without one.
    """
    distributed.setup(small_run(options, Path(options.folder), 1).train)
    return distributed.is_on_gpu()


def without_dropout(options: Options) -> list[str]:
    """Return overrides that turn off every dropout of the recipe's model."""
    run = load_run_config(options.recipe, "pretrain", list(options.overrides))
    return [f"{name}=0" for name in _rates("model", run.model)]


def _rates(where: str, section: Any) -> Iterator[str]:
    for each in dataclasses.fields(section):
        name, value = f"{where}.{each.name}", getattr(section, each.name)
        if dataclasses.is_dataclass(value):
            yield from _rates(name, value)
        elif each.name.endswith("dropout") and isinstance(value, (int, float)):
            yield name


@contextlib.contextmanager
def scratch(place: str) -> Iterator[Path]:
    """Yield a folder inside `place` for the output of short runs; it is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix=".doctor_", dir=make_folder(place)) as folder:
        yield Path(folder)


def launch(ranks: int, options: Options, output: Path, steps: int, *words: str) -> None:
    """Carry out a short run on several ranks of this machine.

    Raises:
        UnimoError: it failed; the message has its last words.
    """
    tool = [str(ROOT / "tools" / "pretrain.py"), options.recipe]
    start_ranks(ranks, [*tool, *small_words(options, output, steps, *words)])


def start_ranks(ranks: int, words: Sequence[str], environ: Mapping[str, str] = os.environ) -> str:
    """Start a Python file on several ranks of this machine and return what it printed.

    Raises:
        UnimoError: it failed; the message has its last words.
    """
    private = ("NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
    fresh = {key: value for key, value in environ.items() if key not in private}
    fresh |= {"NPROC_PER_NODE": str(ranks), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "unimo.training.launch", *words]
    done = subprocess.run(command, env=fresh, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        last = " ".join((done.stdout + done.stderr).split())[-600:]
        raise UnimoError(f"{ranks} ranks ended with code {done.returncode}: {last}")
    return done.stdout


def logged(output: Path, name: str = "loss") -> list[float]:
    """Return a metric of every training step of a run."""
    lines = (output / FILE_NAME).read_text(encoding="utf8").splitlines()
    return [row[name] for row in map(json.loads, lines) if row["split"] == "train"]


def largest_difference(found: Sequence[float], expected: Sequence[float]) -> float:
    """Return the largest relative difference of two series; infinite for other lengths and NaN."""
    if len(found) != len(expected) or not found:
        return float("inf")
    gaps = [abs(one - other) / max(abs(other), 1e-12) for one, other in zip(found, expected, strict=True)]
    return max(gap if gap == gap else float("inf") for gap in gaps)


def compared(
    name: str, found: Sequence[float], expected: Sequence[float], tolerance: float, advice: str
) -> Row:
    """Judge the losses of a run against those of another one."""
    gap = largest_difference(found, expected)
    steps = f"{len(expected)} steps" if len(expected) > 1 else "1 step"
    figure = f"losses of {steps} differ by {gap:.1e} at most, tolerance {tolerance:g}"
    return Row(name, "ok", figure) if gap <= tolerance else Row(name, "wrong", figure, advice)
