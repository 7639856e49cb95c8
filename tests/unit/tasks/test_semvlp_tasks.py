"""Fine-tuning of SemVLP: each task in both modes, the vector that is read, retrieval by cross-entropy."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest
from micro import make_run, make_task
from micro_semvlp import SEMVLP
from small_models import set_parameters

from unimo.config import merge_plain
from unimo.inference.loading import load_task, start_from
from unimo.inference.saving import save_model
from unimo.inference.zero_shot import evaluate_zero_shot, open_matcher
from unimo.models.base import select_images
from unimo.registry import task_config
from unimo.tasks.base import to_tensors
from unimo.tasks.retrieval.matching import Gallery, score_pairs
from unimo.tasks.retrieval.mismatched import CrossEntropyRetrievalTask
from unimo.tasks.retrieval.task import RetrievalTask
from unimo.training import run as training

TASKS: dict[str, dict[str, Any]] = {
    "vqa": {},
    "gqa": {},
    "nlvr2": {},
    "entailment": {},
    "retrieval": {"loss": "cross_entropy", "negatives": 4},
}
MODES = ("single", "two")


def made(task: str, mode: str) -> tuple[Any, Any, Any, Any]:
    run = make_run(task, **merge_plain(SEMVLP, {"task": {**TASKS[task], "mode": mode}}))
    found = make_task(run)
    set_parameters(found[0].model)
    found[0].eval()
    return run, *found


def first_batch(data: Any, run: Any) -> Any:
    loader = data.train_loader(run)
    batch = to_tensors(next(loader))
    loader.close()
    return batch


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", TASKS)
def test_a_step_is_in_the_mode_and_is_read_back(name: str, mode: str, tmp_path: Path) -> None:
    run, task, processor, data = made(name, mode)
    batch = first_batch(data, run)
    loss, _ = task(batch)
    loss.backward()
    idle = [key for key, p in task.named_parameters() if not p.stop_gradient and p.grad is None]
    assert idle == []
    cross = [p for key, p in task.named_parameters() if ".cross_" in key]
    assert cross and all(p.stop_gradient == (mode == "single") for p in cross)
    adam = paddle.optimizer.Adam(1e-3, parameters=task.parameters())
    adam.step()
    later, _ = task(batch)
    assert later.item() < loss.item()
    again, _ = load_task(save_model(task, processor, tmp_path / "model", {}, run))
    assert again.model.mode == mode and again(batch)[0].item() == pytest.approx(later.item(), rel=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_the_vector_that_is_read(mode: str) -> None:
    """h_CLS of one stream, o_IMG of two."""
    run, task, _, data = made("vqa", mode)
    batch, model = first_batch(data, run), task.model
    with paddle.no_grad():
        fused = model(batch.images, batch.input_ids, batch.attention_mask)
        states = fused.fused_text if mode == "single" else fused.fused_image
        expected = task.classifier(model.pooler(states)).numpy()
        np.testing.assert_allclose(task.logits(batch).numpy(), expected, atol=1e-5)


def score(task: Any, batch: Any, text: int, image: int) -> float:
    """Log-odds of a match of one pair, by a pass of its own."""
    one = SimpleNamespace(
        input_ids=batch.input_ids[text : text + 1],
        attention_mask=batch.attention_mask[text : text + 1],
        images=select_images(batch.images, paddle.to_tensor([image])),
    )
    logits = task.match_logits(*task.encode(one)).numpy()[0]
    return float(logits[1] - logits[0])


@pytest.mark.parametrize("mode", MODES)
def test_cross_entropy_over_a_pair_and_its_mismatched_ones(mode: str) -> None:
    run, task, _, data = made("retrieval", mode)
    assert type(task) is CrossEntropyRetrievalTask
    batch = first_batch(data, run)
    terms, hits = [], []
    with paddle.no_grad():
        rows = zip(batch.negative_images.tolist(), batch.negative_texts.tolist(), strict=True)
        for row, (images, texts) in enumerate(rows):
            wrong = [score(task, batch, row, image) for image in images]
            wrong += [score(task, batch, text, row) for text in texts]
            right = score(task, batch, row, row)
            terms.append(np.log(np.exp(np.array([right, *wrong]) - right).sum()))
            hits.append(right > max(wrong))
        loss, report = task(batch)
    assert len(wrong) == 4 and loss.item() == pytest.approx(np.mean(terms), rel=1e-4)
    assert report["accuracy"].item() == pytest.approx(100 * np.mean(hits), abs=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_two_streams_share_what_pairs_have_in_common(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are 12 captions in three batches, and 3 images in one each; L_s is 1 of 2 layers."""
    run, task, _, data = made("retrieval", mode)
    rows = dict.fromkeys(("plain", "lower", "upper"), 0)

    def counted(name: str) -> Any:
        inner = getattr(task.model.layers, name)

        def called(states: Any, *inputs: Any, **options: Any) -> Any:
            rows[name] += states.shape[0]
            return inner(states, *inputs, **options)

        return called

    with monkeypatch.context() as patched, paddle.no_grad():
        for name in rows:
            patched.setattr(task.model.layers, name, counted(name))
        gallery = Gallery.collect(task, data.eval_loader("val", run, batch_size=5))
        scores = score_pairs(task, gallery)
    shared = {"single": (36, 0, 0), "two": (12, 3, 36)}
    assert tuple(rows.values()) == shared[mode] and scores.shape == (12, 3)
    with paddle.no_grad():
        batch = to_tensors(next(iter(data.eval_loader("val", run, batch_size=12))))
        for text, image in ((0, 0), (7, 2), (11, 1)):
            assert scores[text, image] == pytest.approx(score(task, batch, text, 4 * image), abs=1e-4)


