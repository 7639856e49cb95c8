"""Counted operations of matrix products against numbers computed by hand, and against those of a config."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
import pytest
from paddle import nn
from small_models import pretrain_batch, small_config
from small_vlmo import small_config as small_vlmo_config

from unimo import registry
from unimo.benchmark import flops
from unimo.nn.attention import SelfAttention
from unimo.nn.block import set_recompute
from unimo.nn.products import count_products
from unimo.tasks.pretrain import PretrainTask


def test_a_linear_layer_costs_its_product_and_one_for_each_gradient() -> None:
    layer, frozen = nn.Linear(3, 5), nn.Linear(5, 7)
    for parameter in frozen.parameters():
        parameter.stop_gradient = True
    with count_products() as found:
        frozen(layer(paddle.ones([4, 3])))
    first, second = 2 * 4 * 3 * 5, 2 * 4 * 5 * 7
    assert found.forward == first + second
    # Pixels need no gradient, frozen weights need none.
    assert found.training == 2 * first + 2 * second


def test_nothing_is_left_of_counting() -> None:
    before = paddle.matmul, F.linear, F.scaled_dot_product_attention
    with pytest.raises(ValueError, match="inside"), count_products() as found:
        raise ValueError("inside")
    assert (paddle.matmul, F.linear, F.scaled_dot_product_attention) == before
    paddle.matmul(paddle.ones([2, 2]), paddle.ones([2, 2]))
    assert (found.forward, found.training) == (0, 0)


@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True)])
def test_matmul_of_any_layout(transposed: tuple[bool, bool]) -> None:
    x, y = ([6, 3, 2] if transposed[0] else [6, 2, 3]), ([6, 4, 3] if transposed[1] else [6, 3, 4])
    with count_products() as found, paddle.no_grad():
        paddle.matmul(paddle.ones(x), paddle.ones(y), *transposed)
    assert found.forward == found.training == 2 * 6 * 2 * 3 * 4


def test_convolution_with_groups() -> None:
    layer = nn.Conv2D(4, 6, 3, stride=2, padding=1, groups=2)
    with count_products() as found:
        layer(paddle.ones([2, 4, 8, 8]))
    assert found.forward == 2 * (2 * 6 * 4 * 4) * (2 * 3 * 3)


def test_fused_attention_counts_as_its_two_products(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, states = SelfAttention(8, 2), paddle.ones([3, 5, 8])
    counts = []
    for fused in (False, True):
        monkeypatch.setattr("unimo.nn.attention.use_fused_kernel", lambda fused=fused: fused)
        with count_products() as found:
            layer(states)
        counts.append((found.forward, found.training))
    assert counts[0] == counts[1]
    # Logits and weighted sums: 4 * queries * keys * width; projections: 4 W^2 weights.
    assert counts[0][0] == 3 * (4 * 5 * 5 * 8 + 2 * 5 * 4 * 8 * 8)


def test_recomputed_blocks_are_computed_once_more() -> None:
    task = PretrainTask(registry.build_model(small_config()), registry.task_config("pretrain", "unimo3_tiny"))
    batch, found = pretrain_batch(), {}
    for on in (False, True):
        set_recompute(task, on)
        with count_products(recomputes=on) as found[on]:
            task(batch)
    plain, again = found[False], found[True]
    assert again.forward == plain.forward
    assert plain.training + 0.8 * plain.forward < again.training < plain.training + plain.forward


@pytest.mark.parametrize("name", ["unimo3_tiny", "unimo3_tiny_d", "meter_tiny", "bridgetower_tiny"])
def test_a_real_pass_costs_what_the_config_says(name: str) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 128}
    config = small_config(name, text=sizes, vision=sizes, fusion=sizes)
    task = PretrainTask(registry.build_model(config), registry.task_config("pretrain", name))
    batch = pretrain_batch()
    with count_products() as found:
        task(batch)
    told = sum(flops.own_step(config, 3, batch.input_ids.shape[1], batch.mlm_labels.shape[0]).values())
    assert found.training == pytest.approx(told, rel=0.02)


@pytest.mark.parametrize("pair_layers", [0, 1])
def test_a_real_pass_of_vlmo_costs_what_the_config_says(pair_layers: int) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 128, "pair_layers": pair_layers}
    config = small_vlmo_config(transformer=sizes, objective={"tasks": ["itm", "mlm"]})
    task = PretrainTask(registry.build_model(config), registry.task_config("pretrain", config.name))
    batch = pretrain_batch()
    with count_products() as found:
        task(batch)
    told = flops.vlmo_step(config, 3, batch.input_ids.shape[1], batch.mlm_labels.shape[0])
    assert found.training == sum(told.values()) - told["patches"] // 3  # pixels need no gradient
