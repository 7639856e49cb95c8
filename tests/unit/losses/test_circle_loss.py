"""Circle loss and its gradient against its formula in NumPy."""

import numpy as np
import paddle
import pytest

from unimo.losses.contrastive import circle_loss


def reference(positives, negatives, margin, scale):
    """Compute loss and gradients in float64, with constant weights."""
    pull, push = np.maximum(0, 1 + margin - positives), np.maximum(0, negatives + margin)
    of_positives = np.exp(-scale * pull * (positives - (1 - margin)))
    of_negatives = np.exp(scale * push * (negatives - margin))
    product = of_positives.sum(1, keepdims=True) * of_negatives.sum(1, keepdims=True)
    share = product / (1 + product) / len(positives)
    to_positives = -share * scale * pull * of_positives / of_positives.sum(1, keepdims=True)
    to_negatives = share * scale * push * of_negatives / of_negatives.sum(1, keepdims=True)
    return np.log(1 + product).mean(), to_positives, to_negatives


@pytest.mark.parametrize(("margin", "scale"), [(0.2, 1.0), (0.1, 5.0), (0.4, 0.5)])
def test_loss_and_gradient(margin, scale):
    rng = np.random.default_rng(0)
    scores = [rng.normal(0.5, 1.0, (4, 2)), rng.normal(0.0, 1.0, (4, 10))]
    tensors = [paddle.to_tensor(part.astype("float32"), stop_gradient=False) for part in scores]
    loss = circle_loss(*tensors, margin, scale)
    loss.backward()
    rounded = [part.astype("float32").astype("float64") for part in scores]
    expected, *gradients = reference(*rounded, margin, scale)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    for tensor, gradient in zip(tensors, gradients, strict=True):
        np.testing.assert_allclose(tensor.grad.numpy(), gradient, rtol=1e-5, atol=1e-8)


def test_ranked_pairs_cost_little_and_others_much():
    right, wrong = (paddle.to_tensor([[value]]) for value in (2.0, -2.0))
    assert circle_loss(right, wrong).item() == pytest.approx(np.log(2), rel=1e-6)  # both weights are 0
    assert circle_loss(wrong, right).item() > 10


def test_scores_that_single_floats_cannot_exponentiate():
    right = paddle.to_tensor([[-30.0]], stop_gradient=False)
    wrong = paddle.to_tensor([[40.0]], stop_gradient=False)
    loss = circle_loss(right, wrong)  # exponents of 31.2 * 30.8 and 40.2 * 39.8
    assert loss.item() == pytest.approx(31.2 * 30.8 + 40.2 * 39.8, rel=1e-6)
    loss.backward()
    assert right.grad.item() == pytest.approx(-31.2, rel=1e-5)
    assert wrong.grad.item() == pytest.approx(40.2, rel=1e-5)
