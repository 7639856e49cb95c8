"""Every task promises the loop: falling losses, a gradient for every parameter, repeatable evaluation."""

from typing import Any

import numpy as np
import paddle
import pytest
from dropped import assert_dropped
from micro import make_run, make_task
from micro_unimo2 import MODEL

from unimo.errors import CapabilityError
from unimo.registry import require
from unimo.tasks.base import to_tensors

TASKS = ["pretrain", "vqa", "entailment", "retrieval"]
HEADS: list[tuple[str, dict[str, Any]]] = [
    ("text_classification", {}),
    ("image_classification", {}),
    ("image_classification", {"protocol": "linear"}),
    ("entailment", {"head": "linear"}),
]
STEPS = {"entailment": 30, "retrieval": 80}


@pytest.mark.parametrize("name", TASKS)
def test_every_parameter_learns(name: str) -> None:
    run = make_run(name)
    task, _, data = make_task(run)
    loss, values = task(to_tensors(next(data.train_loader(run))))
    parts = [value.item() for key, value in values.items() if key in task_losses(name)]
    assert loss.item() == pytest.approx(sum(parts), rel=1e-5)
    loss.backward()
    idle = [n for n, p in task.named_parameters() if not p.stop_gradient and p.grad is None]
    assert idle == []


def task_losses(name: str) -> set[str]:
    return {"pretrain": {"mlm", "itm"}, "retrieval": {"itc", "itm"}}.get(name, {name})


@pytest.mark.parametrize("name", TASKS)
def test_training_step_lowers_the_loss(name: str) -> None:
    run = make_run(name)
    task, _, data = make_task(run)
    task.eval()
    batch = to_tensors(next(data.train_loader(run)))
    adam = paddle.optimizer.Adam(1e-2, parameters=task.parameters())
    losses = []
    for _ in range(STEPS.get(name, 12)):
        paddle.seed(1)
        loss, _ = task(batch)
        loss.backward()
        adam.step()
        adam.clear_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", TASKS)
def test_evaluation_repeats_and_leaves_training_mode(name: str) -> None:
    run = make_run(name, data={"scenes": {"val_images": 2}})
    task, _, data = make_task(run)
    task.train()
    seen = []
    first = task.evaluate(data.eval_loader("val", run), seen.append)
    assert task.training and seen
    assert task.evaluate(data.eval_loader("val", run)) == first
    assert all(np.isfinite(value) for value in first.values())


@pytest.mark.parametrize("name", TASKS)
def test_evaluation_drops_nothing_and_keeps_no_graph(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(name, data={"scenes": {"val_images": 2}})
    task, _, data = make_task(run)
    task.train()
    seen, encode = [], task.model.encode_text

    def watched(*arguments: Any, **options: Any) -> Any:
        modes = {layer.training for layer in task.sublayers(include_self=True)}
        seen.append((modes, paddle.is_grad_enabled()))
        return encode(*arguments, **options)

    monkeypatch.setattr(task.model, "encode_text", watched)
    task.evaluate(data.eval_loader("val", run))
    assert seen and all(one == ({False}, False) for one in seen)
    assert all(layer.training for layer in task.sublayers(include_self=True))


@pytest.mark.parametrize(("name", "task_options"), HEADS)
@pytest.mark.parametrize("training", [True, False])
def test_pooled_vectors_are_dropped_before_the_last_product(
    name: str, task_options: dict[str, Any], training: bool
) -> None:
    """With the rate of the head, in training; the model itself drops nothing here."""
    steady = {"dropout": 0.0, "attention_dropout": 0.0}
    model = {**MODEL, "text": {**MODEL["text"], **steady}, "fusion": {**MODEL["fusion"], **steady}}
    run = make_run(name, model=model, task={"head_dropout": 0.4, **task_options})
    task, _, data = make_task(run)
    batch = to_tensors(next(data.train_loader(run)))
    last = getattr(task.classifier, "out", task.classifier)
    found = []
    last.register_forward_post_hook(lambda _, given, __: found.append(given[0]))
    task.eval()
    task.logits(batch)
    task.train() if training else task.eval()
    task.logits(batch)
    assert_dropped(found[1], found[0], 0.4 if training else 0.0, name)


def test_learning_rate_groups() -> None:
    task, _, _ = make_task(make_run("retrieval"))
    groups = {name: task.lr_group(name) for name, _ in task.named_parameters()}
    assert groups["temperature"] == "towers"
    assert groups["itm_head.weight"] == "heads"
    assert {groups[n] for n in groups if n.startswith("model.fusion")} == {"cross_modal"}
    assert {groups[n] for n in groups if n.startswith("model.vision")} == {"towers"}


def test_missing_capability_names_models_that_have_it() -> None:
    with pytest.raises(CapabilityError, match=r"'vqa' needs generation.*unimo3_tiny"):
        require("unimo3_tiny", {"generation"}, "vqa")
