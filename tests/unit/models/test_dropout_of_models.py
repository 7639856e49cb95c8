"""Every dropout of every model acts where its paper says, with the rate of its part, and nowhere else.

BERT (Devlin et al., 2019), whose blocks RoBERTa, METER, BridgeTower and the Grounded Transformer have, drops
attention probabilities, the output of each part of a block before it is added to the residual, and the
embeddings after their norm. ViT (Dosovitskiy et al., 2021) drops outputs before the residuals, and what the
first block reads after the positions. CLIP drops no embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle
import pytest
from dropped import Watch, assert_dropped, assert_residuals, checked_attention, parts_of
from paddle import nn
from small_models import inputs
from small_models import small_model as small_unimo3
from small_unimo import regions, texts
from small_unimo import small_model as small_unimo
from small_unimo2 import small_unimo2

from unimo.nn.attention import _MultiHead
from unimo.nn.block import Block, CrossBlock
from unimo.nn.embeddings import RegionEmbeddings, TextEmbeddings
from unimo.nn.kernels import LayerNorm
from unimo.nn.towers import VisionTower, VitTower

TEXT = {"dropout": 0.2, "attention_dropout": 0.3}
FUSION = {"dropout": 0.4, "attention_dropout": 0.5}
VISION = {"dropout": 0.6}
RATES = {"text": (0.2, 0.3), "vision": (0.6, 0.0), "fusion": (0.4, 0.5)}
"""Dropout of outputs and of attention, by the first name of a parameter."""


def unimo3() -> nn.Layer:
    return small_unimo3(text=TEXT, fusion=FUSION, vision=VISION)


def unimo2() -> nn.Layer:
    return small_unimo2(text=TEXT, fusion=FUSION, vision=VISION, grounding={"norm_tokens": True})


def unimo() -> nn.Layer:
    return small_unimo(text=TEXT)


def read_by(model: nn.Layer) -> tuple[Any, ...]:
    """Images, token ids and mask of three pairs."""
    return (regions(), *texts().values()) if hasattr(model, "regions") else inputs()


MODELS = {"unimo": unimo, "unimo2": unimo2, "unimo3": unimo3}


def rates_of(name: str) -> tuple[float, float]:
    part = name.partition(".")[0]
    return RATES[{"transformer": "text"}.get(part, part)]


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Iterator[nn.Layer]:
    paddle.seed(3)
    with paddle.no_grad():
        yield MODELS[request.param]()


@pytest.mark.parametrize("training", [True, False])
def test_every_part_of_every_block_is_dropped_before_its_residual(model: nn.Layer, training: bool) -> None:
    model.train() if training else model.eval()
    blocks = {name: x for name, x in model.named_sublayers() if isinstance(x, Block | CrossBlock)}
    watches = {name: Watch(parts_of(block)) for name, block in blocks.items()}
    model(*read_by(model))
    assert len(blocks) >= 2 and {name.partition(".")[0] for name in blocks} <= {*RATES, "transformer"}
    for name, block in blocks.items():
        assert_residuals(block, watches[name], rates_of(name)[0] if training else 0.0, name)


@pytest.mark.parametrize("training", [True, False])
def test_every_attention_drops_probabilities(model: nn.Layer, training: bool) -> None:
    model.train() if training else model.eval()
    names = {id(x): name for name, x in model.named_sublayers() if isinstance(x, _MultiHead)}
    with checked_attention(names, lambda name: rates_of(name)[1] if training else 0.0) as seen:
        model(*read_by(model))
    assert seen == set(names.values())


@pytest.mark.parametrize("training", [True, False])
def test_embeddings_of_texts_and_regions_are_dropped_after_their_norm(
    model: nn.Layer, training: bool
) -> None:
    model.train() if training else model.eval()
    kinds = (TextEmbeddings, RegionEmbeddings)
    layers = {name: x for name, x in model.named_sublayers() if isinstance(x, kinds)}
    norms = Watch({name: layer.norm for name, layer in layers.items()})
    images, *words = read_by(model)
    assert layers
    for name, layer in layers.items():
        found = model.encode_text(*words, layers=True).text_layers[0]
        if isinstance(layer, RegionEmbeddings):
            found = model.encode_image(images).image
        assert_dropped(found, norms.output(name), TEXT["dropout"] if training else 0.0, name)


@pytest.mark.parametrize("training", [True, False])
def test_patches_are_dropped_after_positions_by_vit_alone(model: nn.Layer, training: bool) -> None:
    if hasattr(model, "regions"):
        pytest.skip("reads regions")
    model.train() if training else model.eval()
    first = Watch({"first": model.vision.layers[0], **({"pre": model.vision.ln_pre} if clip(model) else {})})
    pixels = inputs()[0]
    model.vision(pixels)
    whole = VisionTower.embed(model.vision, pixels)
    if clip(model):
        np.testing.assert_array_equal(first.given("pre").numpy(), whole.numpy())
        np.testing.assert_array_equal(first.given("first").numpy(), first.output("pre").numpy())
    else:
        rate = VISION["dropout"] if training else 0.0
        assert_dropped(first.given("first"), whole, rate, "vision.embed")


def clip(model: nn.Layer) -> bool:
    """Return whether the vision tower is that of CLIP."""
    return not isinstance(model.vision, VitTower)


@pytest.mark.parametrize("training", [True, False])
def test_grounded_tokens_are_dropped_after_their_norm(training: bool) -> None:
    """The rest of the sequence enters the Grounded Transformer as it is."""
    model = unimo2()
    model.train() if training else model.eval()
    assert isinstance(model.fusion.grounded_norm, LayerNorm)
    image, tokens, text = (paddle.randn([3, rows, 16]) for rows in (5, 40, 7))
    norm = Watch({"norm": model.fusion.grounded_norm})
    states = model.fusion.join(image, tokens, text)
    rate = FUSION["dropout"] if training else 0.0
    assert_dropped(states[:, 5:45], norm.output("norm"), rate, "grounded tokens")
    np.testing.assert_array_equal(states[:, :5].numpy(), image.numpy())
    np.testing.assert_array_equal(states[:, 45:].numpy(), text.numpy())


@pytest.mark.parametrize("training", [True, False])
def test_matching_head_of_the_release_is_dropped_before_its_product(training: bool) -> None:
    """Only for pairs that are encoded together, not for CMCL."""
    model, pooled = unimo(), paddle.randn([40, 16])
    model.train() if training else model.eval()
    watch = Watch({"match": model.match_head})
    model.match(pooled)
    rate = TEXT["attention_dropout"] if training else 0.0
    assert_dropped(watch.given("match"), pooled, rate, "match")
    model.score(pooled)
    np.testing.assert_array_equal(watch.given("match").numpy(), pooled.numpy())
