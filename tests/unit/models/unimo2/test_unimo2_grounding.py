"""Eqs (1) to (3): choice, loss and gradients against NumPy; masks, stop-gradients, the 1-to-1 map."""

import numpy as np
import paddle
import pytest
from grounding_numpy import frozen_loss, reference
from small_models import inputs
from small_unimo2 import small_unimo2

from unimo.models.unimo2.config import GroundingConfig
from unimo.models.unimo2.grounding import GroundedDictionary

B, S, D, C, K = 3, 7, 6, 12, 4
PADDED = np.ones((B, S), dtype="float32")
PADDED[0, 5:], PADDED[2, 3:] = 0, 0
TEMPERATURE = 1.3


def _features(seed=0):
    return np.random.default_rng(seed).standard_normal((B, S, D)).astype("float32")


def _dictionary(**options):
    config = GroundingConfig(dictionary_size=C, num_tokens=K, **options)
    layer = GroundedDictionary(D, config)
    layer.dictionary.set_value(np.random.default_rng(1).normal(0, 0.7, (C, D)).astype("float32"))
    if layer.temperature is not None:
        layer.temperature.set_value(np.array([TEMPERATURE], "float32"))
    return layer


def _factors(reduction, mask):
    if reduction == "sum":
        return 1.0 / B, 0.25 / B
    return 1.0 / (mask.sum() * D), 0.25 / (B * K * D)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("mask", [None, PADDED], ids=["whole", "padded"])
def test_choice_loss_and_gradients_are_those_of_numpy(mask, reduction):
    layer, values = _dictionary(reduction=reduction), _features()
    features = paddle.to_tensor(values, stop_gradient=False)
    full = np.ones((B, S)) if mask is None else mask
    factors = _factors(reduction, full)
    expected = reference(values, layer.dictionary.numpy(), TEMPERATURE, full, K, *factors)
    grounding = layer(features, None if mask is None else paddle.to_tensor(mask))
    np.testing.assert_allclose(grounding.scores.numpy(), expected.scores, atol=1e-5)
    np.testing.assert_array_equal(grounding.ids.numpy(), expected.ids)
    rows = layer.dictionary.numpy()[expected.ids]
    np.testing.assert_array_equal(grounding.tokens.numpy(), rows)

    loss = layer.loss(grounding)
    total = factors[0] * expected.first + factors[1] * expected.second
    np.testing.assert_allclose(float(loss), total, rtol=1e-5)
    loss.backward()
    scale = 1.0 if reduction == "mean" else 10.0  # gradients of the sum are that much larger
    np.testing.assert_allclose(features.grad.numpy(), expected.features, atol=1e-5 * scale)
    np.testing.assert_allclose(layer.dictionary.grad.numpy(), expected.dictionary, atol=1e-5 * scale)
    np.testing.assert_allclose(layer.temperature.grad.item(), expected.temperature, atol=1e-5 * scale)
    assert float(abs(features.grad).sum()) > 0 and abs(expected.temperature) > 1e-4


@pytest.mark.parametrize("term", [0, 1])
def test_each_term_alone(term):
    """alpha or beta at 0 leaves the other term, in value and gradient."""
    layer, values = _dictionary(**{"alpha": 0.0} if term else {"beta": 0.0}), _features()
    features = paddle.to_tensor(values, stop_gradient=False)
    factors = (0.0, 0.25 / (B * K * D)) if term else (1.0 / (B * S * D), 0.0)
    expected = reference(values, layer.dictionary.numpy(), TEMPERATURE, np.ones((B, S)), K, *factors)
    loss = layer.loss(layer(features))
    loss.backward()
    np.testing.assert_allclose(
        float(loss), factors[0] * expected.first + factors[1] * expected.second, rtol=1e-5
    )
    np.testing.assert_allclose(features.grad.numpy(), expected.features, atol=1e-5)
    np.testing.assert_allclose(layer.dictionary.grad.numpy(), expected.dictionary, atol=1e-5)


