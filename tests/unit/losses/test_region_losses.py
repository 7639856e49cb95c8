"""Region losses against NumPy, with analytic gradients."""

import numpy as np
import paddle
import pytest

from unimo.losses.region import region_classification_loss, region_regression_loss

POSITIONS = np.array([4, 1, 5])


def numbers(width, seed=0):
    """Make states [2, 3, 4], a head [4, width] and three targets [3, width], not negative."""
    rng = np.random.default_rng(seed)
    shapes = (2, 3, 4), (4, width), (3, width)
    states, weight, targets = (rng.standard_normal(shape).astype("float32") for shape in shapes)
    return states, weight, np.abs(targets)


def run(loss, states, weight, targets, positions=POSITIONS, **options):
    """Return the result of the loss and the gradients of states and head."""
    tensors = [paddle.to_tensor(x, stop_gradient=False) for x in (states, weight)]
    result = loss(
        tensors[0],
        paddle.to_tensor(positions),
        paddle.to_tensor(targets),
        lambda rows: paddle.matmul(rows, tensors[1]),
        **options,
    )
    (result[0] if isinstance(result, tuple) else result).backward()
    return result, *(tensor.grad.numpy() for tensor in tensors)


@pytest.mark.parametrize(("options", "scale"), [({}, 1 / 6), ({"reduction": "sum"}, 1.0)])
def test_regression(options, scale):
    states, weight, targets = numbers(6)
    loss, of_states, of_weight = run(region_regression_loss, states, weight, targets, **options)
    rows = states.reshape(6, 4).astype(np.float64)[POSITIONS]
    errors = rows @ weight - targets
    assert float(loss) == pytest.approx((errors**2).sum(1).mean() * scale, rel=1e-6)
    np.testing.assert_allclose(of_weight, rows.T @ (2 * errors) * scale / 3, atol=1e-5)
    expected = np.zeros((6, 4))
    expected[POSITIONS] = 2 * errors @ weight.T * scale / 3
    np.testing.assert_allclose(of_states.reshape(6, 4), expected, atol=1e-5)


def test_classification_normalises_what_the_detector_said():
    states, weight, targets = numbers(5, seed=1)
    targets[2] = 0  # without a detected class
    (loss, accuracy), of_states, of_weight = run(region_classification_loss, states, weight, targets)
    rows = states.reshape(6, 4).astype(np.float64)[POSITIONS]
    logits = rows @ weight
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wanted = targets / np.maximum(targets.sum(1, keepdims=True), 1e-12)
    assert float(loss) == pytest.approx(-(wanted * np.log(probabilities)).sum() / 3, rel=1e-6)
    assert float(accuracy) == pytest.approx((logits.argmax(1) == targets.argmax(1)).mean())
    of_logits = (probabilities * wanted.sum(1, keepdims=True) - wanted) / 3
    np.testing.assert_allclose(of_weight, rows.T @ of_logits, atol=1e-6)
    expected = np.zeros((6, 4))
    expected[POSITIONS] = of_logits @ weight.T
    np.testing.assert_allclose(of_states.reshape(6, 4), expected, atol=1e-6)


def test_a_certain_class_is_ordinary_cross_entropy_and_scale_does_not_matter():
    states, weight, _ = numbers(5, seed=2)
    certain = np.eye(5, dtype="float32")[[3, 0, 1]]
    (loss, _), *_ = run(region_classification_loss, states, weight, certain)
    (scaled, _), *_ = run(region_classification_loss, states, weight, certain * 0.2)
    logits = states.reshape(6, 4)[POSITIONS] @ weight
    expected = paddle.nn.functional.cross_entropy(paddle.to_tensor(logits), paddle.to_tensor([3, 0, 1]))
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert float(scaled) == pytest.approx(float(loss), rel=1e-6)


@pytest.mark.parametrize("loss", [region_regression_loss, region_classification_loss])
def test_nothing_masked_gives_zero_and_zero_gradients(loss):
    states, weight, targets = numbers(5)
    result, *gradients = run(loss, states, weight, targets[:0], np.zeros(0, np.int64))
    assert float(result[0] if isinstance(result, tuple) else result) == 0
    assert all((gradient == 0).all() for gradient in gradients)
