"""Parameter counts of UNIMO-2 against those of the released code (591 tensors, 296.5 M in the core)."""

import numpy as np
import paddle
import pytest

import unimo
from unimo.registry import list_models, models_with

H, C = 768, 2048


def _layer(h: int) -> int:
    """Attention, feed-forward part of four times the width, two norms."""
    return 4 * (h * h + h) + 8 * h * h + 5 * h + 4 * h


def _expected(h, layers, grid, vocabulary, positions, rows) -> int:
    """By hand, without poolers; `layers` of text, vision and fusion."""
    text = (vocabulary + positions) * h + 2 * h + layers[0] * _layer(h)
    vision = (3 * 16 * 16 * h + h) + h + (1 + grid**2) * h + layers[1] * _layer(h) + 2 * h
    fusion = 2 * h + layers[2] * _layer(h)
    return text + vision + fusion + rows * h + 1


POOLERS = 2 * (H * H + H)
CORE = 296_481_793


def _named(name: str, **overrides):
    with paddle.LazyGuard():  # shapes without memory
        return {name: list(p.shape) for name, p in unimo.create_model(name, **overrides).named_parameters()}


def _count(named) -> int:
    return sum(int(np.prod(shape)) for shape in named.values())


def test_base_core_is_that_of_the_release():
    """Our queries, keys and values are one tensor of three; the release's `cmcl_temperature` belongs to
    the objective here."""
    named = _named("unimo2_base")
    core = {name: shape for name, shape in named.items() if "pooler" not in name}
    tensors = sum(3 if ".qkv." in name else 1 for name in core)
    assert tensors + 1 == 591
    assert _count(core) == _expected(H, (12, 12, 12), 14, 50265, 514, C) == CORE
    assert _count(named) == CORE + POOLERS
    assert named["grounding.dictionary"] == [C, H] and named["grounding.temperature"] == [1]


@pytest.mark.parametrize(
    ("overrides", "difference"),
    [
        ({"grounding": {"dictionary_size": 8192}}, (8192 - C) * H),
        ({"grounding": {"num_tokens": 10}}, 0),
        ({"grounding": {"enabled": False}}, -C * H - 1 - 2 * H),
        ({"grounding": {"enabled_at_inference": False}}, 0),
        ({"grounding": {"method": "one_to_one"}}, -1),
        ({"grounding": {"project": True}}, 2 * (H * H + H)),
        ({"fusion": {"visibility": "full"}}, 0),
        ({"fusion": {"pooler": "none"}}, -POOLERS),
        ({"vision": {"image_size": 384}}, (24 * 24 - 14 * 14) * H),
    ],
    ids=str,
)
def test_options_of_the_ablations(overrides, difference):
    assert _count(_named("unimo2_base", **overrides)) == CORE + POOLERS + difference


@pytest.mark.parametrize(
    ("name", "overrides", "h", "sizes", "expected"),
    [
        ("unimo2_large", {}, 1024, ((24, 24, 24), 14, 50265, 514, C), 964_118_529),
        ("unimo2_tiny", {}, 64, ((2, 3, 2), 4, 50265, 66, 128), 3_638_337),
        ("unimo2_tiny", {"text": {"vocab_size": 300}}, 64, ((2, 3, 2), 4, 300, 66, 128), 440_577),
    ],
)
def test_other_sizes(name, overrides, h, sizes, expected):
    assert _count(_named(name, **overrides)) == _expected(h, *sizes) + 2 * (h * h + h) == expected


def test_registered_sizes_and_capabilities():
    sizes = {"unimo2_base", "unimo2_large", "unimo2_tiny"}
    assert sizes <= set(list_models())
    assert models_with({"pixels", "generation", "text_only", "image_only"}) == sorted(sizes)
    assert sizes <= set(models_with({"pixels", "dual_encoder", "fusion"}))
