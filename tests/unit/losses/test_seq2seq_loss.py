"""Label-smoothed next-token loss against an explicit soft target."""

import numpy as np
import paddle
import pytest

from unimo.losses.mlm import next_token_loss
from unimo.losses.reduce import accuracy


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_loss_and_gradient_are_those_of_the_soft_target(smoothing: float):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(5, 9)).astype(np.float32), np.array([3, 8, 0, 3, 1])
    exact = logits.astype(np.float64)
    log_probabilities = exact - np.log(np.exp(exact).sum(axis=1, keepdims=True))
    target = np.full((5, 9), smoothing / 9)
    target[np.arange(5), labels] += 1 - smoothing

    tensor = paddle.to_tensor(logits, stop_gradient=False)
    loss = next_token_loss(tensor, paddle.to_tensor(labels), smoothing)
    loss.backward()
    assert loss.item() == pytest.approx(-(target * log_probabilities).sum(axis=1).mean(), rel=1e-5)
    np.testing.assert_allclose(tensor.grad.numpy(), (np.exp(log_probabilities) - target) / 5, atol=1e-6)
    assert accuracy(tensor, paddle.to_tensor(labels)).item() == pytest.approx(
        (logits.argmax(axis=1) == labels).mean()
    )
