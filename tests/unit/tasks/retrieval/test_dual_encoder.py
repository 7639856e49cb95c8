"""Retrieval by VLMo: contrast alone trains and ranks; `rerank` adds matching, for the first of each query."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from micro import TOWER, make_run, make_task, saved
from PIL import Image

from unimo.errors import CapabilityError, CheckpointError, ConfigError
from unimo.inference.evaluation import evaluate
from unimo.inference.loading import load_task, start_from
from unimo.inference.zero_shot import ZeroShotClassification, evaluate_zero_shot, open_matcher
from unimo.losses.contrastive import PairVectors, contrast_pairs
from unimo.nn.outputs import Encoded
from unimo.registry import create_model
from unimo.tasks.base import to_tensors
from unimo.tasks.retrieval.matching import Gallery, score_pairs
from unimo.tasks.retrieval.task import DualEncoderTask, RetrievalConfig, RetrievalTask
from unimo.weights.files import read_safetensors

MODEL: dict[str, Any] = {
    "name": "vlmo_tiny",
    "text": {"vocab_size": 300},
    "vision": {"image_size": 32},
    "transformer": {**TOWER, "pair_layers": 1},
}


def setting(**task: Any) -> tuple[Any, DualEncoderTask, Any]:
    """A run, its task and its data, with 5 held-out images of 4 captions each."""
    run = make_run("retrieval", model=MODEL, data={"scenes": {"val_images": 5}}, task=task)
    built, _, data = make_task(run)
    built.eval()
    return run, built, data


def gallery_of(run: Any, task: DualEncoderTask, data: Any) -> Gallery:
    with paddle.no_grad():
        return Gallery.collect(task, data.eval_loader("val", run, batch_size=8))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("pretrain", tmp_path_factory.mktemp("run"), model=MODEL)


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of pairs that any model fuses."""
    rows: list[int] = []
    original = RetrievalTask.match_logits

    def counted(task: RetrievalTask, text: Encoded, image: Encoded) -> paddle.Tensor:
        rows.append(image.image.shape[0])
        return original(task, text, image)

    monkeypatch.setattr(RetrievalTask, "match_logits", counted)
    return rows


def test_contrast_alone_is_what_is_learned() -> None:
    """Every parameter that learns gets a gradient; experts for pairs, pooler and matching take no part."""
    run, task, data = setting()
    assert type(task) is DualEncoderTask and not task.draws_in_round
    batch = to_tensors(next(data.train_loader(run)))
    losses, report = task.losses(batch)
    assert losses.keys() == {"itc"} and report["temperature"].item() == pytest.approx(0.07)
    text, image = task.encode(batch)
    vectors = [
        head(state) / head(state).norm(axis=1, keepdim=True)
        for head, state in (
            (task.itc_text_head.dense, task.model.contrast_states(text, None)[0]),
            (task.itc_image_head.dense, task.model.contrast_states(None, image)[0]),
        )
    ]
    expected = contrast_pairs(PairVectors(*vectors, batch.image_group), paddle.to_tensor(0.07)).loss
    assert losses["itc"].item() == pytest.approx(expected.item(), rel=1e-5)
    task.total(losses).backward()
    learned = {name for name, p in task.named_parameters() if p.grad is not None}
    assert learned == {name for name, p in task.named_parameters() if not p.stop_gradient}
    idle = {name for name, _ in task.named_parameters()} - learned
    assert {name.split(".")[1] for name in idle} == {"pooler", "blocks", "text_embeddings"}
    assert all(".experts.pair." in name for name in idle if ".blocks." in name)


def test_rerank_learns_matching_with_all_parameters() -> None:
    run, task, data = setting(rerank=2)
    assert task.draws_in_round
    losses, _ = task.losses(to_tensors(next(data.train_loader(run))))
    assert losses.keys() == {"itc", "itm"}
    task.total(losses).backward()
    idle = [name for name, p in task.named_parameters() if p.grad is None]
    assert idle == ["model.text_embeddings.position.weight"]  # the model has relative positions


