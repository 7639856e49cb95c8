"""Losses in bf16 and fp16 against those in fp32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import paddle

from unimo.doctor import trial
from unimo.doctor.report import Options, Row
from unimo.errors import DeviceError
from unimo.training.run import train

STEPS = 3
TOLERANCES = {"bf16": 2e-2, "fp16": 5e-3}
"""Largest relative difference of a loss: bf16 keeps 8 bits of a number, fp16 11."""


def examine(options: Options) -> list[Row]:
    """Train a few steps in every number format that the device has."""
    rows, on_gpu = [], trial.set_up(options)
    with trial.scratch(options.folder) as folder:
        fixed = trial.without_dropout(options)  # whose random streams differ by number format

        def losses(precision: str) -> list[float]:
            output = Path(folder) / precision
            train(trial.small_run(options, output, STEPS, f"train.precision={precision}", *fixed))
            return trial.logged(output)

        if not on_gpu:
            return [refused(precision, losses) for precision in TOLERANCES]
        plain = losses("fp32")
        for precision in TOLERANCES:
            if precision == "bf16" and not paddle.amp.is_bfloat16_supported():
                rows.append(Row(f"{precision} against fp32", "not here", "this GPU has no bf16",
                                "train.precision=fp16"))  # fmt: skip
            else:
                rows.append(judge(precision, losses(precision), plain))
    return rows


def refused(precision: str, losses: Callable[[str], list[float]]) -> Row:
    """Return the row of a CPU, where the loop must refuse what Paddle would silently ignore."""
    name = f"{precision} against fp32"
    try:
        losses(precision)
    except DeviceError:
        return Row(name, "not here", "a CPU computes in fp32 only, and the loop refuses anything else")
    return Row(name, "wrong", f"train.precision={precision} ran on a CPU, where autocast does nothing",
               "train.precision=fp32; report this table")  # fmt: skip


def judge(precision: str, found: Sequence[float], plain: Sequence[float]) -> Row:
    """Judge the losses of a number format; that they are exactly those of fp32 means that it was not used."""
    name = f"{precision} against fp32"
    if list(found) == list(plain):
        figure = f"{len(plain)} losses are those of fp32 to the last bit: autocast did nothing"
        return Row(name, "wrong", figure, "train.precision=fp32, and look for a build of Paddle for this GPU")
    advice = "train.precision=fp32 until it is understood; report this table"
    return trial.compared(name, found, plain, TOLERANCES[precision], advice)
