"""A run small enough for unit tests: a two-layer model on two corpora of random vectors.

Everything but the model, the task and the records is the real thing. As a script it trains in its own
process (`python tests/support/small_run.py OUTPUT [KEY=VALUE ...]`), which the tests of ranks and kills need.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np  # noqa: E402
import paddle  # noqa: E402
from paddle import Tensor, nn  # noqa: E402
from paddle.nn import functional as F  # noqa: E402, N812

from unimo import (
    cli,  # noqa: E402
    distributed,  # noqa: E402
)
from unimo.config import dump, merge_into, parse_overrides  # noqa: E402
from unimo.data.loading.batch import Array, Batch  # noqa: E402
from unimo.data.loading.loader import EvalLoader, TrainLoader  # noqa: E402
from unimo.data.loading.sampler import MixtureSampler  # noqa: E402
from unimo.data.record import Record  # noqa: E402
from unimo.losses.contrastive import ViewVectors, nt_xent_loss  # noqa: E402
from unimo.settings import OptimConfig, RunConfig, TrainConfig  # noqa: E402
from unimo.tasks.base import Task  # noqa: E402
from unimo.training import callbacks, checkpoint, micro_batch, precision  # noqa: E402
from unimo.training.loop import carry_out, only_run_in  # noqa: E402
from unimo.training.memory import forecast  # noqa: E402
from unimo.training.state import StepReport, TrainState  # noqa: E402

WIDTH = 8


@dataclass(frozen=True)
class SmallModelConfig:
    name: str = "small"
    dropout: float = 0.1


@dataclass(frozen=True)
class SmallTaskConfig:
    name: str = "regress"
    nonfinite_id: str = ""
    """Sample whose presence makes the loss infinite."""
    contrast: bool = False
    """Contrast each sample, with two dropouts, with all others."""


@dataclass(frozen=True)
class SmallRun(RunConfig):
    model: SmallModelConfig = field(default_factory=SmallModelConfig)
    task: SmallTaskConfig = field(default_factory=SmallTaskConfig)
    RESOLVE = {}


class SmallModel(nn.Layer):
    def __init__(self, config: SmallModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tower = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.cross = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.cross(self.dropout(F.gelu(self.norm(self.tower(pixels)))))

    def lr_group(self, parameter: str) -> str:
        return "cross_modal" if parameter.startswith("cross") else "towers"

    def depth(self, parameter: str) -> int | None:
        return {"tower": 1, "cross": 2}.get(parameter.partition(".")[0])


@dataclass(kw_only=True)
class SmallBatch(Batch):
    """Vectors and their sums."""

    vectors: Array
    """[B, WIDTH] float32."""
    targets: Array
    """[B] float32."""


class SmallTask(Task):
    def __init__(self, model: SmallModel, config: SmallTaskConfig) -> None:
        super().__init__(model, config)
        self.head = nn.Linear(WIDTH, 1)
        self.contrasts = ("views",) if config.contrast else ()

    def views(self, batch: SmallBatch) -> ViewVectors:
        self.replay("views")
        return ViewVectors(*(F.normalize(self.model(batch.vectors)) for _ in range(2)))

    def vectors(self, batch: SmallBatch) -> dict[str, ViewVectors]:
        return {"views": self.views(batch)}

    def compare(self, name: str, vectors: ViewVectors) -> tuple[Tensor, dict[str, Tensor]]:
        return nt_xent_loss(vectors.first, vectors.second, 0.2)[0], {}

    def losses(self, batch: SmallBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        error = self.head(self.model(batch.vectors)).squeeze(1) - batch.targets
        loss = (error**2).mean()
        if self.config.nonfinite_id in batch.sample_ids:
            loss = loss * float("inf")
        views = {"views": self.over_step("views", self.views(batch))[0]} if self.contrasts else {}
        return {"square": loss, **views}, {"error": error.abs().mean()}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        return sum(losses.values())

    def evaluate(self, batches: Any, observe: Any = None, watch: Any = iter) -> dict[str, float]:
        return {"weight_sum": float(self.head.weight.sum().item())}


class VectorData:
    """Records whose text is the number of the sample; the collator draws vectors from it."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Record:
        return Record(f"{self.name}/{index}", self.name, text=str(index))