def test_parameters_are_those_of_the_release() -> None:
    """Two square heads and a scale, besides the tables of 384 pixels; counted on a narrower model."""
    tables = (2 * 24 - 1) ** 2 + 3 + 394 - (27**2 + 3 + 394)
    assert 176_021_088 + tables * 144 + 2 * 768**2 + 1 == 177_413_857
    model = create_model("vlmo_tiny")
    own = sum(p.size for name, p in DualEncoderTask(model, RetrievalConfig(loss="itc")).named_parameters())
    assert own - sum(p.size for p in model.parameters()) == 2 * 64**2 + 1


def test_scale_is_not_clipped() -> None:
    _, task, _ = setting()
    task.itc_log_scale.set_value(paddle.to_tensor(9.0))
    assert task.sigma().item() == pytest.approx(np.exp(-9.0))


@pytest.mark.parametrize("rerank", [0, 2])
def test_heads_start_from_pre_training(pretrained: Path, tmp_path: Path, rerank: int) -> None:
    """And those of Flickr30k from the result on COCO."""
    _, task, _ = setting(rerank=rerank)
    assert start_from(task, pretrained) == []
    stored = read_safetensors(pretrained / "model.safetensors")
    heads = {"itc_text_head.dense.weight", "itc_image_head.dense.weight", "itc_log_scale"}
    heads |= {"itm_head.weight", "itm_head.bias"} if rerank else set()
    own = {name: p for name, p in task.named_parameters() if not name.startswith("model.")}
    assert own.keys() == heads
    for name, parameter in own.items():
        np.testing.assert_array_equal(parameter.numpy(), stored[f"objective.{name}"])
    first = saved("retrieval", tmp_path, seed=1, model=MODEL, task={"rerank": rerank})
    assert start_from(task, first) == []
    np.testing.assert_array_equal(
        task.itc_image_head.dense.weight.numpy(),
        read_safetensors(first / "model.safetensors")["itc_image_head.dense.weight"],
    )


def test_evaluation_ranks_by_vectors_alone(fused: list[int]) -> None:
    run, task, data = setting()
    gallery = gallery_of(run, task, data)
    assert (gallery.texts, gallery.images) == ([], None)  # what only the fusion reads is not kept
    batch = to_tensors(next(iter(data.eval_loader("val", run, batch_size=20))))
    with paddle.no_grad():
        text, image = task.encode(batch)
        cosines = task.text_vectors(text) @ task.image_vectors(image).T
        similarity = task.predict(batch)
    np.testing.assert_allclose(score_pairs(task, gallery), cosines.numpy()[:, ::4], atol=1e-5)
    np.testing.assert_allclose(similarity["similarity"], np.diag(cosines), atol=1e-5)
    assert similarity["records"][3] == {
        "sample_id": batch.sample_ids[3],
        "similarity": round(similarity["similarity"][3].item(), 6),
    }
    found = task.evaluate(data.eval_loader("val", run, batch_size=8))
    assert found == gallery.recall(gallery.cosines) and fused == []


@pytest.mark.parametrize("count", [1, 2])
def test_rerank_fuses_the_first_of_each_query(fused: list[int], count: int) -> None:
    run, task, data = setting(rerank=count)
    gallery = gallery_of(run, task, data)
    with paddle.no_grad():
        scores = score_pairs(task, gallery)
    places = [np.argsort(np.argsort(-gallery.cosines, axis=axis), axis=axis) for axis in (0, 1)]
    chosen = (places[0] < count) | (places[1] < count)
    assert sum(fused) == chosen.sum() < chosen.size
    assert scores[chosen].min() > scores[~chosen].max()
    np.testing.assert_array_equal(gallery.candidates(count), chosen)
    fused.clear()
    _, every, _ = setting(rerank=count, exhaustive=True)
    with paddle.no_grad():
        whole = score_pairs(every, gallery)
        batch = to_tensors(next(iter(data.eval_loader("val", run, batch_size=20))))
        odds = every.match_scores(*every.encode(batch)).numpy()
    np.testing.assert_allclose(whole[chosen], scores[chosen], atol=1e-5)
    own = (np.arange(20), gallery.image_of_text)
    np.testing.assert_allclose(whole[own], odds + gallery.cosines[own], atol=1e-5)
    assert sum(fused) == 120


