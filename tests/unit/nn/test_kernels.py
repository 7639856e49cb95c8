"""Our Linear and LayerNorm against Paddle's own: values and all gradients."""

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.nn import functional as F

from unimo.nn.kernels import LayerNorm, Linear, add_bias, add_mask, dropout, log_softmax, scale_columns


def _values_and_gradients(layer: nn.Layer, x: np.ndarray, grad: np.ndarray) -> list[np.ndarray]:
    given = paddle.to_tensor(x, stop_gradient=False)
    out = layer(given)
    out.backward(paddle.to_tensor(grad))
    return [t.numpy() for t in (out, given.grad, *(p.grad for p in layer.parameters()))]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: Linear(24, 24), lambda: nn.Linear(24, 24)),
        (lambda: LayerNorm(24, epsilon=1e-12), lambda: nn.LayerNorm(24, epsilon=1e-12)),
        (lambda: LayerNorm(24, epsilon=1e-3), lambda: nn.LayerNorm(24, epsilon=1e-3)),
    ],
)
@pytest.mark.parametrize("shape", [(5, 24), (2, 7, 24)])
def test_equal_to_paddle(ours, theirs, shape):
    rng = np.random.default_rng(0)
    x, grad = (rng.normal(size=shape).astype("float32") * 3 + 1 for _ in range(2))
    first, second = ours(), theirs()
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        value = paddle.to_tensor(rng.normal(size=a.shape).astype("float32"))
        a.set_value(value)
        b.set_value(value)
    for mine, other in zip(
        _values_and_gradients(first, x, grad), _values_and_gradients(second, x, grad), strict=True
    ):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=2e-5)


def test_frozen_parameters_and_no_grad():
    layer, norm = Linear(4, 3), LayerNorm(3)
    for parameter in [*layer.parameters(), *norm.parameters()]:
        parameter.stop_gradient = True
    x = paddle.ones([2, 4])
    x.stop_gradient = False
    norm(layer(x)).sum().backward()
    assert x.grad.shape == [2, 4]
    assert layer.weight.grad is None
    with paddle.no_grad():
        assert norm(layer(x)).stop_gradient


def test_only_the_bias_frozen():
    norm = LayerNorm(3)
    norm.weight.stop_gradient = norm.bias.stop_gradient = True
    x = paddle.to_tensor([[1.0, 2.0, 4.0]], stop_gradient=False)
    norm(x).backward(paddle.to_tensor([[1.0, 0.0, 0.0]]))
    assert abs(float(x.grad.sum())) < 1e-5


def _log_softmax(function, x: np.ndarray, grad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    given = paddle.to_tensor(x, stop_gradient=False)
    out = function(given)
    out.backward(paddle.to_tensor(grad))
    return out.numpy(), given.grad.numpy()


@pytest.mark.parametrize(("shape", "scale"), [((5, 24), 3), ((2, 3, 1600), 1)])
def test_log_softmax_equals_paddle(shape, scale):
    rng = np.random.default_rng(0)
    x, grad = (rng.normal(size=shape).astype("float32") * scale for _ in range(2))
    results = [_log_softmax(function, x, grad) for function in (log_softmax, F.log_softmax)]
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize(("shape", "scale"), [((5, 24), 3), ((2, 3, 1600), 1), ((2, 24), 1e4)])
def test_log_softmax_equals_float64(shape, scale):
    """Also far below -64, where Paddle's own ends."""
    rng = np.random.default_rng(0)
    x, grad = (rng.normal(size=shape).astype("float32") * scale for _ in range(2))
    found, gradient = _log_softmax(log_softmax, x, grad)
    wide = x.astype("float64") - x.max(-1, keepdims=True)
    expected = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    expected = grad - np.exp(expected) * grad.sum(-1, keepdims=True, dtype="float64")
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5 * scale)


