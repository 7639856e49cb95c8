"""Routing by modality (section 3.2): which expert processes which row, and who learns from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest
from paddle import Tensor
from small_models import inputs
from small_vlmo import small_vlmo

from unimo.models.vlmo.model import Vlmo


def gradients(model: Vlmo) -> dict[str, float]:
    """Largest gradient of each parameter, 0 where there is none."""
    return {
        name: 0.0 if parameter.grad is None else float(parameter.grad.abs().max())
        for name, parameter in model.named_parameters()
    }


def belongs_to(name: str, kind: str) -> bool:
    own = {"text": ("text_embeddings.",), "image": ("patch_embedding.", "class_embedding")}
    return name.startswith(own[kind]) or f".experts.{kind}." in name


@pytest.mark.parametrize("pair_layers", [0, 1])
@pytest.mark.parametrize("positions", ["relative", "absolute"])
@pytest.mark.parametrize("kind", ["text", "image"])
def test_one_modality_alone_teaches_nothing_of_the_other(kind: str, positions: Any, pair_layers: int) -> None:
    model = small_vlmo(transformer={"positions": positions, "pair_layers": pair_layers})
    model.train()
    pixels, ids, mask = inputs()
    text, image = (
        (model.encode_text(ids, mask), None) if kind == "text" else (None, model.encode_image(pixels))
    )
    fused = model.fuse(text, image)
    ((fused.fused_text if kind == "text" else fused.fused_image) ** 2).sum().backward()
    found = gradients(model)
    other = {"text": "image", "image": "text"}[kind]
    for name, size in found.items():
        if belongs_to(name, other) or ".experts.pair." in name:
            assert size == 0, name
        if belongs_to(name, kind) and not (".position." in name and positions == "relative"):
            assert size > 0, name
    types = model.type_embedding.weight.grad.abs().sum(axis=1)
    assert [bool(row) for row in types] == [kind == "text", kind == "image"]
    if positions == "relative":
        rows = np.flatnonzero(model.relative_positions.position_bias.grad.abs().sum(axis=1).numpy())
        text_rows = len(model.relative_positions.position_bias) - 392
        assert (rows.min() >= text_rows) if kind == "text" else (rows.max() < text_rows - 2)


def test_experts_share_attention_and_scales() -> None:
    model = small_vlmo()
    names = [name for name, _ in model.named_parameters() if name.startswith("blocks.0.")]
    shared = {name.split(".")[2] for name in names} - {"experts"}
    assert shared == {"attention", "attention_norm", "attention_scale", "expert_scale"}
    assert {name.split(".")[3] for name in names if ".experts." in name} == {"text", "image"}
    top = {name.split(".")[3] for name, _ in model.named_parameters() if "blocks.3.experts." in name}
    assert top == {"text", "image", "pair"}


def multiway_by_hand(model: Vlmo, states: Tensor, layer: int, experts: list[str]) -> Tensor:
    """One expert for each row."""
    rows = [model.blocks[layer].experts[name](states[:, i : i + 1]) for i, name in enumerate(experts)]
    return paddle.concat(rows, axis=1)


@pytest.mark.parametrize(
    ("layer", "parts", "experts"),
    [
        (0, {"text": 2, "image": 3}, ["text"] * 2 + ["image"] * 3),
        (3, {"text": 2, "image": 3}, ["pair"] * 5),
        (3, {"text": 5}, ["text"] * 5),
        (3, {"image": 5}, ["image"] * 5),
        (3, {"pair": 5}, ["pair"] * 5),
    ],
)
def test_rows_go_through_the_expert_of_their_modality(
    layer: int, parts: dict[str, int], experts: list[str]
) -> None:
    model, states = small_vlmo(), paddle.randn([2, 5, 16])
    block = model.blocks[layer]
    found = block.multiway(states, block.route(parts))
    np.testing.assert_allclose(found, multiway_by_hand(model, states, layer, experts), atol=1e-5)


def test_block_is_equations_1_and_2() -> None:
    model, states = small_vlmo(), paddle.randn([2, 5, 16])
    block, parts = model.blocks[0], {"text": 2, "image": 3}
    mask = paddle.randn([2, 2, 5, 5])
    found, weights = block(states, mask, parts, True)
    read = block.attention_norm(states)
    query, key, value = paddle.chunk(
        paddle.matmul(read, block.attention.qkv.weight)
        + paddle.concat([block.attention.q_bias, paddle.zeros([16]), block.attention.v_bias]),
        3,
        axis=-1,
    )
    heads = [part.reshape([2, 5, 2, 8]).transpose([0, 2, 1, 3]) for part in (query, key, value)]
    attention = paddle.nn.functional.softmax(heads[0] @ heads[1].transpose([0, 1, 3, 2]) / 8**0.5 + mask)
    np.testing.assert_allclose(weights, attention, atol=1e-5)
    mixed = block.attention.out((attention @ heads[2]).transpose([0, 2, 1, 3]).reshape([2, 5, 16]))
    first = states + block.attention_scale * mixed
    second = first + block.expert_scale * multiway_by_hand(model, first, 0, ["text"] * 2 + ["image"] * 3)
    np.testing.assert_allclose(found, second, atol=1e-5)


@pytest.mark.parametrize("pair_layers", [0, 1])
def test_equal_experts_are_a_standard_transformer(pair_layers: int) -> None:
    """Reduction: with one feed-forward network in all places nothing depends on the routing."""
    standard = small_vlmo(transformer={"experts": "shared"})
    multiway = small_vlmo(transformer={"pair_layers": pair_layers})
    tensors = standard.state_dict()
    for name, tensor in multiway.state_dict().items():
        parts = name.split(".")
        if "experts" in parts:
            parts[3] = "shared"
        tensor.set_value(tensors[".".join(parts)])
    pixels, ids, mask = inputs()
    for each in ("text", "image", "pair"):
        results = []
        for model in (standard, multiway):
            text = None if each == "image" else model.encode_text(ids, mask)
            image = None if each == "text" else model.encode_image(pixels)
            fused = model.fuse(text, image)
            results.append([x for x in (fused.pooled, fused.fused_text, fused.fused_image) if x is not None])
        for one, other in zip(*results, strict=True):
            # Products of fewer rows add up in another order; nothing else differs.
            np.testing.assert_allclose(one.numpy(), other.numpy(), atol=2e-6)
