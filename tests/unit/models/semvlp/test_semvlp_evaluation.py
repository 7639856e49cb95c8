"""Scores of held-out data in SemVLP's pre-training, also where objects or answers are not known."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from micro import make_run
from micro_semvlp import MODEL
from PIL import Image
from region_samples import write_store
from semvlp_records import collated, make_collator
from small_models import set_parameters
from small_semvlp import small_semvlp

from unimo.data.loading.batch import Batch
from unimo.data.processor import build_processor
from unimo.data.readers.answer_table import AnswerTable
from unimo.data.tokenizers import load_tokenizer
from unimo.errors import DataError
from unimo.losses.known_classes import known_class_loss
from unimo.losses.mlm import masked_lm_loss
from unimo.losses.region import region_regression_loss
from unimo.models.semvlp.collate import scored_answers
from unimo.models.semvlp.config import PretrainingConfig
from unimo.tasks.base import to_tensors
from unimo.tasks.pretrain import PretrainTask
from unimo.training.run import resolve

NAMES = {
    "object_loss",
    *(
        f"{name}_{score}"
        for name in ("mlm", "itm", "label", "attribute", "qa")
        for score in ("loss", "accuracy")
    ),
}


def make_task(modes: Any) -> PretrainTask:
    words = {"vocab_size": load_tokenizer("scenes").vocab_size}
    model = small_semvlp(text=words, regions={"num_attributes": 6})
    task = PretrainTask(model, PretrainingConfig(modes=modes))
    set_parameters(task)
    return task


def held_out() -> Batch:
    return collated(make_collator(answers="ab", train=False))


def test_each_mode_is_evaluated_under_its_own_names() -> None:
    both, single, two = (make_task(modes).evaluate([held_out()]) for modes in ("both", "single", "two"))
    assert single.keys() == two.keys() == NAMES
    assert both == pytest.approx({**single, **{f"two_stream_{name}": two[name] for name in two}})
    assert both["object_loss"] != both["two_stream_object_loss"]
    assert both["mlm_loss"] != both["two_stream_mlm_loss"]


def test_batches_of_evaluation_ask_for_all_beside_the_image_of_the_pair() -> None:
    batch = held_out()
    assert (batch.itm_labels == 0).sum() == 4
    # Of the answers a, b, c, a, ... the third is no class.
    assert np.array_equal(batch.qa_labels, np.where(np.arange(8) % 3 == 2, -1, np.arange(8) % 3))
    assert len(batch.object_positions) == batch.images["masked"].sum()


def test_objects_and_answers_by_the_losses_of_training() -> None:
    task, given = make_task("single"), held_out()
    found = task.evaluate([given])
    task.eval()
    batch, model, heads = to_tensors(given), task.model, task.objective
    text = model.encode_text(batch.input_ids, batch.attention_mask)
    states = model.fuse(text, model.encode_image(batch.images)).fused_image
    whole = {name: value for name, value in batch.images.items() if name != "masked"}
    pooled = model.fuse(text, model.encode_image(whole)).pooled
    expected = {
        "object": region_regression_loss(
            states,
            batch.object_positions,
            batch.object_features,
            lambda rows: heads.feature_head(heads.object_head(rows)),
            error="smooth",
        ),
        "qa": known_class_loss(heads.answer_head(pooled), batch.qa_labels),
    }
    for name, positions in (("label", batch.label_positions), ("attribute", batch.object_positions)):
        head, labels = getattr(heads, f"{name}_head"), getattr(batch, f"{name}_labels")
        expected[name] = masked_lm_loss(
            states, positions, labels, lambda rows, head=head: head(heads.object_head(rows))
        )
    for name, values in expected.items():
        loss, *accuracies = values if isinstance(values, tuple) else (values,)
        assert found[f"{name}_loss"] == pytest.approx(loss.item(), rel=1e-4), name
        for accuracy in accuracies:
            assert found[f"{name}_accuracy"] == pytest.approx(100 * accuracy.item())


def test_without_questions_or_masked_objects_their_scores_are_left_out() -> None:
    task = make_task("single")
    batch = collated(make_collator(answers="", train=False, object_mask_probability=0.0))
    assert task.evaluate([batch]).keys() == {f"{n}_{s}" for n in ("mlm", "itm") for s in ("loss", "accuracy")}


def test_answers_that_a_model_did_not_learn_are_not_scored(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> AnswerTable:
        raise DataError("no data at nowhere")

    assert len(scored_answers(lambda: AnswerTable("ab"), 2)) == 2
    assert len(scored_answers(lambda: AnswerTable(()), 2)) == len(scored_answers(fails, 0)) == 0
    assert not caplog.messages
    assert len(scored_answers(lambda: AnswerTable("abc"), 2)) == len(scored_answers(fails, 2)) == 0
    learned, missing = caplog.messages
    assert "the model learned 2, these data have 3" in learned and "no data at nowhere" in missing


def test_images_without_objects_and_answers_without_a_class_are_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The former are broken records; the latter are questions whose answers teach and score nothing."""
    rows = []
    for number, answer in enumerate(["red", "zebra", "red", "blue"]):
        Image.new("RGB", (40, 30)).save(tmp_path / f"{number}.jpg")
        rows.append({"image": f"{number}.jpg", "question": "what is it ?", "answers": {answer: 1.0}})
    for split in ("train", "val"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "list.json").write_text('["blue", "red"]')
    write_store(tmp_path / "store", ["0.jpg", "1.jpg"])
    run = make_run(
        "pretrain",
        model=MODEL,
        task={"answers": str(tmp_path / "list.json")},
        data={
            "pairs": [{"path": str(tmp_path), "questions": True}],
            "regions": str(tmp_path / "store"),
            "max_bad_rate": 1.0,
        },
        train={"batch_size": 4, "negatives_batch_size": 4},
    )
    processor = build_processor(run.data, load_tokenizer("scenes"))
    run = resolve(run, processor)
    data = PretrainTask.open_data(run, processor)
    with caplog.at_level(logging.WARNING):
        loader = data.train_loader(run)
        batches = [next(loader) for _ in range(3)]
        loader.close()
        (batch,) = data.eval_loader("val", run)
    assert [len(found.sample_ids) for found in batches] == [2, 2, 2]
    assert list(loader.counter.state_dict()["bad"].values()) == [6]
    assert batch.qa_labels.tolist() == [1, -1]
    said = [line for line in caplog.messages if "no regions of image" in line]
    assert len(said) == 2 and all("further ones are only counted" in line for line in said)  # train, val
    (line,) = [line for line in caplog.messages if "none of the classes" in line]
    assert "1 of 3 answers" in line and "'zebra'" in line
    (tmp_path / "list.json").write_text('["dog"]')
    with pytest.raises(DataError, match="none of the 3 answers of .* is among its 1 classes, e.g. 'red'"):
        PretrainTask.open_data(run, processor).train_loader(run)