def test_the_reference_itself_by_differences():
    """The derived gradients in NumPy are the slopes of the loss whose targets do not move."""
    features, mask = _features().astype("float64"), PADDED
    rows = np.random.default_rng(1).normal(0, 0.7, (C, D))
    factors, step = (0.3, 0.2), 1e-6
    result = reference(features, rows, TEMPERATURE, mask, K, *factors)
    rng, fixed = np.random.default_rng(2), (features.copy(), rows.copy())
    for name, gradient in (
        ("features", result.features),
        ("rows", result.dictionary),
        ("temperature", result.temperature),
    ):
        direction = rng.standard_normal(np.shape(gradient))
        values = []
        for sign in (1, -1):
            moved = {"features": features, "rows": rows, "temperature": TEMPERATURE}
            moved[name] = moved[name] + sign * step * direction
            values.append(
                frozen_loss(
                    moved["features"], moved["rows"], moved["temperature"], mask, result, fixed, factors
                )
            )
        slope = (values[0] - values[1]) / (2 * step)
        np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-8)


def test_padding_takes_no_part():
    layer, values = _dictionary(), _features()
    changed = values.copy()
    changed[PADDED == 0] = 9.0
    mask = paddle.to_tensor(PADDED)
    first = layer(paddle.to_tensor(values), mask)
    second = layer(paddle.to_tensor(changed), mask)
    np.testing.assert_array_equal(first.scores.numpy(), second.scores.numpy())
    assert float(layer.loss(first)) == float(layer.loss(second))
    assert not np.allclose(layer(paddle.to_tensor(changed)).scores.numpy(), first.scores.numpy())


def test_transformer_gradients_reach_the_chosen_rows_alone():
    layer, features = _dictionary(), paddle.to_tensor(_features(), stop_gradient=False)
    grounding = layer(features)
    grounding.tokens.square().sum().backward()
    assert features.grad is None and layer.temperature.grad is None
    touched = np.flatnonzero(np.abs(layer.dictionary.grad.numpy()).sum(1))
    assert set(touched) == set(grounding.ids.numpy().ravel())