class VectorCollator:
    needs_false_image = False

    def prepare(self, record: Record, rng: np.random.Generator) -> dict[str, Any]:
        vector = np.random.default_rng(int(record.text)).normal(size=WIDTH).astype(np.float32)
        noise = rng.normal(scale=0.01, size=WIDTH).astype(np.float32)
        return {"id": record.sample_id, "x": vector + noise, "y": vector.sum()}

    def collate(self, prepared: Sequence[dict[str, Any]], rng: np.random.Generator) -> SmallBatch:
        return SmallBatch(
            vectors=np.stack([sample["x"] for sample in prepared]),
            targets=np.array([sample["y"] for sample in prepared], np.float32),
            sample_ids=[sample["id"] for sample in prepared],
        )


class SmallData:
    def eval_loader(self, split: str, *arguments: Any, **options: Any) -> EvalLoader:
        return EvalLoader(VectorData(split, 0), VectorCollator(), 8)


def make_run(output_dir: Path | str, **overrides: Any) -> SmallRun:
    """The config: 12 steps of 8 samples, saving every 4, logging every 3."""
    train = TrainConfig(max_steps=12, batch_size=8, log_every=3, save_every=4, device="cpu")
    run = SmallRun(output_dir=str(output_dir), train=train, optim=OptimConfig(lr=1e-2))
    return merge_into(run, overrides)


def make_state(run: SmallRun, extra: Sequence[callbacks.Callback] = ()) -> TrainState:
    """Model, data, optimizer and callbacks, as `unimo.training.run.build` puts them together."""
    paddle.seed(run.seed)
    task = SmallTask(SmallModel(run.model), run.task)
    sizes = {"a": 21, "b": 13}
    sampler = MixtureSampler(
        sizes, None, run.train.batch_size, run.seed, distributed.rank(), distributed.world_size()
    )
    loader = TrainLoader(
        {name: VectorData(name, size) for name, size in sizes.items()},
        sampler,
        VectorCollator(),
        seed=run.seed,
        rounds=run.train.rounds(distributed.world_size()),
    )
    usual = [callbacks.NonFiniteGuard(), callbacks.Throughput(), callbacks.Checkpoint(), callbacks.Evaluate()]
    return TrainState(
        run=run,
        task=task,
        precision=precision.Precision(precision.choose(run.train)),
        loader=loader,
        data=SmallData(),
        callbacks=[*usual, callbacks.JsonLines(), *extra],
    )


def train(run: SmallRun, extra: Sequence[callbacks.Callback] = ()) -> TrainState:
    """Resume from the last checkpoint, if any, and train to the end."""
    state = make_state(run, extra)
    with only_run_in(state.output_dir):
        last = distributed.on_first(lambda: checkpoint.find_last(state.output_dir))
        if run.train.micro_batch_size == micro_batch.AUTO:
            micro_batch.settle(state, forecast(state), last)
        carry_out(state, last, dump(state.run))
    return state


class DieAt(callbacks.Callback):
    """SIGKILL to the process itself, in the middle of a step, when its metrics are not read yet."""

    def __init__(self, step: int, rank: int) -> None:
        self.step, self.rank = step, rank

    def on_step_end(self, state: TrainState, report: StepReport) -> None:
        if (state.step, distributed.rank()) == (self.step, self.rank):
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    """Train, and end with the code of a tool; `DIE_AT=STEP:RANK` in the environment ends that rank there."""
    run = merge_into(make_run(sys.argv[1]), parse_overrides(sys.argv[2:]))
    distributed.setup(run.train)
    die = os.environ.get("DIE_AT")
    state = train(run, [DieAt(*map(int, die.split(":")))] if die else [])
    return cli.code_after(state.stop_reason)


if __name__ == "__main__":
    cli.run(main)