def test_matching_starts_from_that_of_pre_training(tmp_path: Path) -> None:
    pretrained = make_task(run := make_run("pretrain", **SEMVLP))
    set_parameters(pretrained[0].objective, 5)
    directory = save_model(*pretrained[:2], tmp_path / "model", {}, run)
    task = made("retrieval", "two")[1]
    assert start_from(task, directory) == []
    expected = pretrained[0].objective.itm_head.weight.numpy()
    np.testing.assert_array_equal(task.itm_head.weight.numpy(), expected)


@pytest.mark.parametrize("mode", MODES)
def test_zero_shot_retrieval_is_in_the_mode(mode: str, tmp_path: Path) -> None:
    """The scores of a model of pre-training are those of the task, in the mode that is asked for."""
    pairs = [{"path": "scenes", "questions": True}, {"path": "scenes"}]
    run = make_run("pretrain", **merge_plain(SEMVLP, {"data": {"pairs": pairs}}))
    pretrained = make_task(run)
    set_parameters(pretrained[0], 5)
    directory = save_model(*pretrained[:2], tmp_path / "model", {}, run)
    words = [f"task.mode={mode}", "data.scenes.val_images=2"]
    found = evaluate_zero_shot(directory, "val", "retrieval", words)
    matcher, processor = open_matcher(directory, mode=mode)
    assert matcher.model.mode == mode == found.run.model.mode
    data = RetrievalTask.open_data(found.run, processor)
    assert found.samples == 2 * 4 and not any(corpus.questions for corpus in found.run.data.path)
    assert found.metrics == matcher.evaluate(data.eval_loader("val", found.run))


@pytest.mark.parametrize("name", ["vqa", "gqa"])
def test_answers_start_from_those_of_pre_training(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Answers that pre-training knows too have its weights, wherever they stand; other answers are random."""
    caplog.set_level("INFO", "unimo")
    pairs = [{"path": "scenes"}, {"path": "scenes", "questions": True}]
    run = make_run("pretrain", **merge_plain(SEMVLP, {"data": {"pairs": pairs}}))
    processor = training.open_processor(run)
    run = training.resolve(run, processor)
    pretrained = training.build(run, processor).task
    set_parameters(pretrained.objective, 5)
    known = pretrained.metadata["answers"]
    assert len(known) > 5
    pretrained.metadata["answers"] = [f"other {row}" if row < 2 else one for row, one in enumerate(known)]
    directory = save_model(pretrained, processor, tmp_path / "model", {}, run)

    fine = make_run(name, **merge_plain(SEMVLP, {"task": {"head": "pretrained"}}))
    task, _, data = make_task(fine)
    answers = [*reversed(known[1:]), "no such answer"]
    task = type(task)(task.model, fine.task, {**data.metadata, "answers": answers})
    before = task.classifier.out.weight.numpy()
    assert start_from(task, directory) == []
    shared = len(known) - 2
    assert f"{shared} answers start from those of pre-training, 2 at random" in caplog.text
    head = pretrained.objective.answer_head
    for own, other in ((task.classifier.dense, head.dense), (task.classifier.norm, head.norm)):
        for value, expected in zip(own.parameters(), other.parameters(), strict=True):
            np.testing.assert_array_equal(value.numpy(), expected.numpy())
    weight, bias = task.classifier.out.weight.numpy(), task.classifier.out.bias.numpy()
    np.testing.assert_array_equal(weight[:, :shared], head.out.weight.numpy()[:, :1:-1])
    np.testing.assert_array_equal(bias[:shared], head.out.bias.numpy()[:1:-1])
    np.testing.assert_array_equal(weight[:, shared:], before[:, shared:])
    assert not bias[shared:].any()


def test_models_without_vectors_learn_by_matching_alone() -> None:
    assert task_config("retrieval", "semvlp_base").loss == "cross_entropy"
    assert [task_config("retrieval", name).loss for name in ("unimo_base", "vlmo_base")] == ["itc_itm", "itc"]