@pytest.mark.parametrize(("value", "used"), [(0.2, 1.0), (5.0, 5.0), (2e4, 1e4)])
def test_temperature_is_clipped_where_it_is_used(value, used):
    layer = _dictionary()
    layer.temperature.set_value(np.array([value], "float32"))
    features = _features() * 1e-3
    expected = 1 / (1 + np.exp(-used * features @ layer.dictionary.numpy().T))
    found = layer.similarity(paddle.to_tensor(features)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_fresh_dictionary_and_temperature():
    paddle.seed(0)
    layer = GroundedDictionary(32, GroundingConfig(dictionary_size=50, num_tokens=3))
    values = layer.dictionary.numpy()
    assert layer.temperature.item() == 100.0
    assert np.abs(values).max() <= 1 / 50 and np.abs(values).max() > 0.9 / 50


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("mask", [None, PADDED], ids=["whole", "padded"])
def test_one_to_one_map_in_numpy(mask, reduction):
    layer, values = _dictionary(method="one_to_one", reduction=reduction), _features()
    features = paddle.to_tensor(values, stop_gradient=False)
    grounding = layer(features, None if mask is None else paddle.to_tensor(mask))
    rows, full = layer.dictionary.numpy(), np.ones((B, S)) if mask is None else mask
    distance = ((values[:, :, None] - rows) ** 2).sum(-1)
    nearest = distance.argmin(-1)
    np.testing.assert_array_equal(grounding.ids.numpy(), nearest)
    counts = np.stack([np.bincount(ids[m == 1], minlength=C) for ids, m in zip(nearest, full, strict=True)])
    np.testing.assert_array_equal(grounding.scores.numpy(), counts)
    assert layer.temperature is None

    errors = (distance.min(-1) * full).sum() / (B if reduction == "sum" else full.sum() * D)
    loss = layer.loss(grounding)
    np.testing.assert_allclose(float(loss), 1.25 * errors, rtol=1e-5)
    loss.backward()
    factor = 1 / B if reduction == "sum" else 1 / (full.sum() * D)
    away = (values - rows[nearest]) * full[:, :, None]
    np.testing.assert_allclose(features.grad.numpy(), 0.25 * factor * 2 * away, atol=1e-5)
    to_rows = np.zeros_like(rows)
    np.add.at(to_rows, nearest, -2 * factor * away)
    np.testing.assert_allclose(layer.dictionary.grad.numpy(), to_rows, atol=1e-5)


@pytest.mark.parametrize("kind", ["pair", "image", "text"])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("first", [1, 0], ids=["without class tokens", "with class tokens"])
def test_what_a_model_grounds(kind, masked, first):
    """Patches then tokens; scores, ids and loss are NumPy's; all parts learn."""
    model = small_unimo2(grounding={"mask_padding": masked, "class_tokens": first == 0})
    pixels, ids, mask = inputs()
    image = None if kind == "text" else model.encode_image(pixels)
    text = None if kind == "image" else model.encode_text(ids, mask)
    grounding = model.ground(text, image)
    parts = [] if image is None else [image.image.numpy()[:, first:]]
    parts += [] if text is None else [text.text.numpy()[:, first:]]
    values = np.concatenate(parts, axis=1)
    keep = np.ones(values.shape[:2])
    if text is not None and masked:
        keep[:, first - mask.shape[1] :] = mask.numpy()[:, first:]
    factors = 1.0 / (keep.sum() * 16), 0.25 / (3 * 4 * 16)
    expected = reference(values, model.grounding.dictionary.numpy(), 1.5, keep, 4, *factors)
    np.testing.assert_allclose(grounding.scores.numpy(), expected.scores, rtol=1e-5)
    np.testing.assert_array_equal(grounding.ids.numpy(), expected.ids)
    loss = model.grounding.loss(grounding)
    np.testing.assert_allclose(
        float(loss), factors[0] * expected.first + factors[1] * expected.second, rtol=1e-5
    )
    loss.backward()
    np.testing.assert_allclose(model.grounding.dictionary.grad.numpy(), expected.dictionary, atol=1e-5)
    named = dict(model.named_parameters())
    reached = {name.partition(".")[0] for name, p in named.items() if p.grad is not None}
    encoders = {"pair": {"text", "vision"}, "text": {"text"}, "image": {"vision"}}[kind]
    assert reached == {"grounding"} | encoders
    if image is not None:
        assert float(named["vision.patch_embedding.weight"].grad.abs().sum()) > 0
    if text is not None:
        assert float(named["text.embeddings.word.weight"].grad.abs().sum()) > 0


def test_class_tokens_of_the_one_to_one_map():
    """With them it has as many grounded tokens as appendix A counts, 197 + 512 for the paper's sizes."""
    pixels, ids, mask = inputs()
    for on, count in ((False, 16 + 8), (True, 17 + 9)):
        model = small_unimo2(grounding={"method": "one_to_one", "class_tokens": on})
        assert model(pixels, ids, mask).grounded_ids.shape == [3, count]


def test_projection_makes_unit_vectors():
    model = small_unimo2(grounding={"project": True})
    pixels, ids, mask = inputs()
    features = model.ground(model.encode_text(ids, mask), model.encode_image(pixels)).features.numpy()
    np.testing.assert_allclose((features**2).sum(-1), 1.0, atol=1e-5)
    assert features.min() >= 0
    image = np.maximum(
        model.encode_image(pixels).image.numpy()[:, 1:] @ model.image_projection.weight.numpy()
        + model.image_projection.bias.numpy(),
        0,
    )
    image /= np.linalg.norm(image, axis=-1, keepdims=True)
    np.testing.assert_allclose(features[:, :16], image, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "reduction", "counts"),
    [
        ("topk", "mean", (50, 8)),  # positions of the input; rows of the dictionary, equally many a sample
        ("topk", "sum", (8, 8)),
        ("one_to_one", "mean", (50, 50)),
        ("one_to_one", "sum", (8, 8)),
    ],
)
def test_what_the_terms_are_means_of(method, reduction, counts):
    assert _dictionary(method=method, reduction=reduction).counts(samples=8, positions=50) == counts
