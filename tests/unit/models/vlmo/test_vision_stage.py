"""VLMo's vision stage: what learns, what masked patches may tell, rounds, a short run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from micro import TOWER, make_run
from micro import make_task as make_micro
from PIL import Image
from small_models import IMAGE, set_parameters
from small_vlmo import small_config

from unimo import registry
from unimo.errors import ConfigError
from unimo.inference.evaluation import describe, evaluate
from unimo.losses.mim import patch_pixels
from unimo.models.batches import MaskedImageBatch
from unimo.models.vlmo.config import PretrainingConfig
from unimo.settings import RunConfig
from unimo.tasks.base import to_tensors
from unimo.tasks.pretrain import PretrainTask
from unimo.training import run as training
from unimo.training.start import sources

GRID = IMAGE // 8


def make_task(**overrides: Any) -> PretrainTask:
    task = PretrainTask(registry.build_model(small_config(**overrides)), PretrainingConfig(stage="vision"))
    set_parameters(task)
    return task


def masked_images(count: int = 3, seed: int = 0) -> MaskedImageBatch:
    """Images whose first one has five masked patches, and each of the others one more."""
    rng = np.random.default_rng(seed)
    masked = rng.permuted(np.arange(GRID**2) < np.arange(5, 5 + count)[:, None], axis=1)
    return to_tensors(
        MaskedImageBatch(
            images=rng.normal(size=(count, 3, IMAGE, IMAGE)).astype(np.float32),
            masked=masked,
            mim_positions=np.flatnonzero(masked),
            sample_ids=[str(row) for row in range(count)],
        )
    )


@pytest.mark.parametrize("positions", ["relative", "absolute"])
@pytest.mark.parametrize("experts", ["modality", "shared"])
def test_exactly_what_images_use_learns(positions: str, experts: str) -> None:
    task = make_task(transformer={"positions": positions, "experts": experts})
    losses, _ = task.losses(masked_images())
    task.total(losses).backward()
    learned = {
        name
        for name, parameter in task.named_parameters()
        if parameter.grad is not None and np.abs(parameter.grad.numpy()).max() > 0
    }
    kept = ("model.text_embeddings.", "model.pooler.")
    expected = {
        name
        for name, _ in task.named_parameters()
        if not name.startswith(kept) and ".experts.text." not in name and ".experts.pair." not in name
    }
    assert learned == expected
    assert all(p.stop_gradient == (name not in expected) for name, p in task.named_parameters())
    types = task.model.type_embedding.weight.grad.numpy()
    assert not types[0].any() and types[1].all()
    if positions == "relative":
        rows = task.model.relative_positions.position_bias.grad.numpy().any(axis=1)
        assert rows[: (2 * GRID - 1) ** 2 + 3].all() and not rows[(2 * GRID - 1) ** 2 + 3 :].any()


def test_masked_patches_tell_nothing() -> None:
    """No state depends on any of their pixels; some state depends on every other pixel."""
    task, batch = make_task(), masked_images()
    batch.images.stop_gradient = False
    states = task.objective.states(task.model, batch)
    (
        states * paddle.to_tensor(np.random.default_rng(1).normal(size=states.shape), "float32")
    ).sum().backward()
    gradient = batch.images.grad.numpy().reshape(3, 3, GRID, 8, GRID, 8).transpose(0, 2, 4, 1, 3, 5)
    gradient = gradient.reshape(3, GRID**2, -1)
    masked = batch.masked.numpy()
    assert not gradient[masked].any() and gradient[~masked].all()


def test_targets_are_the_pixels_less_mean_and_deviation_of_their_patch() -> None:
    images = np.random.default_rng(0).normal(1.0, 2.0, (2, 3, 16, 16)).astype(np.float32)
    found = patch_pixels(paddle.to_tensor(images), 8)
    patch = images[1, :, 8:, :8]  # row 1, column 0
    np.testing.assert_allclose(
        found[1, 2], ((patch - patch.mean()) / patch.std(ddof=1)).reshape(-1), atol=1e-5
    )
    assert np.isfinite(patch_pixels(paddle.ones([1, 3, 8, 8]), 8).numpy()).all()


def test_loss_is_the_squared_error_of_masked_patches() -> None:
    task, batch = make_task(), masked_images()
    losses, report = task.losses(batch)
    states = task.objective.states(task.model, batch)
    errors = paddle.square(task.objective.masked_images.head(states) - patch_pixels(batch.images, 8)).mean(2)
    assert float(losses["mim"]) == pytest.approx(float(errors.numpy()[batch.masked.numpy()].mean()), rel=1e-5)
    assert list(losses) == ["mim"] and report == {}
    metric = task.new_metric()
    metric.update(task.predict(batch), batch)
    assert metric.compute() == {"mim_loss": pytest.approx(float(losses["mim"]), rel=1e-5)}


def test_the_mask_embedding_stands_for_masked_patches() -> None:
    """All patches masked: images differ in nothing."""
    task, batch = make_task(), masked_images()
    batch.masked = paddle.ones_like(batch.masked)
    states = task.objective.states(task.model, batch).numpy()
    np.testing.assert_array_equal(states[0], states[1])
    assert np.abs(states[0, 0] - states[0, 1]).max() > 1e-3  # relative positions tell the patches apart


def test_without_masked_patches_gradients_are_zero() -> None:
    task, batch = make_task(), masked_images()
    batch.masked, batch.mim_positions = paddle.zeros_like(batch.masked), paddle.zeros([0], "int64")
    losses, _ = task.losses(batch)
    losses["mim"].backward()
    assert float(losses["mim"]) == 0 and task.predict(batch) == {}
    assert not task.objective.masked_images.head.weight.grad.numpy().any()


def test_loss_falls() -> None:
    """One batch is learned by heart."""
    task, batch = make_task(), masked_images()
    optimizer = paddle.optimizer.AdamW(3e-3, parameters=[p for p in task.parameters() if not p.stop_gradient])
    values = []
    for _ in range(40):
        loss = task.total(task.losses(batch)[0])
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        values.append(float(loss))
    assert values[-1] < 0.5 * values[0]


def vision_run(output: Path | str = "unused", **data: Any) -> RunConfig:
    """A micro run on the pictures of `scenes`; its pairs are not read."""
    model = {
        "name": "vlmo_tiny",
        "text": {"vocab_size": 300},
        "vision": {"image_size": 32, "patch_size": 8},
        "transformer": {**TOWER, "pair_layers": 1},
    }
    data = {"images": ["scenes"], "train_transform": "beit_crop", "eval_transform": "vit", **data}
    return make_run("pretrain", output, model=model, data=data, task={"stage": "vision"})


def test_a_run_learns_and_is_evaluated(tmp_path: Path) -> None:
    summary = training.train(vision_run(tmp_path))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["mim"]) for line in lines if "mim" in line)
    assert list(summary["metrics"]) == ["mim_loss"]
    found = evaluate(tmp_path, "val")
    assert describe(tmp_path, found, False)["data"] == ["scenes"] and found.samples == 3
    assert found.metrics["mim_loss"] == pytest.approx(summary["metrics"]["mim_loss"], rel=1e-5)


def test_only_images_are_read(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), (9, 90, 200)).save(tmp_path / "a.png")
    run = vision_run(images=[{"path": str(tmp_path), "name": "mine"}])
    assert sources(run) == ([], True)  # the pairs of `scenes` do not count
    task, _, opened = make_micro(run)
    assert list(opened.train_datasets()) == ["mine"]
    batch = opened.collator(True).collate(
        [opened.collator(True).prepare(opened.train_datasets()["mine"][0], np.random.default_rng(0))],
        np.random.default_rng(0),
    )
    assert batch.images.shape == (1, 3, 32, 32) and batch.masked.shape == (1, 16)
    np.testing.assert_array_equal(np.flatnonzero(batch.masked), batch.mim_positions)
    assert np.isfinite(float(task.losses(to_tensors(batch))[0]["mim"]))


def test_a_run_without_images_is_refused() -> None:
    with pytest.raises(ConfigError, match="data.images is empty.*data.images=DIR"):
        make_micro(vision_run(images=[]))
