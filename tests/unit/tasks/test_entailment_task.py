"""Entailment: accuracy by class of a hand-made batch, and the loss."""

from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from micro import make_run, make_task

from unimo.tasks.base import to_tensors
from unimo.tasks.entailment import EntailmentAccuracy


def test_accuracy_over_all_and_by_class() -> None:
    metric = EntailmentAccuracy()
    labels, guesses = paddle.to_tensor([0, 0, 1, 2]), paddle.to_tensor([0, 1, 1, 0])
    metric.update({"guesses": guesses}, SimpleNamespace(labels=labels))
    expected = {
        "accuracy": 50.0,
        "accuracy/contradiction": 50.0,
        "accuracy/neutral": 100.0,
        "accuracy/entailment": 0.0,
    }
    assert metric.compute() == expected


def test_loss_is_cross_entropy_of_three_classes() -> None:
    run = make_run("entailment")
    task, _, data = make_task(run)
    task.eval()
    batch = to_tensors(next(iter(data.eval_loader("val", run, batch_size=5))))
    logits = task.logits(batch).numpy().astype(np.float64)
    assert logits.shape == (5, 3)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -logs[np.arange(5), batch.labels.numpy()].mean()
    assert task.losses(batch)[0]["entailment"].item() == pytest.approx(expected, rel=1e-5)
