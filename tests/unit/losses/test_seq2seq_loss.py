"""Label-smoothed next-token loss against an explicit soft target."""

import numpy as np
import paddle
import pytest

from unimo.losses.seq2seq import next_token_loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_loss_and_gradient_are_those_of_the_soft_target(smoothing: float):
    rng = np.random.default_rng(0)
    states = rng.normal(size=(2, 4, 6)).astype(np.float32)
    matrix = rng.normal(size=(6, 9)).astype(np.float32)
    positions, labels = np.array([0, 1, 2, 4, 5]), np.array([3, 8, 0, 3, 1])
    logits = (states.reshape(8, 6)[positions] @ matrix).astype(np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    target = np.full((5, 9), smoothing / 9)
    target[np.arange(5), labels] += 1 - smoothing

    tensor = paddle.to_tensor(states, stop_gradient=False)
    rows = []

    def head(chosen: paddle.Tensor) -> paddle.Tensor:
        rows.append(chosen.shape[0])
        return paddle.matmul(chosen, paddle.to_tensor(matrix))

    loss, accuracy = next_token_loss(
        tensor, paddle.to_tensor(positions), paddle.to_tensor(labels), head, smoothing
    )
    loss.backward()
    assert rows == [5]
    assert loss.item() == pytest.approx(-(target * log_probabilities).sum(axis=1).mean(), rel=1e-5)
    assert accuracy.item() == pytest.approx((logits.argmax(axis=1) == labels).mean())
    expected = np.zeros((8, 6))
    expected[positions] = (np.exp(log_probabilities) - target) @ matrix.T / 5
    np.testing.assert_allclose(tensor.grad.numpy().reshape(8, 6), expected, atol=1e-6)
