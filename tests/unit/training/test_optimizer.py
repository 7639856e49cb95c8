from dataclasses import replace

import numpy as np
import paddle
import pytest
from small_run import SmallModel, SmallModelConfig, SmallTask, SmallTaskConfig

from unimo.errors import CheckpointError, ConfigError
from unimo.settings import OptimConfig
from unimo.training.optimizer import build_optimizer, decays, load_optimizer_tensors, optimizer_tensors


def small_task() -> SmallTask:
    paddle.seed(0)
    return SmallTask(SmallModel(SmallModelConfig(dropout=0.0)), SmallTaskConfig())


def step(task: SmallTask, optimizer: paddle.optimizer.AdamW, value: float = 1.0) -> None:
    for parameter in task.parameters():
        parameter.grad = paddle.full_like(parameter, value)
    optimizer.step()
    optimizer.clear_grad()


def test_update_equals_adamw_with_multipliers_and_decay() -> None:
    task = small_task()
    optim = OptimConfig(
        lr=0.01, lr_multipliers={"cross_modal": 5.0, "heads": 2.0}, weight_decay=0.1, clip_grad_norm=None
    )
    before = {name: p.numpy().copy() for name, p in task.named_parameters()}
    step(task, build_optimizer(task, optim))
    for name, parameter in task.named_parameters():
        rate = 0.01 * {"model.cross": 5.0, "head": 2.0}.get(name.rpartition(".")[0], 1.0)
        kept = 1 - rate * 0.1 if parameter.ndim > 1 else 1.0
        np.testing.assert_allclose(parameter.numpy(), before[name] * kept - rate, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("betas", "eps"), [((0.8, 0.95), 1e-8), ((0.9, 0.98), 0.5), ((0.5, 0.999), 1e-3)])
def test_moments_and_epsilon_are_those_of_the_config(betas: tuple[float, float], eps: float) -> None:
    task = small_task()
    optim = OptimConfig(lr=0.01, lr_multipliers={}, weight_decay=0.0, betas=list(betas), eps=eps)
    optimizer = build_optimizer(task, replace(optim, clip_grad_norm=None))
    expected = task.head.weight.numpy().astype(np.float64)
    first = second = 0.0
    for number, gradient in enumerate((1.0, -0.2, 0.05), start=1):
        step(task, optimizer, gradient)
        first = betas[0] * first + (1 - betas[0]) * gradient
        second = betas[1] * second + (1 - betas[1]) * gradient**2
        unbiased = first / (1 - betas[0] ** number), second / (1 - betas[1] ** number)
        expected = expected - 0.01 * unbiased[0] / (np.sqrt(unbiased[1]) + eps)
        np.testing.assert_allclose(task.head.weight.numpy(), expected, atol=1e-6)


def test_no_decay_on_vectors_and_class_and_position_tables() -> None:
    table, vector = paddle.zeros([4, 4]), paddle.zeros([4])
    assert decays("model.vision.blocks.0.qkv.weight", table)
    assert decays("model.text.word_embeddings.weight", table)
    assert decays("classifier.0.weight", table)
    assert not decays("model.text.position_embeddings.weight", table)
    assert not decays("model.vision.position_embedding", table)
    assert not decays("model.vision.class_embedding", table)
    assert not decays("model.norm.weight", vector)


def test_clip_scales_to_the_global_norm_and_keeps_it() -> None:
    task = small_task()
    optimizer = build_optimizer(task, OptimConfig(clip_grad_norm=0.5))
    count = sum(int(np.prod(p.shape)) for p in task.parameters())
    step(task, optimizer, 2.0)
    assert optimizer._grad_clip.norm.item() == pytest.approx(2 * count**0.5, rel=1e-5)
    moment = optimizer_tensors(optimizer, task)["head.weight/moment1"]
    np.testing.assert_allclose(moment, 0.1 * 2.0 * 0.5 / (2 * count**0.5), rtol=1e-4)


@pytest.mark.parametrize("norm", [1e-2, 1.0, 30.0])
@pytest.mark.parametrize("share", [0.5, 0.99, 1.5])
def test_gradients_below_the_norm_are_not_clipped(norm: float, share: float) -> None:
    task = small_task()
    optimizer = build_optimizer(task, OptimConfig(clip_grad_norm=norm))
    value = share * norm / sum(int(np.prod(p.shape)) for p in task.parameters()) ** 0.5
    step(task, optimizer, value)
    moment = optimizer_tensors(optimizer, task)["head.weight/moment1"]
    np.testing.assert_allclose(moment, 0.1 * value * min(1.0, 1 / share), rtol=2e-4)


def test_frozen_parameters_are_left_out() -> None:
    task = small_task()
    task.model.tower.weight.stop_gradient = True
    before = task.model.tower.weight.numpy().copy()
    optimizer = build_optimizer(task, OptimConfig())
    step(task, optimizer)
    np.testing.assert_array_equal(task.model.tower.weight.numpy(), before)
    assert not any(name.startswith("model.tower.weight") for name in optimizer_tensors(optimizer, task))


def test_unknown_group_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"lr_multipliers.crossmodal; nearest: cross_modal"):
        build_optimizer(small_task(), OptimConfig(lr_multipliers={"crossmodal": 5.0}))


def test_state_moves_to_another_model_of_the_same_process() -> None:
    first = small_task()
    optimizer = build_optimizer(first, OptimConfig())
    step(first, optimizer)
    state = optimizer_tensors(optimizer, first)
    weights = {name: p.numpy().copy() for name, p in first.named_parameters()}
    second = small_task()
    for name, parameter in second.named_parameters():
        parameter.set_value(weights[name])
    other = build_optimizer(second, OptimConfig())
    load_optimizer_tensors(other, second, state, "here")
    step(first, optimizer, 0.5)
    step(second, other, 0.5)
    for (name, left), right in zip(first.named_parameters(), second.parameters(), strict=True):
        np.testing.assert_array_equal(left.numpy(), right.numpy(), err_msg=name)


def test_missing_state_is_named() -> None:
    task = small_task()
    optimizer = build_optimizer(task, OptimConfig())
    step(task, optimizer)
    state = optimizer_tensors(optimizer, task)
    del state["head.bias/moment2"]
    with pytest.raises(CheckpointError, match="head.bias/moment2 is missing"):
        load_optimizer_tensors(build_optimizer(task, OptimConfig()), task, state, "here")
