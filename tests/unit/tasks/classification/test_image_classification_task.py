"""Image classification: fine-tuning, the linear probe, and accuracy with ties."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest
from micro import make_run, make_task, saved
from micro_semvlp import SEMVLP
from micro_unimo2 import MODEL
from small_models import IMAGE, set_parameters
from small_models import small_model as small_unimo3
from small_unimo import small_model as small_unimo
from small_vlmo import small_vlmo

from unimo.errors import CapabilityError, CheckpointError
from unimo.inference.loading import load_task, start_from
from unimo.models.base import Model
from unimo.registry import task_class
from unimo.settings import OptimConfig
from unimo.tasks.base import Task, to_tensors
from unimo.tasks.classification.batches import ImageBatch
from unimo.tasks.classification.image import ImageClassificationConfig, TopAccuracy
from unimo.training.optimizer import build_optimizer
from unimo.training.plan import parts_of


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


CLASSES = {"classes": ["circle", "square", "triangle", "cross"]}


def made(model: Model, **config: Any) -> Task:
    """Image classification of four classes, trained on random images without dropout."""
    task = task_class("image_classification").create(model, ImageClassificationConfig(**config), CLASSES)
    task.train()
    return task


def images(count: int = 4, seed: int = 0) -> ImageBatch:
    pixels = np.random.default_rng(seed).normal(size=(count, 3, IMAGE, IMAGE)).astype(np.float32)
    return to_tensors(ImageBatch(images=pixels, labels=np.arange(count) % 4, sample_ids=[""] * count))


@pytest.mark.parametrize(
    ("protocol", "moved"), [("reference", "model"), ("finetune", "both"), ("linear", "head")]
)
@pytest.mark.parametrize("name", ["unimo3_tiny", "meter_tiny", "bridgetower_tiny"])
def test_one_step_moves_what_the_protocol_says(name: str, protocol: str, moved: str) -> None:
    """BridgeTower's code gives its optimizer the tower alone: the classifier keeps its start."""
    paddle.seed(0)
    task = made(small_unimo3(name), protocol=protocol)
    before = {key: p.numpy().copy() for key, p in task.named_parameters()}
    optimizer = build_optimizer(task, OptimConfig(lr=1e-2, weight_decay=0.01))
    task(images())[0].backward()
    optimizer.step()
    changed = {key for key, p in task.named_parameters() if (p.numpy() != before[key]).any()}
    tower = {key for key in before if key.startswith("model.vision.")}
    head = {"classifier.weight", "classifier.bias"}
    assert changed == {"model": tower, "both": tower | head, "head": head}[moved]


def test_classifier_starts_at_n_of_0_002() -> None:
    paddle.seed(0)
    model = small_unimo3(vision={"hidden_size": 128})
    weight = made(model, protocol="reference").classifier.weight.numpy()
    assert abs(weight.std() - 0.02) < 0.003 and abs(weight.mean()) < 0.003
    assert made(model, head_std=2e-5).classifier.weight.numpy().std() == pytest.approx(2e-5, rel=0.1)


@pytest.mark.parametrize("make", [small_unimo3, small_vlmo])
def test_mean_pooling_is_the_norm_of_the_mean_patch(make: Callable[[], Model]) -> None:
    task, batch = made(make(), pooling="mean"), images()
    task.eval()
    set_parameters(task.norm, 3)
    if make is small_vlmo:
        sequence = task.model.join(None, task.model.encode_image(batch.images))
        states = task.model.run(sequence)[0].numpy()
    else:
        states = task.model.encode_image(batch.images, layers=True).image_layers[-1].numpy()
    mean = states[:, 1:].mean(axis=1)
    normal = (mean - mean.mean(1, keepdims=True)) / np.sqrt(mean.var(1, keepdims=True) + 1e-6)
    normal = normal * task.norm.weight.numpy() + task.norm.bias.numpy()
    expected = normal @ task.classifier.weight.numpy() + task.classifier.bias.numpy()
    np.testing.assert_allclose(task.logits(batch).numpy(), expected, atol=2e-5)
    touched = gradients(task, batch)
    assert touched == {name for name, p in task.named_parameters() if not p.stop_gradient}
    assert {"norm.weight", "norm.bias"} < touched
    assert not {
        name for name in touched if ".pooler." in name or "ln_post" in name or name == "model.norm.weight"
    }


def test_mean_pooling_of_a_probe_has_no_norm_to_learn() -> None:
    task = made(small_vlmo(), pooling="mean", protocol="linear")
    assert gradients(task, images()) == {"classifier.weight", "classifier.bias"} and task.norm is None


def test_mean_pooling_needs_pixels() -> None:
    with pytest.raises(CapabilityError, match="pooling=mean.*pixels.*unimo_tiny"):
        made(small_unimo(), pooling="mean")


def test_a_classifier_into_other_classes_starts_anew_and_the_norm_goes_on(tmp_path: Path) -> None:
    """The intermediate step of BEiT: ImageNet-21k, then ImageNet-1k, of which the classifier is new."""
    source = saved("image_classification", tmp_path, task={"pooling": "mean"})
    run = make_run("image_classification", task={"pooling": "mean"})
    task, *_ = make_task(run, seed=1)
    assert start_from(task, source) == []
    model = task.model
    for classes in (["circle", "square"], ["square", "circle", "triangle", "cross"]):
        other = task_class("image_classification").create(model, run.task, {"classes": classes})
        random = other.classifier.weight.numpy().copy()
        assert start_from(other, source) == ["classifier.weight", "classifier.bias"]
        np.testing.assert_array_equal(other.classifier.weight.numpy(), random)
        heads = parts_of(other, "there", ["classifier.weight", "classifier.bias"])[-1]
        assert (heads.part, heads.weights) == ("heads", "partly random, there")


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
