"""Training of a detector: its losses as a task for the loop of `unimo.training`, and its output folder."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import paddle
from paddle import Tensor, nn

from ppdet_features.annotated_images import AnnotatedImages
from ppdet_features.batches import DetectionBatch, train_loader
from ppdet_features.coco import check_installed, evaluate
from ppdet_features.config import DetectorConfig, TrainingConfig, dump_config
from ppdet_features.detector import FasterRCNN
from ppdet_features.losses import detection_losses
from ppdet_features.weights import start_training
from unimo import distributed, signals
from unimo.errors import CheckpointError
from unimo.files import read_json_object, write_text
from unimo.settings import OptimConfig, TrainConfig
from unimo.training import callbacks, checkpoint
from unimo.training.hints import hints_of
from unimo.training.loop import carry_out, only_run_in
from unimo.training.plan import make_plan
from unimo.training.plan import save as save_plan
from unimo.training.plan_table import format_plan
from unimo.training.precision import Precision
from unimo.training.start import check_settings
from unimo.training.state import TrainState
from unimo.weights.files import write_safetensors
from unimo.weights.layers import tensors_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DetectorRun:
    """The training of a detector as the loop reads it: `Training` in the terms of all trainings."""

    IDENTITY: ClassVar[tuple[str, ...]] = ("model",)

    model: DetectorConfig
    """The detector, with the defaults of `Training`, which may change when a run is resumed."""
    train: TrainConfig
    optim: OptimConfig
    output_dir: str
    seed: int

    @classmethod
    def of(cls, config: DetectorConfig, output: Path, minutes: float | None = None) -> DetectorRun:
        """Return the run of a config in a folder, which ends early after `minutes` of this process."""
        train = config.train
        return cls(
            model=replace(config, train=TrainingConfig()),
            train=TrainConfig(
                max_steps=train.steps,
                max_minutes=minutes,
                batch_size=train.batch_size,
                log_every=train.log_every,
                save_every=train.save_every,
            ),
            optim=OptimConfig(
                lr=train.learning_rate,
                lr_multipliers={},
                weight_decay=train.weight_decay,
                betas=[0.9, 0.999],
                warmup=train.warmup,
                schedule="cosine",
                clip_grad_norm=train.clip_norm,
            ),
            output_dir=str(output),
            seed=train.seed,
        )


class DetectionTask(nn.Layer):
    """A detector with its losses."""

    def __init__(self, detector: FasterRCNN) -> None:
        super().__init__()
        self.detector = detector

    def begin_step(self, seed: int) -> None:
        """Draw nothing: every image brings its own chance (`draw_seed`)."""

    def forward(self, batch: DetectionBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum of the losses and the losses by name; see `detection_losses`."""
        rng = np.random.default_rng(batch.draw_seed)
        losses = detection_losses(self.detector, batch.images, batch.targets, rng)
        weights = {"attribute": self.detector.config.train.attribute_weight}
        return sum(loss * weights.get(name, 1.0) for name, loss in losses.items()), losses

    def lr_group(self, parameter: str) -> str:
        """Return the learning-rate group of a parameter, the same for all."""
        return "detector"


def train(
    config: DetectorConfig,
    images: AnnotatedImages,
    output: Path,
    *,
    init: str | None = None,
    backbone: str | None = None,
    held_out: AnnotatedImages | None = None,
    minutes: float | None = None,
    quiet: bool = False,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> dict[str, Any]:
    """Train a detector, or resume from the last checkpoint of the output folder; then evaluate it.

    A finished training is not repeated: its metrics are returned again.

    The folder gets `config.yaml`, `plan.json` (`unimo/training/plan.py`), `log.jsonl`, `checkpoints/` and,
    unless a signal ended the run, `model.safetensors` and `metrics.json`.

    Args:
        init, backbone: weights to start from, see `start_training`.
        held_out: images to evaluate on.
        minutes: end training after that time in this process.
        progress: wraps the image numbers of the evaluation.

    Returns:
        The content of `metrics.json`: `step`, `minutes` of this process, `stopped_by` if training ended
        early, and COCO's metrics.

    Raises:
        UnimoError: weights or images cannot be used, another process trains in the folder, it holds
            checkpoints of a training with other settings, or the loss is not finite.
    """
    if held_out is not None:
        check_installed()  # before hours of training
    run = DetectorRun.of(config, output, minutes)
    distributed.setup(run.train)
    paddle.seed(run.seed)
    detector = FasterRCNN(config)
    start_training(detector, init, backbone)
    with only_run_in(output):
        last = distributed.on_first(lambda: checkpoint.find_last(output))
        if last is not None:
            distributed.on_first(lambda: check_settings(run, last, option="--out "))
        state = build(detector, images, run, quiet)
        if last is not None and (metrics := _finished(state, last, held_out is not None)) is not None:
            state.loader.close()
            return metrics
        done = checkpoint.read_step(last) if last is not None else 0
        source = str(last or init or backbone or "scratch")
        plan = make_plan(state, source, done=done)
        plan = replace(plan, hints=tuple(hints_of(plan)))
        save_plan(plan, state)
        if not quiet:
            logger.info("%s", format_plan(plan))
            state.callbacks.append(callbacks.Pacing(plan))
        carry_out(state, last, dump_config(config))
        spent = round((time.monotonic() - state.started) / 60, 2)
        metrics: dict[str, Any] = {"step": state.step, "minutes": spent}
        if state.stop_reason:
            metrics["stopped_by"] = state.stop_reason
        if distributed.rank() == 0 and state.stop_reason not in signals.NAMES:
            write_safetensors(output / "model.safetensors", tensors_of(detector))
            if held_out is not None:
                metrics |= evaluate(detector, held_out, progress)
            write_text(output / "metrics.json", json.dumps(metrics, indent=1))
        return metrics


def _finished(state: TrainState, last: Path, with_scores: bool) -> dict[str, Any] | None:
    """Return the metrics of a training that is finished and saved; None if something is left to do.

    Raises:
        CheckpointError: it was on other images.
    """
    output = state.output_dir
    path, content = output / "metrics.json", read_json_object(last / checkpoint.STATE, CheckpointError)
    if content["step"] < state.run.train.max_steps or not path.is_file():
        return None
    metrics = read_json_object(path, CheckpointError)
    lacks_scores = with_scores and metrics.keys() <= {"step", "minutes"}
    if metrics.get("step") != content["step"] or "stopped_by" in metrics or lacks_scores:
        return None
    if not (output / "model.safetensors").is_file():
        return None
    checkpoint.check_same_corpora(content["corpora"], checkpoint.corpora_of(state), str(last))
    logger.info("%s is finished; nothing is trained. More: Training.steps=%d", output, 2 * content["step"])
    return metrics


def build(detector: FasterRCNN, images: AnnotatedImages, run: DetectorRun, quiet: bool = False) -> TrainState:
    """Build the state of a run that trains `detector`, whose config says how, from its present weights.

    Raises:
        ConfigError: nothing to train, or the batch size does not divide among the ranks.
    """
    return TrainState(
        run=run,
        task=DetectionTask(detector),
        precision=Precision("fp32"),
        loader=train_loader(images, detector.config, distributed.rank(), distributed.world_size()),
        callbacks=[
            callbacks.NonFiniteGuard(),
            callbacks.Throughput(),
            callbacks.Checkpoint(),
            *([] if quiet else [callbacks.Progress()]),
            callbacks.JsonLines("log.jsonl"),
        ],
    )
