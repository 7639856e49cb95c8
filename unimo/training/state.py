"""What a run is while it runs: one object, handed to every callback."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.optimizer import AdamW

from unimo import distributed
from unimo.settings import RunConfig
from unimo.tasks.base import Task
from unimo.training.precision import Precision


@dataclass
class StepReport:
    """What one optimizer step gave. Its numbers stay on the device until the window is read."""

    step: int
    names: tuple[str, ...]
    values: Tensor | None
    """[len(names)] float32, this rank's; None once read."""
    sample_ids: list[str]
    data_seconds: float
    """Time spent waiting for batches."""
    seconds: float
    """Time of the whole step, waiting included."""
    local: np.ndarray | None = None
    """`values` on the host, once read."""


class MetricWindow:
    """Metrics since the last log line: read from the device at most once for each step."""

    def __init__(self) -> None:
        self._unread: list[StepReport] = []
        self._rows: list[dict[str, float]] = []

    def add(self, report: StepReport) -> None:
        """Take the report of a step."""
        self._unread.append(report)

    def read(self) -> list[StepReport]:
        """Fetch what is unread, averaged over ranks; gives the reports just read. Collective."""
        reports, self._unread = self._unread, []
        if not reports:
            return []
        flat = paddle.concat([report.values for report in reports])
        local, mean = flat.numpy(), distributed.mean_over_ranks(flat).numpy()
        start = 0
        for report in reports:
            end = start + len(report.names)
            report.local, report.values = local[start:end], None
            numbers = [float(value) for value in mean[start:end]]
            self._rows.append(dict(zip(report.names, numbers, strict=True)))
            start = end
        return reports

    def take_means(self) -> dict[str, float]:
        """Mean of every metric over the steps read, and an empty window again."""
        rows, self._rows = self._rows, []
        names = {name: None for row in rows for name in row}
        return {name: _mean(row[name] for row in rows if name in row) for name in names}

    def state_dict(self) -> list[dict[str, float]]:
        """Rows not yet logged, so that a resumed run logs the same means."""
        return [dict(row) for row in self._rows]

    def load_state_dict(self, rows: list[dict[str, float]]) -> None:
        """Put back what `state_dict` gave."""
        self._unread, self._rows = [], [dict(row) for row in rows]


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values)


@dataclass
class TrainState:
    """Everything a run consists of; `step` counts optimizer steps that are done."""

    run: RunConfig
    task: Task
    """The bare task: names, weights, evaluation."""
    layer: nn.Layer
    """The task as the ranks wrap it: what the forward pass calls."""
    adamw: AdamW
    """The bare optimizer: rate and accumulators."""
    optimizer: Any
    """The optimizer as Fleet wraps it: what steps."""
    precision: Precision
    loader: Any
    """Infinite iterator of batches with `state_dict` and `load_state_dict`."""
    processor: Any = None
    data: Any = None
    callbacks: list[Any] = field(default_factory=list)
    step: int = 0
    stop_reason: str = ""
    """Set by a callback to end the run after this step; the same on all ranks."""
    best: dict[str, float] = field(default_factory=dict)
    """Metrics of the best evaluation so far."""
    window: MetricWindow = field(default_factory=MetricWindow)
    started: float = field(default_factory=time.monotonic)

    @property
    def output_dir(self) -> Path:
        """Folder that the run writes into."""
        return Path(self.run.output_dir)

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.run.train.max_steps

    def is_due(self, every: int) -> bool:
        """Whether something that happens every so many steps happens now; 0 means never."""
        return every > 0 and self.step > 0 and self.step % every == 0

    def emit(self, hook: str, *arguments: Any) -> None:
        """Call a hook of every callback, in their order."""
        for callback in self.callbacks:
            getattr(callback, hook)(self, *arguments)

    def read_metrics(self) -> None:
        """Bring the metrics of recent steps to the host and show them to the callbacks. Collective."""
        reports = self.window.read()
        if reports:
            self.emit("on_read", reports)

    def state_dict(self) -> dict[str, Any]:
        """Plain data that, with weights and optimizer state, continues the run. Collective."""
        return {
            "step": self.step,
            "world_size": distributed.world_size(),
            "best": self.best,
            "window": self.window.state_dict(),
            "scaler": self.precision.state_dict(),
            "loaders": distributed.gather(self.loader.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave; with another number of ranks, rank 0's data position."""
        self.step = state["step"]
        self.best = dict(state["best"])
        self.window.load_state_dict(state["window"])
        self.precision.load_state_dict(state["scaler"])
        loaders = state["loaders"]
        same_ranks = len(loaders) == distributed.world_size()
        self.loader.load_state_dict(loaders[distributed.rank()] if same_ranks else loaders[0])


def step_seed(seed: int, rank: int, step: int) -> int:
    """Seed of Paddle's generators for one step of one rank.

    Reseeding at every step replaces saved generator states: whatever a checkpoint lacks follows from
    these three numbers.
    """
    digest = hashlib.sha256(f"unimo/{seed}/{rank}/{step}".encode()).digest()
    return int.from_bytes(digest[:4], "little") & 0x7FFFFFFF
