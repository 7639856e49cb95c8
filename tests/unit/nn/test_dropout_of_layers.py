"""Every dropout of the shared layers acts where its paper says."""

from __future__ import annotations

from functools import partial
from typing import Any

import paddle
import paddle.nn.functional as F
import pytest
from dropped import Watch, assert_dropped, assert_residuals, checked_attention, parts_of
from paddle import Tensor, nn

from unimo.nn.attention import CrossAttention, SelfAttention, _MultiHead
from unimo.nn.block import Block, CrossBlock, Mlp
from unimo.nn.config import TextConfig, VitConfig
from unimo.nn.embeddings import RegionEmbeddings, TextEmbeddings
from unimo.nn.heads import LinearHead
from unimo.nn.towers import VisionTower, VitTower

BLOCKS = {
    "pre-norm": partial(Block, 16, 2, partial(Mlp, 16, 32), norm_first=True),
    "post-norm": partial(Block, 16, 2, partial(Mlp, 16, 32), norm_first=False),
    "co-attention": partial(CrossBlock, 16, 2, 32),
}
SIZES: dict[str, Any] = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 32}
training = pytest.mark.parametrize("is_training", [True, False])


def switched(layer: nn.Layer, is_training: bool) -> nn.Layer:
    """Put a layer into training mode or out of it."""
    layer.train() if is_training else layer.eval()
    return layer


@training
@pytest.mark.parametrize("queries", [None, 3])
@pytest.mark.parametrize("kind", BLOCKS)
def test_parts_are_dropped_before_their_residuals_and_attention_after_softmax(
    kind: str, queries: int | None, is_training: bool
) -> None:
    paddle.seed(1)
    block = switched(BLOCKS[kind](dropout=0.4, attention_dropout=0.25, std=0.3), is_training)
    watch, states = Watch(parts_of(block)), paddle.randn([6, 8, 16])
    names = {id(x): name for name, x in block.named_sublayers() if isinstance(x, _MultiHead)}
    with checked_attention(names, lambda _: 0.25 if is_training else 0.0) as seen:
        other = [paddle.randn([6, 5, 16])] if isinstance(block, CrossBlock) else []
        block(states, *other, num_queries=queries)
    assert seen == set(names.values())
    assert_residuals(block, watch, 0.4 if is_training else 0.0, kind)


def test_rates_unless_told_otherwise() -> None:
    """A tower drops nothing (ViT, CLIP), METER's co-attention a tenth of everything."""
    found = [(block.dropout, block.attention.dropout) for block in (make() for make in BLOCKS.values())]
    assert found == [(0.0, 0.0), (0.0, 0.0), (0.1, 0.1)]
    assert BLOCKS["co-attention"]().cross_attention.dropout == 0.1


@pytest.mark.parametrize("kind", [SelfAttention, CrossAttention])
def test_fused_kernel_gets_the_rate_in_training_alone(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[tuple[float, bool]] = []

    def kernel(query: Tensor, key: Tensor, value: Tensor, mask: Any, rate: float, training: bool) -> Tensor:
        rates.append((rate, training))
        return query

    monkeypatch.setattr("unimo.nn.attention.use_fused_kernel", lambda: True)
    monkeypatch.setattr(F, "scaled_dot_product_attention", kernel)
    layer, states = kind(8, 2, 0.3), [paddle.ones([1, 4, 8])] * (1 if kind is SelfAttention else 2)
    for is_training in (True, False):
        switched(layer, is_training)(*states)
    assert rates == [(0.3, True), (0.0, False)]


@training
def test_texts_and_regions_are_dropped_after_their_norm(is_training: bool) -> None:
    text = switched(TextEmbeddings(TextConfig(**SIZES, vocab_size=30, dropout=0.4), True), is_training)
    region = switched(RegionEmbeddings(12, 16, 0.3, 0.4), is_training)
    norms, rate = Watch({"text": text.norm, "region": region.norm}), 0.4 if is_training else 0.0
    ids, there = paddle.randint(4, 30, [6, 7]), paddle.ones([6, 7])
    assert_dropped(text(ids, there), norms.output("text"), rate, "text")
    boxes = {"features": paddle.randn([6, 7, 12]), "locations": paddle.rand([6, 7, 5]), "mask": there}
    assert_dropped(region(boxes)[0], norms.output("region"), rate, "region")


@training
def test_patches_are_dropped_after_positions(is_training: bool) -> None:
    tower = switched(VitTower(VitConfig(**SIZES, image_size=32, patch_size=8, dropout=0.4)), is_training)
    first, pixels = Watch({"first": tower.layers[0]}), paddle.randn([3, 3, 32, 32])
    tower(pixels)
    whole = VisionTower.embed(tower, pixels)
    assert_dropped(first.given("first"), whole, 0.4 if is_training else 0.0, "patches")


@training
def test_head_of_snli_ve_is_dropped_between_its_products(is_training: bool) -> None:
    head = switched(LinearHead(16, 24, 3, std=0.5, dropout=0.7), is_training)
    watch = Watch({"dense": head.dense, "out": head.out})
    head(paddle.randn([40, 16]))
    assert_dropped(watch.given("out"), watch.output("dense"), 0.7 if is_training else 0.0, "head")
