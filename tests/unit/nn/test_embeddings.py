"""Embeddings of texts and regions, the vocabulary head, and encodings that are picked and joined."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from small_models import set_parameters

from unimo.errors import ConfigError
from unimo.nn.config import TextConfig
from unimo.nn.embeddings import WHOLE, RegionEmbeddings, TextEmbeddings
from unimo.nn.heads import LinearHead, MlmHead, Pooler
from unimo.nn.outputs import Encoded, concat_rows

B, R, FEATURE, WIDTH = 2, 4, 6, 8


def normalised(x: np.ndarray, norm: paddle.nn.LayerNorm, epsilon: float) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return scaled * norm.weight.numpy() + norm.bias.numpy()


def applied(x: np.ndarray, layer: paddle.nn.Linear) -> np.ndarray:
    return x @ layer.weight.numpy() + layer.bias.numpy()


def boxes() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "features": rng.normal(size=(B, R, FEATURE)).astype("float32"),
        "locations": rng.random((B, R, 5)).astype("float32"),
        "mask": np.array([[1, 1, 1, 0], [1, 1, 1, 1]]),
    }


@paddle.no_grad()
@pytest.mark.parametrize("masked", [None, [[0, 1, 0, 0], [1, 1, 1, 1]]])
@pytest.mark.parametrize("moved", [False, True])
def test_regions_and_the_mean_of_those_that_are_shown(masked: list[list[int]] | None, moved: bool) -> None:
    layer = RegionEmbeddings(FEATURE, WIDTH, 0.3, 0.0)
    set_parameters(layer)
    given = boxes()
    shown = given["mask"] * (1 - np.array(masked)) if masked else given["mask"]
    features = given["features"] * shown[..., None] if masked else given["features"]
    whole = [part[keep == 1].sum(0) / max(1, keep.sum()) for part, keep in zip(features, shown, strict=True)]
    features = np.concatenate([np.array(whole)[:, None], features], axis=1)
    if masked:
        given["masked"] = np.array(masked)
    if moved:
        given["delta"] = np.random.default_rng(1).normal(size=(B, 1 + R, FEATURE)).astype("float32")
        features = features + given["delta"]
    locations = np.concatenate([np.tile(WHOLE, (B, 1, 1)), given["locations"]], axis=1)
    expected = normalised(
        applied(features, layer.feature) + applied(locations, layer.location), layer.norm, 1e-5
    )
    states, there = layer({name: paddle.to_tensor(array) for name, array in given.items()})
    np.testing.assert_allclose(states.numpy(), expected, atol=1e-5)
    np.testing.assert_array_equal(there.numpy(), [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])


def test_features_of_another_detector_are_refused() -> None:
    layer = RegionEmbeddings(FEATURE + 1, WIDTH, 0.3, 0.0)
    with pytest.raises(ConfigError, match="have 6 numbers, the model reads 7"):
        layer({name: paddle.to_tensor(array) for name, array in boxes().items()})


@paddle.no_grad()
@pytest.mark.parametrize("token_type", [False, True])
def test_texts_are_words_positions_and_type_before_the_norm(token_type: bool) -> None:
    config = TextConfig(hidden_size=WIDTH, num_heads=2, vocab_size=20, max_position=12, dropout=0.0)
    layer = TextEmbeddings(config, token_type)
    set_parameters(layer)
    ids, mask = np.array([[5, 6, 7, 1], [8, 9, 3, 4]]), np.array([[1, 1, 1, 0], [1, 1, 1, 1]])
    extra = np.random.default_rng(2).normal(size=(2, 4, WIDTH)).astype("float32")
    positions = np.array([[2, 3, 4, 1], [2, 3, 4, 5]])
    total = layer.word.weight.numpy()[ids] + layer.position.weight.numpy()[positions]
    if token_type:
        total = total + layer.token_type.weight.numpy()[0]
    found = layer(paddle.to_tensor(ids), paddle.to_tensor(mask))
    np.testing.assert_allclose(found.numpy(), normalised(total, layer.norm, 1e-5), atol=1e-5)
    found = layer.at(paddle.to_tensor(ids), paddle.to_tensor(positions), paddle.to_tensor(extra))
    np.testing.assert_allclose(found.numpy(), normalised(total + extra, layer.norm, 1e-5), atol=1e-5)


@paddle.no_grad()
def test_heads() -> None:
    states = np.random.default_rng(3).normal(size=(5, WIDTH)).astype("float32")
    head, linear, pooler = MlmHead(WIDTH, 11), LinearHead(WIDTH, 4, 3), Pooler(WIDTH, 0.3, "relu")
    for layer in (head, linear, pooler):
        set_parameters(layer)
        layer.eval()
    inner = F.gelu(paddle.to_tensor(applied(states, head.dense))).numpy()
    expected = applied(normalised(inner, head.norm, 1e-12), head.decoder)
    given = paddle.to_tensor(states)
    np.testing.assert_allclose(head(given).numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(
        linear(given).numpy(), applied(applied(states, linear.dense), linear.out), atol=1e-5
    )
    pooled = pooler(paddle.stack([given, given * 2], axis=1)).numpy()
    np.testing.assert_allclose(pooled, applied(states, pooler.dense).clip(0), atol=1e-5)


def encoded(rows: int, length: int, start: float) -> Encoded:
    """Every kind of field; each number tells its row."""
    number = start + np.arange(rows, dtype="float32")

    def of(*shape: int) -> paddle.Tensor:
        return paddle.to_tensor(
            np.broadcast_to(number.reshape([-1] + [1] * len(shape)), (rows, *shape)).copy()
        )

    return Encoded(
        text=of(length, 2),
        text_mask=of(length),
        pooled=of(3),
        text_layers=(of(length, 2), of(length, 2)),
        attentions={"a": of(1, 2, 2)},
        links={"target": of(length)},
    )


def test_rows_of_all_tensors_are_picked_and_joined() -> None:
    picked = encoded(3, 4, 1.0).select(paddle.to_tensor([2, 0, 0]))
    for tensor in (
        picked.text,
        picked.pooled,
        *picked.text_layers,
        picked.attentions["a"],
        picked.links["target"],
    ):
        assert tensor.reshape([3, -1])[:, 0].tolist() == [3.0, 1.0, 1.0]
    assert picked.image is None
    joined = concat_rows([encoded(2, 4, 1.0), encoded(1, 2, 5.0)])
    assert joined.text_mask.tolist() == [[1.0] * 4, [2.0] * 4, [5.0, 5.0, 0.0, 0.0]]
    assert joined.text.shape == joined.text_layers[1].shape == [3, 4, 2]
    assert joined.text[2, :, 0].tolist() == [5.0, 5.0, 0.0, 0.0]
    assert joined.links["target"].tolist() == joined.text_mask.tolist()
    assert joined.pooled[:, 0].tolist() == [1.0, 2.0, 5.0] and joined.image is None
