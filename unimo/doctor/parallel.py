"""Data parallelism against one process; sharding and recomputation against plain data parallelism."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle

from unimo.doctor import trial
from unimo.doctor.report import Options, Row
from unimo.errors import UnimoError
from unimo.training import checkpoint
from unimo.training.run import train
from unimo.weights.files import read_safetensors

STEPS = 4
TOLERANCE = 1e-4
"""Largest relative difference of losses, and of gradients by the largest of them."""
VARIANTS = {
    "recompute": ("train.recompute=true",),
    "sharding stage 1": ("train.sharding_stage=1",),
    "sharding stage 2": ("train.sharding_stage=2",),
    "sharding stage 3": ("train.sharding_stage=3",),
}
ADVICE = "leave it off until it is understood; report this table"
EACH_STEP = ("train.save_every=1", f"train.keep_checkpoints={STEPS}")


def examine(options: Options) -> list[Row]:
    """Carry out the same run in all ways that two ranks of this machine allow."""
    on_gpu = trial.set_up(options)
    if on_gpu and paddle.device.cuda.device_count() < 2:
        rows = [Row(f"{name} equals data parallel", "not here", "needs two GPUs") for name in VARIANTS]
        return [Row("two ranks equal one", "not here", "needs two GPUs"), *rows]
    with trial.scratch(options.folder) as folder:
        rows = [ranks_row(options, folder)]
        plain = folder / "plain"
        trial.launch(2, options, plain, STEPS, *EACH_STEP)
        for name, words in VARIANTS.items():
            if name in ("sharding stage 2", "sharding stage 3") and not on_gpu:
                rows.append(Row(f"{name} equals data parallel", "not here",
                                "Paddle's group_sharded_parallel refuses a CPU"))  # fmt: skip
                continue
            output = folder / name.replace(" ", "_")
            try:
                trial.launch(2, options, output, STEPS, *EACH_STEP, *words)
            except UnimoError as error:
                rows.append(Row(f"{name} equals data parallel", "wrong", str(error), ADVICE))
            else:
                rows.append(judge(f"{name} equals data parallel", output, plain, slices=name.endswith("3")))
        return rows


def ranks_row(options: Options, folder: Path) -> Row:
    """Compare the first masked-language loss of two ranks with that of one process that reads the same batch.

    Which images are swapped for image-text matching is drawn by each rank, so the other losses differ.
    """
    fixed = trial.without_dropout(options)
    train(trial.small_run(options, folder / "one", 1, *fixed))
    name = "two ranks equal one"
    try:
        trial.launch(2, options, folder / "two", 1, *fixed)
    except UnimoError as error:
        return Row(name, "wrong", str(error), "see the row of the all-reduce")
    one, two = (trial.logged(folder / output, "mlm") for output in ("one", "two"))
    return trial.compared(
        name, two, one, TOLERANCE, "train on one rank until it is understood; report this table"
    )


def judge(name: str, found: Path, plain: Path, slices: bool) -> Row:
    """Compare losses and, unless each rank has slices of them (stage 3), the gradients of the first step."""
    row = trial.compared(name, trial.logged(found), trial.logged(plain), TOLERANCE, ADVICE)
    if row.result != "ok" or slices:
        return row
    gap = gradient_gap(first_gradients(found), first_gradients(plain))
    figure = f"{row.figure}; gradients by {gap:.1e} of the largest"
    return Row(name, "ok", figure) if gap <= TOLERANCE else Row(name, "wrong", figure, ADVICE)


def first_gradients(output: Path) -> dict[str, np.ndarray]:
    """Return AdamW's first moments after one step, which are the gradients times 1 - beta1."""
    merged: dict[str, np.ndarray] = {}
    for path in (checkpoint.folder_of(output) / "step_00000001").glob("optimizer*.safetensors"):
        merged |= read_safetensors(path)
    return {name: value for name, value in merged.items() if name.endswith("moment1")}


def gradient_gap(found: dict[str, np.ndarray], plain: dict[str, np.ndarray]) -> float:
    """Return the largest difference of gradients as a share of the largest; infinite if some are missing."""
    if not plain or found.keys() != plain.keys():
        return float("inf")
    largest = max(float(np.abs(value).max()) for value in plain.values())
    gap = np.max([np.abs(found[name] - value).max() for name, value in plain.items()])
    return float(gap) / largest if np.isfinite(gap) else float("inf")
