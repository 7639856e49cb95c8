"""VQA: loss and metric against hand-made numbers, result rows, the answer list."""

import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from micro import make_run, make_task
from PIL import Image

from unimo.data.record import Record
from unimo.errors import CheckpointError, ConfigError, RecordError
from unimo.tasks.base import to_tensors
from unimo.tasks.vqa import VqaAccuracy, VqaCollator, VqaConfig, VqaTask


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


def batch_of(task: VqaTask, data, run) -> dict:
    return to_tensors(next(iter(data.eval_loader("val", run, batch_size=6))))


def test_loss_is_binary_cross_entropy_summed_over_answers() -> None:
    run = make_run("vqa")
    task, _, data = make_task(run)
    task.eval()
    batch = batch_of(task, data, run)
    logits = task.logits(batch).numpy().astype(np.float64)
    targets = batch.answer_targets.numpy()
    probability = 1 / (1 + np.exp(-logits))
    expected = -(targets * np.log(probability) + (1 - targets) * np.log(1 - probability)).sum(axis=1).mean()
    losses, report = task.losses(batch)
    assert losses["vqa"].item() == pytest.approx(expected, rel=1e-5)
    hits = targets[np.arange(6), logits.argmax(axis=1)]
    assert report["accuracy"].item() == pytest.approx(100 * hits.mean(), rel=1e-5)


def test_metric_takes_the_soft_score_of_the_best_answer_by_type() -> None:
    metric = VqaAccuracy()
    targets = paddle.to_tensor([[1.0, 0.3], [0.0, 0.6], [0.9, 0.0]])
    chosen = paddle.to_tensor([1, 1, 1])
    batch = SimpleNamespace(answer_targets=targets, question_types=["a", "a", "b"])
    metric.update({"answer_ids": chosen}, batch)
    values = metric.compute()
    assert values["overall"] == pytest.approx(30.0)
    assert values["a"] == pytest.approx(45.0)
    assert values["b"] == 0.0


def test_questions_without_answers_are_not_scored() -> None:
    """As in test splits; a question whose answers are no classes counts as 0."""
    collator = VqaCollator(make_task(make_run("vqa"))[1], ["yes", "no"], train=False)
    known = Record("1", "x", (png(),), "what ?", answer_scores={"yes": 1.0})
    records = [known, replace(known, answer_scores={}), replace(known, answer_scores={"rare": 1.0})]
    rng = np.random.default_rng(0)
    batch = to_tensors(collator.collate([collator.prepare(record, rng) for record in records], rng))
    metric = VqaAccuracy()
    metric.update({"answer_ids": paddle.to_tensor([0, 0, 0])}, batch)
    assert metric.compute()["overall"] == 50.0
    metric = VqaAccuracy()
    metric.update(
        {"answer_ids": paddle.to_tensor([0])},
        replace(batch, answer_targets=batch.answer_targets[1:2], question_types=[""]),
    )
    assert metric.compute() == {}


def test_questions_without_answers_are_broken_in_training() -> None:
    collator = VqaCollator(make_task(make_run("vqa"))[1], ["yes", "no"], train=True)
    record = Record("1", "x", (png(),), "what ?")
    with pytest.raises(RecordError, match="no answers to learn from"):
        collator.prepare(record, np.random.default_rng(0))


@pytest.mark.parametrize(
    "answers", [["yes", "yes"], ["yes", ""], ["yes", None], ["yes", 5], "yes", {"yes": 0}]
)
def test_lists_of_answers_that_are_none(answers: object) -> None:
    task = make_task(make_run("vqa"))[0]
    with pytest.raises(CheckpointError, match="metadata.answers"):
        VqaTask(task.model, VqaConfig(), {"answers": answers})


def test_records_are_rows_of_the_server_file() -> None:
    run = make_run("vqa")
    task, _, data = make_task(run)
    task.eval()
    batch = batch_of(task, data, run)
    prediction = task.predict(batch)
    assert [row["question_id"] for row in prediction["records"]] == batch.question_ids
    best = prediction["logits"].numpy().argmax(axis=1)
    assert [row["answer"] for row in prediction["records"]] == [task.answers[i] for i in best]


def test_hidden_width_of_the_classifier() -> None:
    for multiplier, width in ((2.0, 32), (4.0, 64)):
        task, _, _ = make_task(make_run("vqa", task={"head_hidden_multiplier": multiplier}))
        assert task.classifier.dense.weight.shape == [32, width]


def test_rare_answers_can_be_left_out() -> None:
    every = make_task(make_run("vqa"))[2].metadata["answers"]
    run = make_run("vqa", task={"min_answer_count": 4})
    task, _, data = make_task(run)
    dataset = data.train_datasets()["scenes"]
    counts = Counter(answer for i in range(len(dataset)) for answer in dataset[i].answer_scores)
    assert task.answers == [answer for answer in every if counts[answer] >= 4]
    assert 0 < len(task.answers) < len(every)
    with pytest.raises(ConfigError, match="most frequent"):
        make_task(make_run("vqa", task={"min_answer_count": 1000}))


def test_without_answers_there_is_no_task() -> None:
    task, _, _ = make_task(make_run("vqa"))
    with pytest.raises(CheckpointError, match="answers"):
        VqaTask(task.model, VqaConfig(), {})


def test_server_file_is_a_sorted_list_without_repetitions(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    rows = [(7, "yes"), (3, "2"), (7, "no")]
    VqaTask.write_records(path, [{"question_id": key, "answer": answer} for key, answer in rows])
    assert json.loads(path.read_text()) == [
        {"question_id": 3, "answer": "2"},
        {"question_id": 7, "answer": "yes"},
    ]
    assert [entry.name for entry in path.parent.iterdir()] == ["result.json"]
