"""A small run on several ranks, of which the last one is on a GPU with memory for a few samples at a time.

`CAPACITY=N` in the environment is that number; with `SHRINK=STEP` the memory lacks only after that step.
"""

from __future__ import annotations

import os
import sys

import pytest
from gpu import FakeGpu
from small_run import make_run, train

from unimo import cli, distributed
from unimo.config import merge_into, parse_overrides
from unimo.training import callbacks
from unimo.training.state import StepReport, TrainState


class Shrink(callbacks.Callback):
    """Takes memory away in the course of a run."""

    def __init__(self, gpu: FakeGpu, step: int, capacity: int) -> None:
        self.gpu, self.step, self.capacity = gpu, step, capacity

    def on_step_end(self, state: TrainState, report: StepReport) -> None:
        if state.step == self.step:
            self.gpu.capacity = self.capacity


def main() -> None:
    """Train; `capacity` is that of the last rank."""
    run = merge_into(make_run(sys.argv[1]), parse_overrides(sys.argv[2:]))
    distributed.setup(run.train)
    is_last = distributed.rank() == distributed.world_size() - 1
    capacity = int(os.environ["CAPACITY"]) if is_last else 100
    step = int(os.environ.get("SHRINK", "0"))
    gpu = FakeGpu(pytest.MonkeyPatch(), 100 if step else capacity)
    train(run, [Shrink(gpu, step, capacity)] if step else [])


if __name__ == "__main__":
    cli.run(main)
