"""Layer-wise rates: the table of BEiT's recipe, and what stands at which depth in every model."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn
from small_models import small_model as small_unimo3
from small_run import SmallModel, SmallModelConfig, SmallTask, SmallTaskConfig, train
from small_run import make_run as make_small_run
from small_semvlp import small_semvlp
from small_unimo import small_model as small_unimo
from small_unimo2 import small_unimo2
from small_vlmo import small_vlmo
from test_optimizer import step

from unimo.models.base import Model
from unimo.registry import model_config, task_class
from unimo.settings import OptimConfig
from unimo.training.optimizer import build_optimizer, rate_factors

LAYERS, DECAY = 12, 0.65
OPTIM = OptimConfig(lr_multipliers={"heads": 1.0, "cross_modal": 1.0}, layer_decay=DECAY)


def image_task(model: Model) -> nn.Layer:
    """Image classification of two classes on a model with as many layers as the base size, but narrow."""
    task = task_class("image_classification")
    return task.create(model, task.Config(), {"classes": ["a", "b"]})


def by_place(factors: dict[str, float]) -> dict[str, float]:
    """Rates by what stands before the number of a layer, with it; the same for all of its parameters."""
    found: dict[str, set[float]] = {}
    for name, factor in factors.items():
        layer = re.match(r".*?\.\d+(?=\.)", name)
        found.setdefault(layer[0] if layer else name, set()).add(factor)
    assert all(len(rates) == 1 for rates in found.values()), found
    return {place: rates.pop() for place, rates in found.items()}


def test_rates_of_vlmo_base_are_those_of_beit() -> None:
    assert model_config("vlmo_base").transformer.num_layers == LAYERS
    model = small_vlmo("vlmo_base", transformer={"num_layers": LAYERS, "pair_layers": 2})
    lowest = DECAY ** (LAYERS + 1)
    assert by_place(rate_factors(image_task(model), OPTIM)) == {
        **dict.fromkeys(
            (
                "model.class_embedding",
                "model.patch_embedding.weight",
                "model.patch_embedding.bias",
                "model.type_embedding.weight",
            ),
            pytest.approx(lowest),
        ),
        # The first block has 0.65^12, the last 0.65.
        **{f"model.blocks.{i}": pytest.approx(DECAY ** (LAYERS - i)) for i in range(LAYERS)},
        "model.relative_positions.position_bias": 1.0,
        **dict.fromkeys(("model.norm.weight", "model.norm.bias"), 1.0),
        **dict.fromkeys(("model.pooler.dense.weight", "model.pooler.dense.bias"), 1.0),
        **dict.fromkeys(("classifier.weight", "classifier.bias"), 1.0),
    }
    assert lowest == pytest.approx(0.0036972, abs=1e-7)


@pytest.mark.parametrize(
    ("name", "layers"), [("unimo3_base", 12), ("bridgetower_base", 12), ("meter_base", 11)]
)
def test_rates_of_a_vision_tower_end_at_its_own_top(name: str, layers: int) -> None:
    assert model_config(name).vision.used_layers == layers
    model = small_unimo3(name, vision={"num_layers": LAYERS}, text={"num_layers": LAYERS}, fusion={})
    embeddings = (
        "class_embedding",
        "position_embedding",
        "patch_embedding.weight",
        "ln_pre.weight",
        "ln_pre.bias",
    )
    assert by_place(rate_factors(image_task(model), OPTIM)) == {
        **dict.fromkeys(
            (f"model.vision.{part}" for part in embeddings), pytest.approx(DECAY ** (layers + 1))
        ),
        **{f"model.vision.layers.{i}": pytest.approx(DECAY ** (layers - i)) for i in range(layers)},
        **dict.fromkeys(("model.vision.ln_post.weight", "model.vision.ln_post.bias"), 1.0),
        **dict.fromkeys(("classifier.weight", "classifier.bias"), 1.0),
    }


@pytest.mark.parametrize(
    ("make", "first", "layers"),
    [
        (small_unimo, 1, 2),
        (small_unimo2, 3, 5),  # a fusion encoder goes on counting where the towers end
        (small_unimo3, 5, 7),
        (small_vlmo, 1, 4),
        (small_semvlp, 1, 4),
    ],
)
def test_every_layer_of_every_model_has_a_depth(make: Callable[[], Model], first: int, layers: int) -> None:
    model = make()
    depths = {name: model.depth(name) for name, _ in model.named_parameters()}
    assert {depth for depth in depths.values() if depth} == set(range(1, layers + 1))
    assert {depths[name] for name in depths if "embeddings" in name or "patch_embedding" in name} == {0}
    assert {depths[name] for name in depths if "pooler" in name} == {None}
    numbered = {name: re.search(r"(\d+)\.", name) for name in depths if "_links.gates." not in name}
    below = {depths[name] - int(found[1]) for name, found in numbered.items() if found}
    assert below == {1, first}


def small_task() -> SmallTask:
    paddle.seed(0)
    return SmallTask(SmallModel(SmallModelConfig(dropout=0.0)), SmallTaskConfig())


def test_decay_multiplies_the_rate_of_the_group() -> None:
    optim = OptimConfig(lr_multipliers={"heads": 2.0, "cross_modal": 5.0}, layer_decay=0.5)
    expected = {"model.tower": 0.25, "model.norm": 1.0, "model.cross": 5.0 * 0.5, "head": 2.0}
    assert rate_factors(small_task(), optim) == {
        f"{layer}.{kind}": factor for layer, factor in expected.items() for kind in ("weight", "bias")
    }
    assert set(rate_factors(small_task(), replace(optim, layer_decay=1.0)).values()) == {1.0, 2.0, 5.0}


def test_layers_count_up_to_the_highest_that_learns() -> None:
    task = small_task()
    task.model.cross.weight.stop_gradient = task.model.cross.bias.stop_gradient = True
    assert rate_factors(task, OptimConfig(layer_decay=0.5))["model.tower.weight"] == 0.5


def test_update_is_adamw_at_the_rate_of_the_layer() -> None:
    task = small_task()
    optim = OptimConfig(lr=0.01, lr_multipliers={}, layer_decay=0.5, weight_decay=0.1, clip_grad_norm=None)
    before = {name: p.numpy().copy() for name, p in task.named_parameters()}
    step(task, build_optimizer(task, optim))
    for name, parameter in task.named_parameters():
        rate = 0.01 * {"model.tower": 0.25, "model.cross": 0.5}.get(name.rpartition(".")[0], 1.0)
        kept = 1 - rate * 0.1 if parameter.ndim > 1 else 1.0
        np.testing.assert_allclose(parameter.numpy(), before[name] * kept - rate, atol=1e-6, err_msg=name)


def test_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    def run(folder: str, steps: int) -> dict[str, np.ndarray]:
        changes = {"optim": {"layer_decay": 0.5, "schedule": "constant"}, "train": {"max_steps": steps}}
        state = train(make_small_run(tmp_path / folder, **changes))
        return {name: p.numpy() for name, p in state.task.named_parameters()}

    whole = run("whole", 6)
    run("broken", 3)
    for name, found in run("broken", 6).items():
        np.testing.assert_array_equal(found, whole[name], err_msg=name)
