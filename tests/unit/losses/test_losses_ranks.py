"""Losses and gradients averaged over two ranks with a part of the batch each equal those of the whole."""

import json
from types import SimpleNamespace

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle_launch import run_ranks
from ranks_data import GROUPS, MASKED, SHARES, TEMPERATURE, data, maps, pixels, table

from unimo.losses.contrastive import contrastive_loss, nt_xent_loss
from unimo.losses.mlm import masked_lm_loss
from unimo.tasks.segmentation.head import BatchNorm
from unimo.tasks.segmentation.task import PixelScores


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    output = tmp_path_factory.mktemp("ranks")
    run_ranks(2, output, [], script="two_ranks.py")
    return [json.loads((output / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", ["itc", "views"])
@pytest.mark.parametrize("share", SHARES)
def test_contrast_over_both_ranks(ranks, share, name):
    leaves = [paddle.to_tensor(x, stop_gradient=False) for x in data()]
    first, second = map(F.normalize, leaves)
    if name == "itc":
        loss = contrastive_loss(first, second, paddle.to_tensor(TEMPERATURE), paddle.to_tensor(GROUPS)).loss
    else:
        loss, _ = nt_xent_loss(first, second, TEMPERATURE)
    loss.backward()
    found = [rank[share][name] for rank in ranks]
    assert np.mean([rank["loss"] for rank in found]) == pytest.approx(float(loss), abs=1e-5)
    for number, tensor in enumerate(leaves):
        # A gradient that only one rank has is halved by the average over ranks.
        joined = np.concatenate([rank["gradients"][number] for rank in found]) / 2
        np.testing.assert_allclose(joined, tensor.grad.numpy(), atol=1e-5)


def test_masked_tokens_count_alike_on_both_ranks(ranks):
    states = paddle.to_tensor(data()[0].reshape(4, 2, 3), stop_gradient=False)
    positions = np.concatenate([MASKED[0][0], MASKED[1][0] + 4])
    labels, weight = np.concatenate([labels for _, labels in MASKED]), paddle.to_tensor(table())
    loss, _ = masked_lm_loss(
        states, paddle.to_tensor(positions), paddle.to_tensor(labels), lambda x: paddle.matmul(x, weight)
    )
    loss.backward()
    assert np.mean([rank["mlm"] for rank in ranks]) == pytest.approx(float(loss), abs=1e-5)
    joined = np.concatenate([rank["states"] for rank in ranks]) / 2
    np.testing.assert_allclose(joined, states.grad.numpy(), atol=1e-5)


def test_batch_norm_and_pixel_scores_are_of_both_ranks(ranks):
    norm, whole = BatchNorm(3), paddle.to_tensor(maps(), stop_gradient=False)
    (norm(whole) ** 3).mean().backward()
    found = [rank["segmentation"] for rank in ranks]
    joined = np.concatenate([rank["gradient"] for rank in found]) / 2
    np.testing.assert_allclose(joined, whole.grad.numpy(), atol=1e-5)
    truth, guesses = pixels()
    metric = PixelScores(3)
    metric.update({"class_maps": list(guesses)}, SimpleNamespace(class_maps=list(truth)))
    for rank in found:
        np.testing.assert_allclose(
            rank["statistics"], [norm._mean.numpy(), norm._variance.numpy()], atol=1e-5
        )
        assert rank["scores"] == metric.compute()
