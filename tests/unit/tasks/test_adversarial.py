"""Adversarial training against a plain reading of UNIMO's release; switched off, against plain training."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from micro import make_run, make_task
from micro_unimo import UNIMO

from unimo.errors import CapabilityError, ConfigError
from unimo.nn.block import set_recompute
from unimo.nn.kernels import paddle_kernels
from unimo.tasks.adversarial import AdversarialConfig, Perturbed, ascend, start, symmetric_kl
from unimo.tasks.base import to_tensors

SETTINGS = {
    "l2, release": {"max_norm": 0.02},
    "l2, paper": {"projection": "paper", "max_norm": 0.3},
    "l2, unlimited": {"max_norm": 0.0},
    "inf": {"norm_type": "inf", "lr": 0.2, "max_norm": 0.3, "init_mag": 0.25},
}
TASK = {"caption": {"java": False, "beam": {"max_length": 20}}, "entailment": {}}


def make(kind: str, **adversarial: Any):
    task = {**TASK[kind], "adversarial": {"steps": 3, "kl_weight": 0.7, **adversarial}}
    run = make_run(kind, **{**UNIMO, "task": task})
    layer, _, data = make_task(run)
    layer.train()
    return layer, to_tensors(next(data.train_loader(run)))


def norms(values: np.ndarray, kind: str) -> np.ndarray:
    flat = np.abs(values.reshape(len(values), -1))
    size = flat.max(1) if kind == "inf" else np.sqrt((flat**2).sum(1))
    return size[:, None, None]


def logits_and_loss(task, batch, text, image):
    """The pass of a task, spelled out, with perturbations in the places that the facts name."""
    model, regions = task.model, batch.images
    shown = model.encode_image({**regions, "delta": image} if image is not None else regions)
    ids, mask = batch.input_ids, batch.attention_mask
    if task.config.name == "entailment":
        tokens = model.encode_text(ids, mask, delta=text)
        logits = task.classifier(model.fuse(tokens, shown, outputs="pooled").pooled)
        return logits, F.cross_entropy(logits, batch.labels)
    states = model.decode(shown, ids, mask, delta=text).flatten(0, 1)
    logits = task.lm_head(paddle.gather(states, batch.target_positions))
    target = 0.9 * F.one_hot(batch.target_labels, logits.shape[1]) + 0.1 / logits.shape[1]
    return logits, -(target * F.log_softmax(logits)).sum(1).mean()


def kl(first, second):
    p, q = F.softmax(first), F.softmax(second)
    return ((p * (p.log() - q.log())).sum(1) + (q * (q.log() - p.log())).sum(1)).mean()


def reference(task, batch, config: AdversarialConfig, deltas: dict[str, np.ndarray]) -> float:
    """The total loss, whose gradients are left in the parameters, step by step and pass by pass."""
    total = 0.0
    for _ in range(config.steps):
        part = 0.0
        for name in ("text", "image"):
            delta = paddle.to_tensor(deltas[name], stop_gradient=False)
            with paddle_kernels():
                passes = {"text": None, "image": None, name: delta}
                _, loss = logits_and_loss(task, batch, **passes)
                (gradient,) = paddle.grad(loss / config.steps, delta)
            clean, clean_loss = logits_and_loss(task, batch, None, None)
            logits, loss = logits_and_loss(task, batch, **{**passes, name: delta.detach()})
            part = part + loss / config.steps + config.kl_weight * kl(clean, logits)
            part = part + clean_loss / config.steps / 2  # once for both
            size = norms(gradient.numpy(), config.norm_type)
            moved = deltas[name] + config.lr * gradient.numpy() / np.maximum(size, 1e-8)
            if config.max_norm and config.norm_type == "inf":
                moved = moved.clip(-config.max_norm, config.max_norm)
            elif config.max_norm:
                size = size if config.projection == "release" else norms(moved, "l2")
                moved = np.where(size > config.max_norm, moved * config.max_norm / size, moved)
            deltas[name] = moved.astype("float32")
        part.backward()
        total += part.item()
    return total


@pytest.mark.parametrize("kind", ["entailment", "caption"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_loss_and_gradients_are_those_of_the_plain_procedure(kind, setting, monkeypatch):
    task, batch = make(kind, **SETTINGS[setting])
    config = task.config.adversarial
    rng = np.random.default_rng(0)
    rows, length = batch.input_ids.shape
    shapes = {"text": (rows, length, 16), "image": (rows, 5, 12)}
    noise = {name: rng.normal(0, 0.1, shape).astype("float32") for name, shape in shapes.items()}
    waiting = [paddle.to_tensor(noise[name]) for name in ("text", "image")]
    monkeypatch.setattr("unimo.tasks.adversarial.start", lambda part, config: waiting.pop(0))
    loss, values = task(batch)
    loss.backward()
    found = {name: p.grad.numpy() for name, p in task.named_parameters() if p.grad is not None}
    task.clear_gradients()
    assert loss.item() == pytest.approx(reference(task, batch, config, dict(noise)), rel=1e-5)
    assert len(found) > 30
    for name, parameter in task.named_parameters():
        if parameter.stop_gradient:
            assert name not in found
            continue
        np.testing.assert_allclose(found[name], parameter.grad.numpy(), atol=2e-5, err_msg=name)
    assert set(values) == {
        kind,
        *(f"{n}_{k}" for n in ("text", "image") for k in ("adversarial", "kl")),
        "accuracy",
    }
    assert values["text_kl"].item() > 0 and values["image_adversarial"].item() != values[kind].item()


@pytest.mark.parametrize("kind", ["entailment", "caption"])
def test_without_steps_it_is_plain_training(kind):
    task, batch = make(kind, steps=0)
    loss, values = task(batch)
    assert set(values) == {kind, "accuracy"} and loss.item() == values[kind].item()
    expected = logits_and_loss(task, batch, None, None)[1]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("kind", ["entailment", "caption"])
def test_ascent_raises_the_loss(kind):
    """Without noise the first step is a clean one, later ones are worse for the task."""
    task, batch = make(kind, init_mag=0.0, steps=1)
    once = task.losses(batch)[0]
    assert once["text_adversarial"].item() == pytest.approx(once[kind].item(), abs=1e-5)
    assert once["text_kl"].item() == pytest.approx(0, abs=1e-6)
    task, batch = make(kind, init_mag=0.0, steps=3, lr=0.3, max_norm=0.0)
    more = task.losses(batch)[0]
    for name in ("text", "image"):
        assert more[f"{name}_adversarial"].item() > more[kind].item() + 1e-3


def test_start_has_the_size_that_the_release_gives_it():
    mask = paddle.to_tensor(np.arange(40)[None] < np.array([[40], [10]])).astype("int64")
    paddle.seed(0)
    noise = start(Perturbed(mask, 50), AdversarialConfig(init_mag=0.4)).numpy()
    for row, count in enumerate((40, 10)):
        limit = 0.4 / np.sqrt(count * 50)
        assert 0.95 * limit < np.abs(noise[row]).max() <= limit
        assert np.linalg.norm(noise[row]) == pytest.approx(0.4 / np.sqrt(3), rel=0.05)
        assert not noise[row, count:].any()
    noise = start(Perturbed(mask, 50), AdversarialConfig(init_mag=0.4, norm_type="inf")).numpy()
    assert 0.39 < np.abs(noise).max() <= 0.4 and not noise[1, 10:].any()


def test_projections_differ_in_what_they_compare():
    delta, gradient = paddle.zeros([1, 2, 2]), paddle.full([1, 2, 2], 2.0)  # of norm 4

    def size(**changes):
        moved = ascend(delta, gradient, AdversarialConfig(lr=0.1, **changes))
        return norms(moved.numpy(), "l2").item()

    assert size(max_norm=0.0) == pytest.approx(0.1)
    assert size(max_norm=0.4) == pytest.approx(0.1 * 0.4 / 4)  # the gradient's norm is compared
    assert size(max_norm=0.4, projection="paper") == pytest.approx(0.1)
    assert size(max_norm=0.05, projection="paper") == pytest.approx(0.05)


def test_divergence():
    logits = [np.random.default_rng(seed).normal(size=(5, 7)) for seed in (0, 1)]
    p, q = (np.exp(part) / np.exp(part).sum(1, keepdims=True) for part in logits)
    expected = ((p - q) * (np.log(p) - np.log(q))).sum(1).mean()
    found = symmetric_kl(*(paddle.to_tensor(part.astype("float32")) for part in logits))
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_what_cannot_be_perturbed_or_recomputed():
    with pytest.raises(CapabilityError, match="'entailment with task.adversarial' needs regions.*unimo_tiny"):
        make_task(make_run("entailment", task={"adversarial": {"steps": 1}}))
    task, batch = make("entailment")
    set_recompute(task, True)
    with pytest.raises(ConfigError, match="task.adversarial.steps with train.recompute=true"):
        task.losses(batch)
    with pytest.raises(ConfigError, match="expected 0 or more"):
        make("entailment", lr=-1.0)