def test_log_softmax_of_logits_of_2000_is_finite():
    """Cosines at the smallest temperature, 0.001, and further: the softmax of all but one underflows."""
    x = np.array([[2000.0, -2000.0, 0.0, 1999.0], [-2000.0, 2000.0, 2000.0, -1.0]], "float32")
    target = np.array([[0.0, 1.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0]], "float32")
    given = paddle.to_tensor(x, stop_gradient=False)
    loss = -(log_softmax(given) * paddle.to_tensor(target)).sum()
    loss.backward()
    probability = np.exp([[0.0, -np.inf, -np.inf, -1.0], [-np.inf, 0.0, 0.0, -np.inf]])
    probability /= probability.sum(1, keepdims=True)
    assert float(loss) == pytest.approx(4000 + np.log1p(np.exp(-1)) + np.log(2), rel=1e-7)
    np.testing.assert_allclose(given.grad.numpy(), probability - target, atol=1e-6)


def test_no_rows():
    assert LayerNorm(3)(paddle.zeros([0, 3])).shape == [0, 3]
    assert Linear(3, 2)(paddle.zeros([0, 3])).shape == [0, 2]


def test_frozen_input_still_trains_the_layer():
    """States of a frozen tower: only the parameters need a gradient."""
    linear, norm = Linear(3, 3), LayerNorm(3)
    (norm(linear(paddle.ones([2, 3]))).sum() + norm(paddle.ones([2, 3])).sum()).backward()
    assert all(p.grad is not None for p in [*linear.parameters(), *norm.parameters()])
    total = add_bias(paddle.ones([2, 3]), linear.bias).sum()
    linear.clear_gradients()
    total.backward()
    assert linear.bias.grad.tolist() == [2.0, 2.0, 2.0]


def test_dropout_keeps_the_mean_and_the_share_and_follows_the_seed():
    x = paddle.ones([400, 500])
    x.stop_gradient = False
    paddle.seed(3)
    first = dropout(x, 0.1, training=True)
    values = set(np.unique(first.numpy()).tolist())
    assert len(values) == 2 and min(values) == 0.0
    assert abs(max(values) - 1 / 0.9) < 1e-4
    assert abs(float((first == 0).astype("float32").mean()) - 0.1) < 0.003
    first.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), first.numpy())
    assert not paddle.equal_all(first, dropout(x, 0.1, training=True))
    paddle.seed(3)
    assert paddle.equal_all(first, dropout(x, 0.1, training=True))
    assert dropout(x, 0.1, training=False) is x


@pytest.mark.parametrize("shape", [(3, 1, 1, 5), (1, 2, 4, 5), (3, 2, 4, 5), (1, 1, 4, 5), (3, 1, 4, 5)])
@pytest.mark.parametrize("is_learned", [True, False])
def test_masks_and_biases_of_logits(shape, is_learned):
    rng = np.random.default_rng(0)
    given, added, grad = (
        rng.normal(size=size).astype("float32") for size in ((3, 2, 4, 5), shape, (3, 2, 4, 5))
    )
    logits, mask = (
        paddle.to_tensor(given, stop_gradient=False),
        paddle.to_tensor(added, stop_gradient=not is_learned),
    )
    total = add_mask(logits, mask)
    total.backward(paddle.to_tensor(grad))
    np.testing.assert_array_equal(total.numpy(), given + added)
    np.testing.assert_array_equal(logits.grad.numpy(), grad)
    if is_learned:
        axes = tuple(axis for axis in range(4) if shape[axis] == 1)
        np.testing.assert_allclose(
            mask.grad.numpy(), grad.sum(axis=axes, keepdims=True), rtol=1e-5, atol=1e-6
        )


def test_scaled_columns():
    rng = np.random.default_rng(0)
    given, factors, grad = (rng.normal(size=size).astype("float32") for size in ((2, 3, 4), 4, (2, 3, 4)))
    x, weight = (paddle.to_tensor(each, stop_gradient=False) for each in (given, factors))
    scaled = scale_columns(x, weight)
    scaled.backward(paddle.to_tensor(grad))
    np.testing.assert_array_equal(scaled.numpy(), given * factors)
    np.testing.assert_allclose(x.grad.numpy(), grad * factors, rtol=1e-6)
    np.testing.assert_allclose(weight.grad.numpy(), (grad * given).sum((0, 1)), rtol=1e-5)
