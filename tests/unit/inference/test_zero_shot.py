"""Zero-shot: the matching head of pre-training scores pairs, each text and image encoded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from micro import saved
from micro_unimo2 import MODEL

from unimo.analysis.retrieval import find_examples
from unimo.data.scenes.dataset import SceneShapes
from unimo.data.scenes.scene import SHAPES
from unimo.errors import CapabilityError, ConfigError, DataError
from unimo.inference import zero_shot
from unimo.inference.evaluation import evaluate
from unimo.inference.loading import load_task
from unimo.inference.zero_shot import (
    ZeroShotClassification,
    evaluate_zero_shot,
    open_matcher,
)
from unimo.tasks.base import to_tensors
from unimo.weights.files import read_safetensors, write_safetensors

PROMPT = "a {} ."


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("pretrain", tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def classifier(pretrained: Path) -> ZeroShotClassification:
    return ZeroShotClassification(*open_matcher(pretrained), SHAPES, PROMPT)


def pictures(count: int) -> list[bytes]:
    data = SceneShapes("val")
    return [data[index].image for index in range(count)]


def plain_scores(directory: Path, image: bytes) -> np.ndarray:
    """Log-odds of each class by the pre-training task itself, one pair at a time."""
    task, processor = load_task(directory)
    odds = []
    for shape in SHAPES:
        batch = to_tensors(processor(images=image, texts=PROMPT.format(shape)))
        with paddle.no_grad():
            text = task.model.encode_text(batch["input_ids"], batch["attention_mask"])
            pooled = task.model.fuse(text, task.model.encode_image(batch["pixels"])).pooled
            logits = task.objective.itm_head(pooled)[0].numpy()
        odds.append(logits[1] - logits[0])
    return np.array(odds)


@pytest.mark.parametrize("model", [None, MODEL], ids=["unimo3", "unimo2"])
def test_logits_are_the_log_odds_of_the_matching_head(tmp_path: Path, model: dict[str, Any] | None) -> None:
    directory = saved("pretrain", tmp_path, **({"model": model} if model else {}))
    classifier = ZeroShotClassification(*open_matcher(directory), SHAPES, PROMPT)
    images = pictures(3)
    with paddle.no_grad():
        found = classifier.image_logits(to_tensors(classifier.processor(images=images)["pixels"])).numpy()
    for row, image in zip(found, images, strict=True):
        np.testing.assert_allclose(row, plain_scores(directory, image), atol=1e-5)


def test_each_image_and_text_is_encoded_once(
    classifier: ZeroShotClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: dict[str, list[int]] = {"image": [], "text": [], "fuse": []}
    model = classifier.model
    encode_image, encode_text, fuse = model.encode_image, model.encode_text, model.fuse
    monkeypatch.setattr(model, "encode_image", lambda x: calls["image"].append(x.shape[0]) or encode_image(x))
    monkeypatch.setattr(
        model, "encode_text", lambda ids, mask: calls["text"].append(ids.shape[0]) or encode_text(ids, mask)
    )
    monkeypatch.setattr(
        model, "fuse", lambda t, i, **o: calls["fuse"].append(i.image.shape[0]) or fuse(t, i, **o)
    )
    monkeypatch.setattr(zero_shot, "TEXTS_AT_ONCE", 3)
    matcher = classifier.matcher
    monkeypatch.setattr(matcher, "config", type(matcher.config)(fusion_batch_size=5))
    fresh = ZeroShotClassification(matcher, classifier.processor, SHAPES, PROMPT)
    images = to_tensors(classifier.processor(images=pictures(3))["pixels"])
    with paddle.no_grad():
        parts, whole = fresh.image_logits(images), classifier.image_logits(images)
    np.testing.assert_allclose(parts.numpy(), whole.numpy(), atol=1e-5)
    assert calls == {"image": [3, 3], "text": [3, 1], "fuse": [5, 5, 2, 12]}


def test_probabilities_are_ranked_and_sum_to_one(
    classifier: ZeroShotClassification, pretrained: Path
) -> None:
    ranked = classifier.rank(pictures(1)[0])
    odds = np.exp(plain_scores(pretrained, pictures(1)[0]))
    expected = dict(zip(SHAPES, odds / odds.sum(), strict=True))
    assert [name for name, _ in ranked] == sorted(SHAPES, key=lambda name: -expected[name])
    assert [value for _, value in ranked] == pytest.approx(sorted(expected.values(), reverse=True), rel=1e-4)


def test_classification_of_a_data_set(pretrained: Path, tmp_path: Path) -> None:
    words = ["data.scenes.val_images=12", "train.eval_batch_size=5"]
    found = evaluate_zero_shot(pretrained, "val", "image_classification", words, prompt=PROMPT)
    assert found.samples == 12 and set(found.metrics) == {"accuracy", "majority"}
    guesses = [SHAPES[int(np.argmax(plain_scores(pretrained, image)))] for image in pictures(12)]
    assert [record["label"] for record in found.records] == guesses
    hits = [SceneShapes("val")[index].label_name == guess for index, guess in enumerate(guesses)]
    assert found.metrics["accuracy"] == pytest.approx(100 * np.mean(hits))
    (tmp_path / "labels.txt").write_text("cross\ncircle\nsquare\ntriangle\n")
    again = evaluate_zero_shot(
        pretrained, "val", "image_classification", words, labels=str(tmp_path / "labels.txt"), prompt=PROMPT
    )
    assert again.metrics == found.metrics


def test_retrieval_scores_every_pair(pretrained: Path) -> None:
    found = evaluate_zero_shot(pretrained, "val", "retrieval", ["data.scenes.val_images=3"])
    assert found.samples == 12 == len(found.records)
    assert {"ir_r1", "ir_r5", "ir_r10", "tr_r1", "tr_r5", "tr_r10", "rsum", "rmean"} == set(found.metrics)
    matcher, _ = open_matcher(pretrained)
    assert matcher.config.exhaustive
    task, _ = load_task(pretrained)
    np.testing.assert_array_equal(matcher.itm_head.weight.numpy(), task.objective.itm_head.weight.numpy())


def rankings(directory: Path, kind: str) -> Any:
    """Return the results, recalls or pages that each command ranks by the matching head."""
    words = ["data.scenes.val_images=3"]
    if kind == "page":
        return find_examples([directory], overrides=words, queries=3).models[0].scores
    how = evaluate if kind == "fine-tuned" else evaluate_zero_shot
    found = how(directory, "val", "retrieval", words + ["task.loss=circle"] * (kind == "other loss"))
    return found.metrics, found.records


@pytest.mark.parametrize("kind", ["zero-shot", "other loss", "fine-tuned", "page"])
def test_what_both_logits_share_does_not_rank(tmp_path: Path, kind: str) -> None:
    """Two-class cross-entropy trains their difference, the log-odds; the rest is as random as it began."""
    directory = saved("retrieval" if kind == "fine-tuned" else "pretrain", tmp_path)
    before = rankings(directory, kind)
    path = directory / "model.safetensors"
    tensors = read_safetensors(path)
    (name,) = (name for name in tensors if name.endswith("itm_head.weight"))
    shared = np.random.default_rng(0).normal(0, 2, (len(tensors[name]), 1)).astype("float32")
    write_safetensors(path, tensors | {name: tensors[name] + shared})
    after = rankings(directory, kind)
    if kind == "page":
        np.testing.assert_allclose(after, before, atol=1e-5)
    else:
        assert after == before


def test_contrastive_heads_of_pre_training_choose_candidates(tmp_path: Path) -> None:
    from micro import VALUES

    model = {**VALUES["model"], "objective": {"itm_negatives": "hard", "contrastive_size": 6}}
    directory = saved("pretrain", tmp_path, model=model)
    matcher, _ = open_matcher(directory)
    task, _ = load_task(directory)
    assert not matcher.config.exhaustive
    np.testing.assert_array_equal(
        matcher.itc_text_head.dense.weight.numpy(), task.objective.itc_text_head.dense.weight.numpy()
    )
    few = ["data.scenes.val_images=3", "task.candidates=1"]
    assert evaluate_zero_shot(directory, "val", "retrieval", few).samples == 12


def test_what_cannot_be_asked(pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no zero-shot vqa"):
        evaluate_zero_shot(pretrained, "val", "vqa")
    with pytest.raises(ConfigError, match="labels and prompts are for"):
        evaluate_zero_shot(pretrained, "val", "retrieval", prompt="a {}")
    with pytest.raises(ConfigError, match="expected one {}"):
        evaluate_zero_shot(pretrained, "val", "image_classification", prompt="a")
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match="2 names and the data set 4 classes"):
        evaluate_zero_shot(
            pretrained, "val", "image_classification", labels=str(tmp_path / "labels.txt"), prompt=PROMPT
        )
    tuned = saved("vqa", tmp_path / "tuned")
    with pytest.raises(ConfigError, match="was trained on 'vqa', so nothing about it is zero-shot"):
        evaluate_zero_shot(tuned, "val", "retrieval")
    with pytest.raises(CapabilityError, match="pre-trained model is needed"):
        open_matcher(tuned)
