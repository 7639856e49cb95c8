"""Training of a detector: batches, optimizer, checkpoints to go on from, log.

Everything random derives from the seed and the step, so a killed run goes on as if it had not been.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import paddle
from paddle import Tensor
from PIL import Image

from ppdet_features.config import DetectorConfig, dump_config
from ppdet_features.detector import FasterRCNN
from ppdet_features.losses import detection_losses
from ppdet_features.pictures import Pictures
from ppdet_features.preprocess import preprocess
from ppdet_features.targets import Targets
from unimo.config import to_plain, write_text
from unimo.errors import CheckpointError, TrainingError
from unimo.jobs import Bar
from unimo.training.checkpoint import STATE, WEIGHTS, find_last, folder_of, list_complete
from unimo.training.optimizer import GlobalNormClip, decays, load_optimizer_tensors, optimizer_tensors
from unimo.training.schedule import factor
from unimo.weights.files import read_safetensors, write_safetensors
from unimo.weights.layers import load_into, tensors_of

logger = logging.getLogger(__name__)
_OPTIMIZER = "optimizer.safetensors"
_KEPT = 2


class Batches:
    """The pictures of each step, decoded by threads one step ahead."""

    def __init__(self, pictures: Pictures, config: DetectorConfig, threads: int = 2) -> None:
        self._pictures, self._config = pictures, config
        self._pool = ThreadPoolExecutor(threads)
        self._next: tuple[int, list[Future]] | None = None

    def of(self, step: int) -> tuple[np.ndarray, list[Targets]]:
        """Pictures [B, 3, H, W], smaller ones padded with zeros below and on the right, and their objects."""
        samples = self._next[1] if self._next and self._next[0] == step else self._ask(step)
        self._next = (step + 1, self._ask(step + 1))
        images, targets = zip(*(sample.result() for sample in samples), strict=True)
        height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
        batch = np.zeros((len(images), 3, height, width), np.float32)
        for row, image in zip(batch, images, strict=True):
            row[:, : image.shape[1], : image.shape[2]] = image
        return batch, list(targets)

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _ask(self, step: int) -> list[Future]:
        size, number = self._config.train.batch_size, len(self._pictures)
        return [self._pool.submit(self._sample, n, number) for n in range(step * size, (step + 1) * size)]

    def _sample(self, place: int, number: int) -> tuple[np.ndarray, Targets]:
        """The picture at `place` of the endless stream: one random order of all pictures after the other."""
        train = self._config.train
        epoch, turn = divmod(place, number)
        index = int(np.random.default_rng([train.seed, 0, epoch]).permutation(number)[turn])
        flip = train.flip and np.random.default_rng([train.seed, 1, place]).random() < 0.5
        known, image = self._pictures.annotations(index), self._pictures.image(index)
        boxes = known.boxes
        if flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            boxes = np.stack(
                [known.width - boxes[:, 2], boxes[:, 1], known.width - boxes[:, 0], boxes[:, 3]], axis=1
            )
        array = preprocess(image, self._config)
        scale = np.array([array.shape[2] / known.width, array.shape[1] / known.height] * 2, np.float32)
        learned = ~known.crowd
        return array, Targets((boxes * scale)[learned], known.labels[learned], known.attributes[learned])


class Trainer:
    """A run of `config.train.steps` steps in the folder `output`.

    Args:
        detector: what is trained, in place.
        pictures: to train on.
        output: checkpoints and `log.jsonl` lie there; a run that was stopped there goes on.

    Raises:
        CheckpointError: `output` holds a run of another detector.
    """

    def __init__(self, detector: FasterRCNN, pictures: Pictures, output: Path) -> None:
        self.detector, self.config, self.output = detector, detector.config, output
        self.step, self.seconds = 0, 0.0
        train = self.config.train
        trainable = {name: p for name, p in detector.named_parameters() if not p.stop_gradient}
        decayed = frozenset(p.name for name, p in trainable.items() if decays(name, p))
        self._optimizer = paddle.optimizer.AdamW(
            train.learning_rate,
            parameters=list(trainable.values()),
            weight_decay=train.weight_decay,
            apply_decay_param_fun=decayed.__contains__,
            grad_clip=GlobalNormClip(train.clip_norm),
        )
        self._batches = Batches(pictures, self.config)
        output.mkdir(parents=True, exist_ok=True)
        self._resume()
        write_text(output / "config.yaml", dump_config(self.config))

    def run(self, progress: Callable[[str, int], AbstractContextManager[Bar]], minutes: float | None) -> bool:
        """Train to the end, or until `minutes` of this run, earlier parts included, are over.

        Returns:
            Whether all steps were done.
        """
        train, start = self.config.train, time.monotonic() - self.seconds
        self.detector.train()
        sums: dict[str, float] = {}
        with progress("training", train.steps) as bar, open(self.output / "log.jsonl", "a") as log:
            bar.update(self.step)
            while self.step < train.steps and (minutes is None or self.seconds < 60 * minutes):
                losses = self._train_step()
                self.step += 1
                self.seconds = time.monotonic() - start
                bar.update(1)
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + value / train.log_every
                if self.step % train.log_every == 0:
                    line = {"step": self.step, "seconds": round(self.seconds, 1), **sums}
                    log.write(json.dumps(line) + "\n")
                    log.flush()
                    logger.info("%s", _readable(line, train.steps))
                    sums = {}
                if self.step % train.save_every == 0:
                    self.save()
        self.save()
        self._batches.close()
        return self.step == train.steps

    def _train_step(self) -> dict[str, float]:
        train = self.config.train
        self._optimizer.set_lr(train.learning_rate * factor(self.step, train.steps, train.warmup, "cosine"))
        images, targets = self._batches.of(self.step)
        rng = np.random.default_rng([train.seed, 2, self.step])
        losses = detection_losses(self.detector, paddle.to_tensor(images), targets, rng)
        total: Tensor = sum(
            loss * (train.attribute_weight if name == "attribute" else 1.0) for name, loss in losses.items()
        )
        if not np.isfinite(float(total)):
            raise TrainingError(
                f"step {self.step}: the loss is {float(total)}; lower Training.learning_rate or give a "
                f"longer Training.warmup. The last checkpoint is in {folder_of(self.output)}"
            )
        total.backward()
        self._optimizer.step()
        self._optimizer.clear_grad()
        return {"loss": float(total), **{name: float(loss) for name, loss in losses.items()}}

    def save(self) -> None:
        """Write a checkpoint of this step, whole or not at all, and remove all but the last two."""
        final = folder_of(self.output) / f"step_{self.step:08d}"
        fresh = final.with_name(f".{final.name}.writing")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        try:
            write_safetensors(fresh / WEIGHTS, tensors_of(self.detector))
            write_safetensors(fresh / _OPTIMIZER, optimizer_tensors(self._optimizer, self.detector))
            content = {
                "step": self.step,
                "seconds": self.seconds,
                "config": to_plain(self.config),
                "files": {path.name: path.stat().st_size for path in fresh.iterdir()},
            }
            write_text(fresh / STATE, json.dumps(content))
            shutil.rmtree(final, ignore_errors=True)
            os.rename(fresh, final)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        for old in list_complete(final.parent)[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def _resume(self) -> None:
        folder = find_last(self.output)
        if folder is None:
            return
        content = json.loads((folder / STATE).read_text(encoding="utf8"))
        old, new = (
            {k: v for k, v in c.items() if k != "train"} for c in (content["config"], to_plain(self.config))
        )
        changed = [key for key in new if old.get(key) != new[key]]
        if changed:
            raise CheckpointError(
                f"{folder} belongs to a detector with another {', '.join(changed)}; choose another --out"
            )
        load_into(self.detector, read_safetensors(folder / WEIGHTS), str(folder))
        load_optimizer_tensors(
            self._optimizer, self.detector, read_safetensors(folder / _OPTIMIZER), str(folder)
        )
        self.step, self.seconds = content["step"], content["seconds"]
        logger.info("going on from step %d in %s", self.step, folder)


def _readable(line: dict[str, float], steps: int) -> str:
    losses = "  ".join(
        f"{name} {value:.3f}" for name, value in line.items() if name not in ("step", "seconds")
    )
    return f"step {line['step']}/{steps}  {line['seconds']:.0f} s  {losses}"
