"""Retrieval by the circle loss with a micro UNIMO and UNIMO-2: losses, scores of all pairs, two ranks."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest
from micro import make_run, make_task, saved
from micro_unimo import UNIMO
from micro_unimo2 import MODEL as UNIMO2
from paddle_launch import run_ranks

from unimo.errors import ConfigError
from unimo.inference.evaluation import evaluate
from unimo.inference.loading import load_task
from unimo.losses.contrastive import circle_loss
from unimo.models.base import select_images
from unimo.tasks.base import to_tensors
from unimo.tasks.retrieval.matching import Gallery, score_pairs
from unimo.tasks.retrieval.mismatched import CircleRetrievalTask

TASK = {"loss": "circle", "negatives": 6}


PIXELS = {"model": UNIMO2, "data": {"regions": ""}}
CONTRASTIVE = {**PIXELS, "model": {**UNIMO2, "fusion": {**UNIMO2["fusion"], "contrastive_weight": 0.3}}}


def make(**changes: Any):
    run = make_run("retrieval", **{**UNIMO, "task": TASK, **changes})
    return run, *make_task(run)


def score(task, batch, text, image):
    """Compute the score of one pair by a pass of its own."""
    one = SimpleNamespace(
        input_ids=batch.input_ids[text : text + 1],
        attention_mask=batch.attention_mask[text : text + 1],
        images=select_images(batch.images, paddle.to_tensor([image])),
    )
    words, picture = task.encode(one)
    fusion = getattr(task.model.config, "fusion", None)
    weight = 0.0 if fusion is None else fusion.contrastive_weight
    seen = picture.image[0, 0]
    contrastive = (words.text[0, 0] * seen).sum() / seen.norm()
    return task.match_logits(words, picture)[0, 1] + weight * contrastive


@pytest.mark.parametrize("changes", [{}, PIXELS, CONTRASTIVE], ids=["unimo", "unimo2", "contrastive"])
def test_losses_are_those_of_single_passes(changes):
    run, task, _, data = make(**changes)
    assert type(task) is CircleRetrievalTask
    task.eval()
    batch = to_tensors(next(data.train_loader(run)))
    rows = range(batch.negative_images.shape[0])
    right = paddle.stack([score(task, batch, row, row) for row in rows]).unsqueeze(1)
    images, texts = (
        paddle.stack([paddle.stack([score(task, batch, *pair(row, other)) for other in chosen[row].tolist()])
                      for row in rows])
        for chosen, pair in (
            (batch.negative_images, lambda row, other: (row, other)),
            (batch.negative_texts, lambda row, other: (other, row)),
        )
    )  # fmt: skip
    losses, report = task.losses(batch)
    assert losses["circle_image"].item() == pytest.approx(circle_loss(right, images).item(), rel=1e-5)
    assert losses["circle_text"].item() == pytest.approx(circle_loss(right, texts).item(), rel=1e-5)
    assert task.total(losses).item() == pytest.approx(sum(v.item() for v in losses.values()) / 2, rel=1e-6)
    best = (right > paddle.concat([images, texts], axis=1)).all(axis=1).numpy()
    assert report["accuracy"].item() == pytest.approx(100 * best.mean(), abs=1e-3)


@pytest.mark.parametrize("changes", [{}, PIXELS], ids=["unimo", "unimo2"])
def test_every_parameter_learns(changes):
    run, task, _, data = make(**changes)
    task.train()
    loss, _ = task(to_tensors(next(data.train_loader(run))))
    loss.backward()
    idle = [name for name, p in task.named_parameters() if not p.stop_gradient and p.grad is None]
    assert idle == []
    assert not any(name.startswith("itc_") for name, _ in task.named_parameters())


def counting(function, rows, name, field):
    """Count the rows of the results."""

    def called(*inputs, **options):
        found = function(*inputs, **options)
        rows[name] += getattr(found, field).shape[0]
        return found

    return called


@pytest.mark.parametrize("changes", [{}, PIXELS, CONTRASTIVE], ids=["unimo", "unimo2", "contrastive"])
def test_evaluation_scores_every_pair(changes, monkeypatch):
    """There are 12 captions and 3 images, each of which is encoded once."""
    run, task, _, data = make(**changes)
    task.eval()
    rows = {"encode_image": 0, "encode_text": 0, "fuse": 0}
    with monkeypatch.context() as patched, paddle.no_grad():
        for name, field in {"encode_image": "image", "encode_text": "text", "fuse": "pooled"}.items():
            patched.setattr(task.model, name, counting(getattr(task.model, name), rows, name, field))
        gallery = Gallery.collect(task, data.eval_loader("val", run, batch_size=5))
        scores = score_pairs(task, gallery)
    assert rows == {"encode_image": 3, "encode_text": 12, "fuse": 36}
    with paddle.no_grad():
        assert gallery.cosines is None and scores.shape == (12, 3)
        batch = to_tensors(next(iter(data.eval_loader("val", run, batch_size=12))))
        for text, image in ((0, 0), (7, 2), (11, 1)):
            expected = score(task, batch, text, 4 * image).item()
            assert scores[text, image] == pytest.approx(expected, abs=1e-5)


def test_the_score_is_the_one_logit_that_is_trained():
    """UNIMO-2's head has two outputs, of which the circle loss moves the second one only."""
    run, task, _, data = make(**PIXELS)
    task.eval()
    batch = to_tensors(next(data.train_loader(run)))
    task(batch)[0].backward()
    gradient = task.itm_head.weight.grad.numpy()
    assert np.abs(gradient[:, 0]).max() == 0 < np.abs(gradient[:, 1]).max()
    pairs = to_tensors(next(iter(data.eval_loader("val", run, batch_size=12))))
    with paddle.no_grad():
        gallery = Gallery.collect(task, data.eval_loader("val", run, batch_size=5))
        logits = task.match_logits(*task.encode(pairs)).numpy()
        before = score_pairs(task, gallery)
        weight = task.itm_head.weight.numpy()
        weight[:, 0] = np.random.default_rng(0).normal(0, 9, len(weight))
        task.itm_head.weight.set_value(weight)
        scores, probabilities = score_pairs(task, gallery), task.predict(pairs)["match"].numpy()
    np.testing.assert_array_equal(scores, before)
    own = scores[np.arange(12), gallery.image_of_text]
    np.testing.assert_allclose(own, logits[:, 1], atol=1e-5)
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-own)), atol=1e-5)


