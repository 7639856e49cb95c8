"""The state of a run, which every callback gets, and what the loop expects of its parts."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Protocol

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.distributed import fleet
from paddle.optimizer import AdamW

from unimo import distributed, signals
from unimo.data.loading.loader import TrainLoader
from unimo.settings import OptimConfig, TrainConfig
from unimo.training.optimizer import build_optimizer
from unimo.training.precision import Precision

_SHARDING_LEVELS = {2: "os_g", 3: "p_g_os"}


class Run(Protocol):
    """The config of a run, as far as loop, callbacks and checkpoints read it. `RunConfig` is one."""

    IDENTITY: ClassVar[tuple[str, ...]]
    """Sections that a checkpoint must share with the run that resumes from it; each has a `name`."""
    train: TrainConfig
    optim: OptimConfig
    output_dir: str
    """Folder that the run writes into."""
    seed: int


@dataclass
class StepReport:
    """Metrics and times of one optimizer step. The metrics stay on the device until the window is read."""

    step: int
    names: tuple[str, ...]
    values: Tensor | None
    """[len(names)] float32, of this rank; None once read."""
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
        """Add the report of a step."""
        self._unread.append(report)

    def read(self) -> list[StepReport]:
        """Fetch unread metrics, averaged over ranks, and return the reports just read. Collective."""
        reports, self._unread = self._unread, []
        if not reports:
            return []
        flat = paddle.concat([report.values for report in reports])
        local, mean = flat.numpy(), distributed.mean_over_ranks(flat).numpy()
        ends = np.cumsum([len(report.names) for report in reports])[:-1]
        for report, own, means in zip(reports, np.split(local, ends), np.split(mean, ends), strict=True):
            report.local, report.values = own, None
            self._rows.append(dict(zip(report.names, means.tolist(), strict=True)))
        return reports

    def means(self) -> dict[str, float]:
        """Return the mean of every metric over the steps read."""
        names = {name: None for row in self._rows for name in row}
        return {name: fmean(row[name] for row in self._rows if name in row) for name in names}

    def take_means(self) -> dict[str, float]:
        """Return the means, and empty the window."""
        means, self._rows = self.means(), []
        return means

    def state_dict(self) -> list[dict[str, float]]:
        """Return the rows not yet logged, so that a resumed run logs the same means."""
        return [dict(row) for row in self._rows]

    def load_state_dict(self, rows: list[dict[str, float]]) -> None:
        """Restore what `state_dict` returned."""
        self._unread, self._rows = [], [dict(row) for row in rows]


class Callback:
    """Base of all callbacks, which override the hooks that they need.

    They are called on every rank, in the order of `state.callbacks`.
    """

    def on_start(self, state: TrainState) -> None:
        """Before the first step; `state.step` is above 0 in a resumed run."""

    def on_resume(self, state: TrainState) -> None:
        """After `on_start`, in a run that goes on from a checkpoint."""

    def on_round(self, state: TrainState, doing: str, done: int, count: int) -> None:
        """After a round of a step: `done` of `count` are through `doing`, "planning" or "training"."""

    def on_step_end(self, state: TrainState, report: StepReport) -> None:
        """After an optimizer step; the numbers in `report` are still on the device."""

    def on_read(self, state: TrainState, reports: Sequence[StepReport]) -> None:
        """After metrics were read from the device: with each log line, and before saving."""

    def on_log(self, state: TrainState, values: dict[str, float]) -> None:
        """After step 1 and every `log_every` steps, with the means since then over steps and ranks.

        Entries may be added.
        """

    def on_step_logged(self, state: TrainState) -> None:
        """At the end of a step: evaluation, checkpoints, decisions to stop."""

    def on_evaluate(self, state: TrainState, split: str, values: dict[str, float]) -> None:
        """After an evaluation, with its metrics over all ranks."""

    def on_checkpoint(self, state: TrainState, folder: Path) -> None:
        """After a checkpoint is complete."""

    def on_end(self, state: TrainState) -> None:
        """After the last step, also if the run was asked to stop; by default, close."""
        self.close(state)

    def on_exception(self, state: TrainState, error: BaseException) -> None:
        """Before an error leaves the loop; by default, close. Must not raise."""
        self.close(state)

    def close(self, state: TrainState) -> None:
        """Release files, bars and signal handlers."""


@dataclass
class TrainState:
    """Everything that a run consists of; `step` counts the optimizer steps done.

    Raises:
        ConfigError: see `build_optimizer`.
    """

    run: Run
    task: nn.Layer
    """The bare layer, for names and weights. `task(batch)` returns the total loss and the values to log by
    name, `task.lr_group(name)` the learning-rate group of a parameter; the callback `Evaluate` calls
    `task.evaluate`, and steps of several rounds what `rounds.plan` needs. Every `Task` is one."""
    precision: Precision
    loader: TrainLoader
    """Batches of this rank, `train.rounds(ranks)` of them for each optimizer step."""
    processor: Any = None
    data: Any = None
    callbacks: list[Callback] = field(default_factory=list)
    step: int = 0
    stop_wanted: str = ""
    """Why this rank was asked to end the run, by a signal for example; other ranks do not know yet."""
    stop_reason: str = ""
    """Why the run ends before its last step: a signal, or what a callback says; the same on all ranks."""
    awaits_evaluation: bool = False
    """Whether the run resumes from a checkpoint that was saved before an evaluation, which is then due."""
    adapts: bool = False
    """Whether the micro-batch was chosen by `micro_batch.py`, which then may also make it smaller."""
    best: dict[str, float] = field(default_factory=dict)
    """Metrics of the best evaluation so far."""
    no_better: list[int] = field(default_factory=list)
    """Steps of the evaluations since the best one."""
    window: MetricWindow = field(default_factory=MetricWindow)
    started: float = field(default_factory=time.monotonic)
    layer: nn.Layer = field(init=False)
    """The task wrapped for data parallelism or sharding, for the forward pass."""
    adamw: AdamW = field(init=False)
    """The bare optimizer, for rate and accumulators."""
    optimizer: Any = field(init=False)
    """The optimizer wrapped by Fleet, for the step."""

    def __post_init__(self) -> None:
        self.adamw = build_optimizer(self.task, self.run.optim)
        self.layer, self.optimizer = wrap(self.task, self.adamw, self.run.train.sharding_stage)

    @property
    def output_dir(self) -> Path:
        """Folder that the run writes into."""
        return Path(self.run.output_dir)

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done, or the run has ended early."""
        return self.step >= self.run.train.max_steps or self.ended_early

    @property
    def ended_early(self) -> bool:
        """Whether the run ends before its last step: no evaluation was better than the best for as long as
        `train.patience` allows."""
        train = self.run.train
        return self.step < train.max_steps and 0 < train.patience <= len(self.no_better)

    @property
    def signal(self) -> str:
        """Signal that asked this rank to end the run, if one did."""
        return self.stop_wanted if self.stop_wanted in signals.NAMES else ""

    def is_due(self, every: int) -> bool:
        """Return whether something that happens every `every` steps is due now; 0 means never."""
        return every > 0 and self.step > 0 and self.step % every == 0

    @property
    def evaluates(self) -> bool:
        """Whether the model of this step is evaluated: when it is due, and at the end but for a signal."""
        is_end = self.is_finished or self.stop_reason not in ("", *signals.NAMES)
        return is_end or self.is_due(self.run.train.eval_every)

    def emit(self, hook: str, *arguments: Any) -> None:
        """Call a hook of every callback, in their order."""
        for callback in self.callbacks:
            getattr(callback, hook)(self, *arguments)

    def read_metrics(self) -> None:
        """Fetch unread metrics and hand them to the callbacks. Collective."""
        reports = self.window.read()
        if reports:
            self.emit("on_read", reports)

    def state_dict(self) -> dict[str, Any]:
        """Return the plain data that, with weights and optimizer state, continues the run. Collective."""
        return {
            "step": self.step,
            "evaluates": self.evaluates,
            "world_size": distributed.world_size(),
            "best": self.best,
            "no_better": self.no_better,
            "window": self.window.state_dict(),
            "scaler": self.precision.state_dict(),
            "loaders": distributed.gather(self.loader.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; with another number of ranks, the data position of rank 0."""
        self.step, self.awaits_evaluation = state["step"], state["evaluates"]
        self.best, self.no_better = dict(state["best"]), list(state.get("no_better", ()))
        self.window.load_state_dict(state["window"])
        self.precision.load_state_dict(state["scaler"])
        loaders = state["loaders"]
        same_ranks = len(loaders) == distributed.world_size()
        self.loader.load_state_dict(loaders[distributed.rank()] if same_ranks else loaders[0])


def wrap(layer: nn.Layer, optimizer: Any, stage: int) -> tuple[nn.Layer, Any]:
    """Wrap a layer and its optimizer to work over all ranks; all ranks get the parameters of rank 0.

    DataParallel averages gradients over ranks during the last backward pass of a step, sharding does so in
    `optimizer.step()`.
    """
    if distributed.world_size() == 1:
        return layer, optimizer
    if stage >= 2:
        from paddle.distributed.sharding import group_sharded_parallel

        wrapped, optimizer, _ = group_sharded_parallel(layer, optimizer, _SHARDING_LEVELS[stage])
        return wrapped, optimizer
    return fleet.distributed_model(layer), fleet.distributed_optimizer(optimizer)


def step_seed(seed: int, rank: int, step: int, *words: int | str) -> int:
    """Return the seed of Paddle's generators for one step of one rank, or for a part of it that `words` name.

    Reseeding at every step replaces saved generator states: all randomness follows from these numbers.
    """
    digest = hashlib.sha256("/".join(map(str, ("unimo", seed, rank, step, *words))).encode()).digest()
    return int.from_bytes(digest[:4], "little") & 0x7FFFFFFF


@contextlib.contextmanager
def keeping_statistics(task: nn.Layer) -> Iterator[None]:
    """Give back what forward passes of training change besides gradients: buffers and running statistics."""
    # To Paddle the statistics of batch norms are vectors among the parameters that do not learn.
    frozen = (each for each in task.parameters() if each.stop_gradient and each.ndim == 1)
    kept = [(tensor, tensor.clone()) for tensor in (*task.buffers(), *frozen)]
    try:
        yield
    finally:
        for tensor, before in kept:
            tensor.set_value(before)
