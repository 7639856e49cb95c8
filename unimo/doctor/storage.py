"""The disk where output goes, against the checkpoints of a recipe. Imports no Paddle."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from functools import reduce
from pathlib import Path

from unimo import registry
from unimo.config import merge_into, merge_plain, parse_overrides, read_recipe
from unimo.doctor.report import Options, Row, verdict
from unimo.files import make_folder
from unimo.limits import GIB, MIB
from unimo.settings import RunConfig, named_section, with_stage

WRITTEN = 128 * MIB
"""Bytes written to measure the speed."""
COPIES = 12
"""Bytes of a checkpoint for each parameter: a float32 weight and AdamW's two moments."""
LONGEST_SAVE = 300.0
"""Seconds for a checkpoint after which training stands still too long."""


def examine(options: Options) -> list[Row]:
    """Measure the disk under `options.folder`.

    Raises:
        ConfigError: unknown recipe, or a folder that cannot be written.
    """
    run = light_run(options.recipe, options.overrides)
    folder = make_folder(options.folder, "output_dir")
    size = COPIES * registry.rough_size(run.model)
    return judge(
        options.recipe,
        shutil.disk_usage(folder).free,
        write_speed(folder, WRITTEN),
        size,
        run.train.keep_checkpoints,
    )


def light_run(recipe: str, overrides: Sequence[str]) -> RunConfig:
    """Build the config of a recipe without its task section, whose dataclass cannot be had without Paddle.

    Raises:
        ConfigError: unknown recipe or setting.
    """
    layers = with_stage(read_recipe(recipe, "pretrain"), parse_overrides(overrides))
    values = reduce(merge_plain, layers, {})
    section = named_section(values.pop("model", None))
    values.pop("task", None)
    model = merge_into(registry.model_config(section["name"]), section, "model")
    return merge_into(RunConfig(model=model), values)


def write_speed(folder: Path, size: int) -> float:
    """Write `size` bytes into a folder as checkpoints are, flushed to the disk; return bytes a second."""
    block = os.urandom(MIB)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        started = time.perf_counter()
        for _ in range(-(-size // MIB)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return size / (time.perf_counter() - started)


def judge(recipe: str, free: int, speed: float, checkpoint: int, kept: int) -> list[Row]:
    """Judge free space and speed.

    Args:
        recipe: its name.
        free: bytes.
        speed: bytes a second, flushed.
        checkpoint: bytes of one.
        kept: checkpoints that a run keeps; while it writes another there is one more, and models beside.
    """
    # `model/` and `best/` hold weights alone.
    needed = (kept + 1) * checkpoint + 2 * checkpoint // 3
    seconds = checkpoint / speed
    space = f"{free / GIB:.0f} GiB free; {recipe} keeps {_size(needed)} ({kept} + 1 checkpoints, models)"
    pace = f"{speed / MIB:.0f} MiB/s flushed; a checkpoint of {_size(checkpoint)} takes {seconds:.1f} s"
    return [
        verdict("disk space", free >= needed, space, "free some, or output_dir= on another disk"),
        verdict("disk speed", seconds <= LONGEST_SAVE, f"{pace}; at most {LONGEST_SAVE:.0f}",
                "output_dir= on a local disk, or a larger train.save_every"),
    ]  # fmt: skip


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / MIB:.0f} MiB"
