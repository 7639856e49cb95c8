"""NT-Xent against NumPy, and its gradient against finite differences."""

import numpy as np
import paddle
import pytest

from unimo.losses.contrastive import nt_xent_loss


def unit(rows, width, seed):
    vectors = np.random.default_rng(seed).standard_normal((rows, width))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def reference(first, second, temperature):
    """Compute Eq. (1) of SimCLR view by view."""
    views, size = np.concatenate([first, second]), len(first)
    losses, hits = [], []
    for i in range(2 * size):
        partner = (i + size) % (2 * size)
        scores = {k: views[i] @ views[k] / temperature for k in range(2 * size) if k != i}
        losses.append(-scores[partner] + np.log(sum(np.exp(score) for score in scores.values())))
        hits.append(max(scores, key=scores.get) == partner)
    return np.mean(losses), np.mean(hits)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_loss_and_accuracy(temperature):
    first, second = unit(5, 4, 0), unit(5, 4, 1)
    second[:2] = first[:2]
    loss, accuracy = nt_xent_loss(
        *(paddle.to_tensor(x.astype("float32")) for x in (first, second)), temperature
    )
    expected, hits = reference(first, second, temperature)
    assert float(loss) == pytest.approx(expected, abs=1e-5)
    assert float(accuracy) == pytest.approx(hits) and hits >= 0.4


def test_gradient():
    first, second = unit(3, 4, 2), unit(3, 4, 3)
    tensors = [paddle.to_tensor(x.astype("float32"), stop_gradient=False) for x in (first, second)]
    nt_xent_loss(*tensors, 0.3)[0].backward()
    for number, array in enumerate((first, second)):
        expected = np.zeros_like(array)
        for place in np.ndindex(*array.shape):
            sides = []
            for step in (1e-5, -1e-5):
                moved = [first.copy(), second.copy()]
                moved[number][place] += step
                sides.append(reference(*moved, 0.3)[0])
            expected[place] = (sides[0] - sides[1]) / 2e-5
        np.testing.assert_allclose(tensors[number].grad.numpy(), expected, atol=1e-5)


def test_a_single_image_has_nothing_to_be_told_from():
    loss, accuracy = nt_xent_loss(paddle.ones([1, 2]), paddle.ones([1, 2]), 0.1)
    assert float(loss) == pytest.approx(0.0, abs=1e-6) and float(accuracy) == 1.0
