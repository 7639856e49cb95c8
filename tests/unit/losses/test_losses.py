"""Losses against NumPy, on one rank."""

import numpy as np
import paddle
import pytest

from unimo.losses.contrastive import (
    contrastive_loss,
    draw_hard_images,
    gather_rows,
    hard_negatives,
    matching_loss,
    two_classes,
)
from unimo.losses.mlm import masked_lm_loss
from unimo.losses.reduce import global_mean


def _log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_global_mean():
    assert float(global_mean(paddle.to_tensor(6.0), 4)) == 1.5
    assert float(global_mean(paddle.to_tensor(6.0), paddle.to_tensor(3.0))) == 2.0
    assert float(global_mean(paddle.to_tensor(0.0), 0)) == 0.0


def test_global_mean_does_not_change_the_count():
    count = paddle.to_tensor(5.0)
    global_mean(paddle.to_tensor(1.0), count)
    assert float(count) == 5.0


def test_masked_lm_in_numpy():
    rng = np.random.default_rng(0)
    states, table = (
        rng.standard_normal((2, 3, 4)).astype("float32"),
        rng.standard_normal((4, 7)).astype("float32"),
    )
    positions, labels = np.array([4, 1, 5]), np.array([6, 0, 3])
    calls = []

    def head(rows):
        calls.append(rows.shape[0])
        return paddle.matmul(rows, paddle.to_tensor(table))

    loss, accuracy = masked_lm_loss(*map(paddle.to_tensor, (states, positions, labels)), head)
    logits = states.reshape(-1, 4)[positions] @ table
    expected = -_log_softmax(logits)[np.arange(3), labels].mean()
    assert float(loss) == pytest.approx(expected, abs=1e-5)
    assert float(accuracy) == pytest.approx((logits.argmax(-1) == labels).mean())
    assert calls == [3]


def test_without_masked_tokens_the_loss_is_zero_and_gives_zero_gradients():
    states = paddle.to_tensor(np.ones((2, 3, 4), "float32"), stop_gradient=False)
    weight = paddle.to_tensor(np.ones((4, 7), "float32"), stop_gradient=False)
    none = paddle.zeros([0], "int64")
    loss, found = masked_lm_loss(states, none, none, lambda rows: paddle.matmul(rows, weight))
    loss.backward()
    assert float(loss) == float(found) == 0 and not weight.grad.numpy().any()


def test_scores_become_logits_of_which_the_second_is_a_match():
    scores = paddle.to_tensor([-2.0, 0.0, 3.0])
    logits = two_classes(scores)
    assert logits.tolist() == [[0, -2], [0, 0], [0, 3]]
    match = paddle.nn.functional.softmax(logits, axis=1)[:, 1]
    np.testing.assert_allclose(match.numpy(), 1 / (1 + np.exp(-scores.numpy())), rtol=1e-6)


def test_matching_in_numpy():
    logits = np.array([[2.0, 0.5], [0.1, 0.3], [1.0, -1.0]], dtype="float32")
    labels = np.array([0, 1, 1])
    loss, accuracy = matching_loss(paddle.to_tensor(logits), paddle.to_tensor(labels))
    assert float(loss) == pytest.approx(-_log_softmax(logits)[np.arange(3), labels].mean(), abs=1e-6)
    assert float(accuracy) == pytest.approx(2 / 3)


def _unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = rng.standard_normal(shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype("float32")


def test_contrastive_with_soft_targets_in_numpy():
    rng = np.random.default_rng(1)
    text, image, group = _unit(rng, 4, 6), _unit(rng, 4, 6), np.array([5, 2, 5, 9])
    tensors = [paddle.to_tensor(x) for x in (text, image)]
    contrast = contrastive_loss(*tensors, paddle.to_tensor(0.1), paddle.to_tensor(group))
    targets = (group[:, None] == group).astype("float64")
    targets /= targets.sum(1, keepdims=True)
    expected = text @ image.T / 0.1
    both = [-(_log_softmax(x) * targets).sum(1).mean() for x in (expected, expected.T)]
    assert float(contrast.loss) == pytest.approx(np.mean(both), abs=1e-5)
    np.testing.assert_allclose(contrast.scores.numpy(), expected, atol=1e-5)
    np.testing.assert_array_equal(contrast.own_scores.numpy(), contrast.scores.numpy())


def test_contrast_of_wrong_pairs_at_the_smallest_temperature():
    """Each text is most like the image of another: the loss is of the order of 1000, and has a gradient."""
    vectors = np.eye(3, dtype="float32")
    wrong = vectors[[1, 2, 0]]
    text = paddle.to_tensor(wrong, stop_gradient=False)
    contrast = contrastive_loss(
        text, paddle.to_tensor(vectors), paddle.to_tensor(0.001), paddle.to_tensor([4, 5, 6])
    )
    contrast.loss.backward()
    assert float(contrast.loss) == pytest.approx(1000)
    # Towards the own image, away from the one that is taken for it.
    np.testing.assert_allclose(text.grad.numpy(), (wrong - vectors) * 1000 / 3, rtol=1e-5, atol=1e-3)


def test_gather_on_one_rank_is_the_identity():
    x = paddle.ones([2, 3])
    assert gather_rows(x, [2]) is x


def test_hard_negatives_avoid_their_group_and_follow_the_scores():
    paddle.seed(0)
    scores = paddle.to_tensor([[9.0, 5.0, 0.0], [0.0, 9.0, 5.0], [20.0, 0.0, 9.0]])
    group = paddle.to_tensor([1, 2, 1])
    draws = np.stack([hard_negatives(scores, group).numpy() for _ in range(50)])
    assert set(draws[:, 0]) == {1} and set(draws[:, 2]) == {1}
    assert (draws[:, 1] != 1).all()
    assert (draws[:, 1] == 2).mean() > 0.8


def test_hard_images_are_labelled_as_what_they_are():
    """A batch of one picture has no negatives; a label never lies."""
    vectors, matched = paddle.eye(3), paddle.to_tensor([1, 0, 0])
    for group, expected in (([4, 4, 4], [1, 1, 1]), ([4, 7, 7], [1, 0, 0])):
        contrast = contrastive_loss(vectors, vectors, paddle.to_tensor(0.1), paddle.to_tensor(group))
        rows, labels = draw_hard_images(contrast, matched)
        assert labels.tolist() == expected and rows[0] == 0
    assert rows.tolist() == [0, 0, 0]


def test_hard_negatives_without_any_other_group_still_answer():
    rows = hard_negatives(paddle.zeros([2, 2]), paddle.to_tensor([3, 3]))
    assert set(rows.tolist()) <= {0, 1}
