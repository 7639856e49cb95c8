"""GQA: loss, scores of a split against the files' own words, server file, and answers that are no class."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from micro import Tool, make_run, make_task, saved

from unimo.data.scenes.dataset import ScenesDataset, answers
from unimo.errors import RecordError
from unimo.inference.evaluation import evaluate
from unimo.metrics.gqa import Judged, gqa_scores
from unimo.settings import ScenesConfig
from unimo.tasks.base import to_tensors
from unimo.tasks.gqa import GqaCollator, GqaTask

SCENES = ScenesConfig(train_images=12, val_images=3)


def test_loss_is_the_cross_entropy_of_the_right_answer() -> None:
    run = make_run("gqa")
    task, _, data = make_task(run)
    task.eval()
    batch = to_tensors(next(iter(data.eval_loader("val", run, batch_size=6))))
    logits = task.logits(batch).numpy().astype(np.float64)
    drawn = ScenesDataset("gqa", "val", SCENES)
    labels = [answers().index(drawn[row].best_answer) for row in range(6)]
    assert batch.labels.tolist() == labels and task.answers == answers()
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(6), labels]
    assert task.losses(batch)[0]["gqa"].item() == pytest.approx(expected.mean(), rel=1e-5)


def test_scores_of_a_split_are_those_of_its_predictions(tmp_path: Path) -> None:
    result = evaluate(saved("gqa", tmp_path), "val", "gqa")
    drawn = list(ScenesDataset("gqa", "val", SCENES))
    given = {row["questionId"]: row["prediction"] for row in result.records}
    judged = [Judged(r.question_id, r.best_answer, given[r.question_id], r.facts) for r in drawn]
    assert result.metrics == gqa_scores(judged)
    assert {"accuracy", "binary", "open", "validity", "plausibility", "distribution"} <= set(result.metrics)


def test_server_file(tmp_path: Path) -> None:
    rows = [("201", "yes"), ("07", "red"), ("201", "no")]
    path = tmp_path / "gqa.json"
    GqaTask.write_records(path, [{"questionId": key, "prediction": answer} for key, answer in rows])
    assert json.loads(path.read_text()) == [
        {"questionId": "07", "prediction": "red"},
        {"questionId": "201", "prediction": "yes"},
    ]


def test_answers_that_are_no_class_are_broken_in_training_and_wrong_in_evaluation() -> None:
    processor = make_task(make_run("gqa"))[1]
    record = ScenesDataset("gqa", "val", SCENES)[0]
    strange = replace(record, question_id="x", answer_scores={"unheard of": 1.0})
    rng, train = np.random.default_rng(0), GqaCollator(processor, answers(), train=True)
    train.prepare(record, rng)
    for wrong in (strange, replace(record, answer_scores={})):
        with pytest.raises(RecordError, match="none of the 23 classes"):
            train.prepare(wrong, rng)
    test = GqaCollator(processor, answers(), train=False)
    records = [record, strange, replace(record, question_id="y", answer_scores={})]
    batch = to_tensors(test.collate([test.prepare(one, rng) for one in records], rng))
    metric = make_task(make_run("gqa"))[0].new_metric()
    metric.update({"answer_ids": batch.labels.clip(min=0)}, batch)
    assert metric.compute()["accuracy"] == 50.0  # of the known and the strange one


def test_from_training_to_the_server_file(tool: Tool, tmp_path: Path) -> None:
    words = ("data.image_size=32", "model.vision.image_size=32", "train.max_steps=2", "train.batch_size=4")
    small = ("data.scenes.train_images=9", "data.scenes.val_images=4", "train.device=cpu")
    run = ("--task", "gqa", "--model", "unimo3_tiny", "--init", "none", f"output_dir={tmp_path}/run")
    code, _, err = tool("finetune", *run, *words, *small)
    assert code == 0, err
    code, out, err = tool(
        "evaluate", "--task", "gqa", "--model", tmp_path / "run", "--predictions", tmp_path / "server.json"
    )
    assert code == 0, err
    said = json.loads(out)
    assert (said["samples"], said["scores_left_out"]) == (24, ["grounding"])
    rows = json.loads((tmp_path / "server.json").read_text())
    assert len(rows) == 24 and set(rows[0]) == {"questionId", "prediction"}
