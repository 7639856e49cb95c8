"""Image classification: fine-tuning, the linear probe, and accuracy with ties."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from micro import make_run, make_task, saved
from micro_semvlp import SEMVLP
from micro_unimo2 import MODEL

from unimo.errors import CapabilityError, CheckpointError
from unimo.inference.loading import load_task
from unimo.registry import task_class
from unimo.tasks.base import to_tensors
from unimo.tasks.classification.image import TopAccuracy


def setting(**task):
    run = make_run("image_classification", model=MODEL, task=task)
    task_, _, data = make_task(run)
    return run, task_, data


def gradients(task, batch) -> set[str]:
    task.train()
    task(batch)[0].backward()
    return {name for name, p in task.named_parameters() if p.grad is not None}


def test_loss_is_cross_entropy_and_text_takes_no_part() -> None:
    run, task, data = setting()
    batch = to_tensors(next(data.train_loader(run)))
    assert not hasattr(batch, "input_ids") and task.classes == ["circle", "square", "triangle", "cross"]
    task.eval()
    logits = task.logits(batch).numpy().astype(np.float64)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -logs[np.arange(8), batch.labels.numpy()].mean()
    assert task.total(task.losses(batch)[0]).item() == pytest.approx(expected, rel=1e-5)
    touched = gradients(task, batch)
    assert touched == {name for name, p in task.named_parameters() if not p.stop_gradient}
    parts = {name.split(".")[1] for name in touched if name.startswith("model.")}
    assert {"vision", "grounding", "fusion", "image_pooler"} <= parts and not parts & {"text", "text_pooler"}


def test_linear_probe_trains_the_classifier_alone() -> None:
    run, task, data = setting(protocol="linear")
    batch = to_tensors(next(data.train_loader(run)))
    assert gradients(task, batch) == {"classifier.weight", "classifier.bias"}
    assert task.training and not task.model.training
    assert [name for name, p in task.named_parameters() if not p.stop_gradient] == [
        "classifier.weight", "classifier.bias",
    ]  # fmt: skip
    task.eval()
    features = task.features(batch).numpy()
    normal = (features - features.mean(1, keepdims=True)) / np.sqrt(features.var(1, keepdims=True) + 1e-5)
    expected = normal @ task.classifier.weight.numpy() + task.classifier.bias.numpy()
    np.testing.assert_allclose(task.logits(batch).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("protocol", ["finetune", "reference"])
def test_the_vision_tower_of_unimo3_is_classified_alone(protocol: str) -> None:
    run = make_run("image_classification", task={"protocol": protocol})
    task, _, data = make_task(run)
    batch = to_tensors(next(data.train_loader(run)))
    touched = gradients(task, batch)
    assert touched == {name for name, p in task.named_parameters() if not p.stop_gradient}
    heads = {"classifier.weight", "classifier.bias"} if protocol == "finetune" else set()
    assert {name for name in touched if not name.startswith("model.vision.")} == heads
    assert touched - heads == {f"model.vision.{name}" for name, _ in task.model.vision.named_parameters()}
    task.eval()
    image = task.model.encode_image(batch.images).image[:, 0].numpy()
    expected = image @ task.classifier.weight.numpy() + task.classifier.bias.numpy()
    np.testing.assert_allclose(task.logits(batch).numpy(), expected, atol=1e-5)


def test_accuracy_counts_ties_and_nan_as_misses() -> None:
    metric = TopAccuracy()
    logits = np.zeros((4, 6), np.float32)
    logits[0, 2] = 1.0  # right
    logits[1] = [6, 5, 4, 3, 2, 1]  # fifth: among the best five
    logits[3] = np.nan
    batch = SimpleNamespace(labels=paddle.to_tensor([2, 4, 1, 0]))
    metric.update({"logits": paddle.to_tensor(logits)}, batch)
    assert metric.compute() == {"accuracy": 25.0, "accuracy_top5": 50.0, "majority": 25.0}


def test_classes_come_back_from_the_model_directory(tmp_path: Path) -> None:
    task, _ = load_task(saved("image_classification", tmp_path, model=MODEL))
    run, _, data = setting()
    assert task.classes == ["circle", "square", "triangle", "cross"]
    metrics = task.evaluate(data.eval_loader("val", run))
    assert set(metrics) == {"accuracy", "majority"}
    with pytest.raises(CheckpointError, match="list of classes"):
        task_class("image_classification").create(task.model, run.task, {})


def test_a_model_that_needs_texts_is_refused() -> None:
    with pytest.raises(CapabilityError, match="image_alone.*unimo2_tiny"):
        make_task(make_run("image_classification", **SEMVLP))
