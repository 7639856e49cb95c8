"""Captioning with a micro UNIMO-2: loss, gradients, search, scores, and the start from pre-training."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest
from micro import make_run, make_task, saved
from micro_unimo2 import MODEL

from unimo.errors import CapabilityError, CheckpointError, ConfigError, DataError
from unimo.inference.evaluation import evaluate, write_predictions
from unimo.inference.loading import start_from
from unimo.metrics.caption import caption_scores, tokenize
from unimo.nn.beam_search import BeamConfig
from unimo.tasks.base import to_tensors
from unimo.tasks.caption import task as caption

TASK = {"java": False, "beam": {"size": 2, "min_length": 2, "max_length": 12}}


def make(**changes: Any):
    run = make_run("caption", **{"model": MODEL, "task": TASK, **changes})
    return run, *make_task(run)


def test_loss_is_smoothed_cross_entropy_of_the_next_token():
    run, task, _, data = make()
    task.eval()
    batch = to_tensors(next(data.train_loader(run)))
    image = task.model.encode_image(batch.images)
    states = task.model.decode(image, batch.input_ids, batch.attention_mask)
    logits = task.lm_head(states.flatten(0, 1)).numpy().astype(np.float64)[batch.target_positions.numpy()]
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    labels = batch.target_labels.numpy()
    right = log_probabilities[np.arange(len(labels)), labels]
    losses, report = task.losses(batch)
    expected = -(0.9 * right + 0.1 * log_probabilities.mean(axis=1)).mean()
    assert losses["caption"].item() == pytest.approx(expected, rel=1e-5)
    assert report["accuracy"].item() == pytest.approx(
        100 * (logits.argmax(axis=1) == labels).mean(), abs=1e-3
    )


def test_every_parameter_that_is_not_frozen_learns():
    run, task, _, data = make()
    loss, _ = task(to_tensors(next(data.train_loader(run))))
    loss.backward()
    idle = [n for n, p in task.named_parameters() if not p.stop_gradient and p.grad is None]
    assert idle == []
    frozen = [name for name, parameter in task.named_parameters() if parameter.stop_gradient]
    assert all("pooler" in name for name in frozen)
    assert np.abs(task.model.grounding.dictionary.grad.numpy()).sum() > 0


def test_what_is_learned_by_heart_is_said_again():
    _, task, processor, data = make()
    dataset, collator, rng = data.train_datasets()["scenes"], data.collator(True), np.random.default_rng(0)
    # The first caption of each of three pictures.
    batch = to_tensors(collator.collate([collator.prepare(dataset[index], rng) for index in (0, 4, 8)], rng))
    adam = paddle.optimizer.Adam(1e-2, parameters=task.parameters())
    first = None
    for _ in range(150):
        loss, _ = task(batch)
        first = first or loss.item()
        loss.backward()
        adam.step()
        adam.clear_grad()
    assert loss.item() < 0.6 * first
    task.eval()
    beams = task.generate(batch.images, processor.tokenizer, BeamConfig(3, 0.6, 2, 30))
    said = [processor.tokenizer.decode(beam[0].tokens) for beam in beams]
    texts = [processor.tokenizer.decode(row) for row in batch.input_ids.tolist()]
    assert said == texts and all(beam[0].is_finished for beam in beams)


def test_batch_of_eight_is_eight_batches_of_one():
    run, task, processor, data = make(data={"scenes": {"train_images": 8, "val_images": 8}})
    task.eval()
    pixels = to_tensors(next(iter(data.eval_loader("val", run, batch_size=8)))).images
    beam = BeamConfig(3, 0.6, 3, 12, block_trigrams=True)
    together = task.generate(pixels, processor.tokenizer, beam)
    for row, hypotheses in enumerate(together):
        (alone,) = task.generate(pixels[row : row + 1], processor.tokenizer, beam)
        assert [h.tokens for h in alone] == [h.tokens for h in hypotheses]
        np.testing.assert_allclose([h.score for h in alone], [h.score for h in hypotheses], rtol=1e-4)


def test_scores_of_hypotheses_are_those_of_teacher_forcing():
    run, task, processor, data = make()
    task.eval()
    pixels = to_tensors(next(iter(data.eval_loader("val", run, batch_size=1)))).images
    tokenizer, beam = processor.tokenizer, BeamConfig(4, 0.6, 2, 12)
    image = task.model.encode_image(pixels)
    for hypothesis in task.generate(pixels, tokenizer, beam)[0]:
        ids = [tokenizer.bos_token_id, *hypothesis.tokens]
        targets = [*hypothesis.tokens, tokenizer.eos_token_id] if hypothesis.is_finished else ids[1:]
        inputs = paddle.to_tensor([ids[: len(targets)]])
        states = task.model.decode(image, inputs, paddle.ones_like(inputs))
        logits = task.lm_head(states[0]).numpy().astype(np.float64)
        values = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        total = values[np.arange(len(targets)), targets].sum()
        assert hypothesis.log_probability == pytest.approx(total, abs=1e-4)
        assert hypothesis.score == pytest.approx(total / ((5 + len(targets)) / 6) ** 0.6, abs=1e-4)
        assert not set(hypothesis.tokens) & tokenizer.special_ids


def test_evaluation_describes_each_image_once_and_writes_the_coco_file(tmp_path: Path):
    directory = saved("caption", tmp_path, model=MODEL, task=TASK)
    result = evaluate(directory, "val", "caption")
    assert result.samples == 3
    file = write_predictions(tmp_path / "captions.json", result)
    rows = json.loads(file.read_text())
    assert [row["image_id"] for row in rows] == ["val-0", "val-1", "val-2"]
    assert all(set(row) == {"image_id", "caption"} and isinstance(row["caption"], str) for row in rows)
    run, _, _, data = make()
    images = list(data.eval_dataset("val"))
    expected = caption_scores(
        {row["image_id"]: tokenize(row["caption"]) for row in rows},
        {image.image_id: [tokenize(text) for text in image.references] for image in images},
    )
    assert {name: result.metrics[name] for name in expected} == pytest.approx(expected)
    assert set(result.metrics) - set(expected) <= {
        f"scenes_{k}" for k in ("exact", "objects", "colors", "shapes")
    }
    assert "scenes_exact" in result.metrics


def test_metric_scores_perfect_captions():
    metric = caption.CaptionMetric(java=False)
    texts = ["a small red circle at the top left .", "a large blue cross above a small green square ."]
    objects = [(("red", "circle"),), (("blue", "cross"), ("green", "square"), ("red", "circle"))]
    for row in (0, 1):
        batch = SimpleNamespace(
            image_ids=[str(row)], references=[(texts[row], "other words")], objects=[objects[row]]
        )
        metric.update({"captions": [texts[row]]}, batch)
    values = metric.compute()
    assert values["bleu_4"] == pytest.approx(100) and values["scenes_exact"] == 100
    metric.update({"captions": ["a"]}, SimpleNamespace(image_ids=["2"], references=[()], objects=None))
    with pytest.raises(DataError, match=r"1 of 3 images have no reference captions, e\.g\. 2"):
        metric.compute()


def test_head_starts_from_that_of_pretraining(tmp_path: Path):
    directory = saved("pretrain", tmp_path, seed=5, model=MODEL)
    source = make_task(make_run("pretrain", model=MODEL), seed=5)[0]
    _, task, _, _ = make()
    assert start_from(task, directory) == []
    np.testing.assert_array_equal(
        task.lm_head.decoder.weight.numpy(), source.objective.mlm_head.decoder.weight.numpy()
    )
    with pytest.raises(CheckpointError):
        start_from(task, tmp_path / "nowhere")


def test_models_and_settings_that_cannot_caption():
    with pytest.raises(CapabilityError, match="'caption' needs generation.*unimo2_tiny"):
        make_task(make_run("caption"))
    with pytest.raises(ConfigError, match=r"max_length 90: unimo2_tiny has text positions for 64"):
        make(task={"beam": {"max_length": 90}})
    with pytest.raises(ConfigError, match="label_smoothing 1: expected 0 to below 1"):
        make(task={"label_smoothing": 1.0})
    with pytest.raises(ConfigError, match="beam.size 0: expected 1 or more"):
        make(task={"beam": {"size": 0}})


@pytest.mark.parametrize("java", [True, False])
def test_what_the_scores_of_captions_lack_is_said_when_the_data_are_opened(
    java: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("unimo.tasks.caption.task.find_evaluation", lambda: None)
    make(task={"java": java})
    assert ('pip install -c constraints.txt -e ".[caption]"' in caplog.text) is java