def test_a_model_with_matching_also_ranks_without_it(tmp_path: Path, fused: list[int]) -> None:
    """But one that learned no matching cannot re-rank."""
    directory = saved("retrieval", tmp_path / "both", model=MODEL, task={"rerank": 2})
    words = ["data.scenes.val_images=3"]
    assert evaluate(directory, "val", overrides=words).samples == 12 and sum(fused) > 0
    fused.clear()
    evaluate(directory, "val", overrides=[*words, "task.rerank=0"])
    assert fused == []
    directory = saved("retrieval", tmp_path / "alone", model=MODEL)
    with pytest.raises(CheckpointError, match=r"missing: itm_head.*task.\* are those the weights"):
        evaluate(directory, "val", overrides=[*words, "task.rerank=2"])


def test_more_results_than_there_are(fused: list[int], caplog: pytest.LogCaptureFixture) -> None:
    run, task, data = setting(rerank=21)
    task.evaluate(data.eval_loader("val", run, batch_size=8))
    assert sum(fused) == 100
    assert "task.rerank=21 of 20 texts and 5 images: every pair is fused" in caplog.text


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"rerank": -1}, "task.rerank"),
        ({"rerank": 4, "loss": "itc_itm"}, "task.rerank=4 is for task.loss=itc; .*task.candidates"),
        ({"rerank": 4, "loss": "circle"}, "task.rerank=4 is for task.loss=itc; .*every pair"),
        ({"exhaustive": True}, "which task.loss=itc alone does not learn; try task.rerank=32"),
    ],
)
def test_settings_that_say_nothing(task: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_run("retrieval", model=MODEL, task=task)


def test_other_models_have_no_vectors_that_rank() -> None:
    with pytest.raises(CapabilityError, match="needs vector_retrieval.*unimo3_tiny.*vlmo_base"):
        make_task(make_run("retrieval", task={"loss": "itc"}))


def test_zero_shot_retrieval(pretrained: Path, fused: list[int]) -> None:
    words = ["data.scenes.val_images=3"]
    found = evaluate_zero_shot(pretrained, "val", "retrieval", words)
    assert found.samples == 12 and fused == []
    evaluate_zero_shot(pretrained, "val", "retrieval", [*words, "task.rerank=1"])
    assert 12 <= sum(fused) < 36
    task, _ = load_task(pretrained)
    matcher, _ = open_matcher(pretrained)
    assert matcher.sigma().item() == task.objective.temperature().item()


def test_zero_shot_classification_is_of_the_dual_encoder(pretrained: Path, fused: list[int]) -> None:
    """A softmax of the cosines by the temperature, which `encode_text` and `encode_image` lead to."""
    matcher, processor = open_matcher(pretrained)
    classifier = ZeroShotClassification(matcher, processor, ["circle", "red square"], "a {} .")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    batch = to_tensors(processor(images=[picture], texts=["a circle ."]))
    with paddle.no_grad():
        text = matcher.text_vectors(matcher.model.encode_text(batch["input_ids"], batch["attention_mask"]))
        image = matcher.image_vectors(matcher.model.encode_image(batch["pixels"]))
        logits = classifier.image_logits(batch["pixels"])
    assert logits[0, 0].item() == pytest.approx((text @ image.T).item() / matcher.sigma().item(), rel=1e-4)
    ranked = classifier.rank(picture)
    assert sum(share for _, share in ranked) == pytest.approx(1) and fused == []


@pytest.mark.parametrize(("tasks", "rerank", "message"), [("itc", 2, "matching"), ("itm", 0, "contrast")])
def test_zero_shot_of_what_was_not_learned(tmp_path: Path, tasks: str, rerank: int, message: str) -> None:
    directory = saved("pretrain", tmp_path, model={**MODEL, "objective": {"tasks": [tasks]}})
    with pytest.raises(CheckpointError, match=f"was pre-trained without image-text {message}"):
        open_matcher(directory, config=RetrievalConfig(loss="itc", rerank=rerank))