def test_a_saved_model_is_evaluated_as_it_was_trained(tmp_path):
    directory = saved("retrieval", tmp_path, **UNIMO, task=TASK)
    task, _ = load_task(directory)
    assert type(task) is CircleRetrievalTask and task.config.negatives == 6
    result = evaluate(directory, "val", "retrieval")
    assert result.samples == 12 and result.metrics["ir_r5"] == 100  # of three images
    assert len(result.records) == 12 and len(result.records[0]["image_ids"]) == 3


def test_odd_numbers_of_negatives():
    with pytest.raises(ConfigError, match="task.negatives 5: expected an even number of at least 2"):
        make(task={"loss": "circle", "negatives": 5})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["circle", "adversarial"])
def test_two_ranks_equal_one(kind, tmp_path):
    found = []
    for ranks in (1, 2):
        output = tmp_path / str(ranks)
        assert run_ranks(ranks, output, [kind], script="joined_released.py") == 0
        files = sorted(output.glob("gradients-*.safetensors"))
        assert len(files) == ranks
        from unimo.weights.files import read_safetensors

        found.append((json.loads((output / "loss.json").read_text()), read_safetensors(files[0])))
    (loss, gradients), (joined_loss, joined) = found
    assert joined_loss == pytest.approx(loss, rel=1e-5, abs=1e-6)
    assert gradients.keys() == joined.keys() and len(gradients) > 30
    for name, value in gradients.items():
        np.testing.assert_allclose(joined[name], value, atol=2e-6, err_msg=name)
