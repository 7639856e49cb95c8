"""Text classification: the losses, the metric of each data set, and that no image takes part."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from micro import make_run, make_task
from micro_semvlp import SEMVLP
from micro_unimo import UNIMO
from micro_unimo2 import MODEL

from unimo import registry
from unimo.config import list_recipes
from unimo.errors import CapabilityError, ConfigError
from unimo.settings import load_run_config
from unimo.tasks.base import Question, to_tensors
from unimo.tasks.classification.text import GlueMetric, TextClassificationTask


def setting(dataset: str = "sst2", **task):
    run = make_run("text_classification", model=MODEL, task={"dataset": dataset, **task})
    task_, _, data = make_task(run)
    task_.eval()
    return run, task_, data


def test_loss_is_cross_entropy() -> None:
    run, task, data = setting("mnli")
    batch = to_tensors(next(data.train_loader(run)))
    logits = task.logits(batch).numpy().astype(np.float64)
    assert logits.shape == (8, 3)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -logs[np.arange(8), batch.labels.numpy()].mean()
    losses, report = task.losses(batch)
    assert task.total(losses).item() == pytest.approx(expected, rel=1e-5)
    hits = (logits.argmax(axis=1) == batch.labels.numpy()).mean()
    assert report["accuracy"].item() == pytest.approx(100 * hits)


def test_loss_of_regression_is_the_squared_error() -> None:
    run, task, data = setting("stsb")
    batch = to_tensors(next(data.train_loader(run)))
    expected = ((task.logits(batch).numpy()[:, 0] - batch.scores.numpy()) ** 2).mean()
    assert task.total(task.losses(batch)[0]).item() == pytest.approx(expected, rel=1e-5)


def test_text_alone_reaches_encoder_dictionary_and_fusion() -> None:
    run, task, data = setting()
    batch = to_tensors(next(data.train_loader(run)))
    assert not hasattr(batch, "images")
    task.train()
    task(batch)[0].backward()
    touched = {name for name, p in task.named_parameters() if p.grad is not None}
    parts = {name.split(".")[1] for name in touched if name.startswith("model.")}
    assert {"text", "grounding", "fusion", "text_pooler"} <= parts and "vision" not in parts
    assert touched == {name for name, p in task.named_parameters() if not p.stop_gradient}


def test_the_text_tower_of_unimo3_is_classified_by_a_head_as_robertas() -> None:
    run = make_run("text_classification", task={"dataset": "rte", "head": "dense"})
    task, _, data = make_task(run)
    batch = to_tensors(next(data.train_loader(run)))
    task.train()
    task(batch)[0].backward()
    touched = {name for name, p in task.named_parameters() if p.grad is not None}
    assert touched == {name for name, p in task.named_parameters() if not p.stop_gradient}
    heads = {f"{head}.{part}" for head in ("dense", "classifier") for part in ("weight", "bias")}
    assert {name for name in touched if not name.startswith("model.text.")} == heads
    task.eval()
    first = task.model.encode_text(batch.input_ids, batch.attention_mask).text[:, 0].numpy()
    hidden = np.tanh(first @ task.dense.weight.numpy() + task.dense.bias.numpy())
    expected = hidden @ task.classifier.weight.numpy() + task.classifier.bias.numpy()
    np.testing.assert_allclose(task.logits(batch).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("model", ["unimo", "unimo2", "unimo3", "meter", "bridgetower", "vlmo"])
def test_every_family_reads_pairs_without_an_image(model: str) -> None:
    """Classes and one score, from both sentences of every pair; nothing of the image path learns."""
    words = ["data.scenes.train_images=8", "data.scenes.val_images=2", "train.batch_size=8"]
    for dataset, width in (("mnli", 3), ("stsb", 1)):
        task, _, data = make_task(
            run := load_run_config(
                f"{model}_tiny", "text_classification", [*words, f"task.dataset={dataset}"]
            )
        )
        batch = to_tensors(next(data.train_loader(run)))
        task.train()
        task(batch)[0].backward()
        learns = {name for name, p in task.named_parameters() if p.grad is not None}
        assert learns == {name for name, p in task.named_parameters() if not p.stop_gradient}
        assert not [name for name in learns if name.startswith(("model.vision", "model.image"))]
        task.eval()
        logits = task.logits(batch)
        assert logits.shape == [8, width] and bool(paddle.isfinite(logits).all())
        ids = batch.input_ids.clone()
        ends = (
            (ids == data.processor.tokenizer.eos_token_id).astype("int64").argmax(axis=1)
        )  # of the first text
        for place in (1, int(ends[0]) + 3):
            changed = ids.clone()
            changed[0, place] = 10 + (ids[0, place] - 9) % 20
            other = task.logits(dataclasses.replace(batch, input_ids=changed))
            assert abs(other[0] - logits[0]).max() > 1e-7 and abs(other[1:] - logits[1:]).max() < 1e-5


@pytest.mark.parametrize("name", sorted(list_recipes("text_classification")))
def test_a_pre_trained_text_tower_fits_the_recipe_of_texts_alone(name: str) -> None:
    before, run = (load_run_config(name, task) for task in ("pretrain", "text_classification"))
    tower = {key: value for key, value in vars(before.model.text).items() if key != "init"}
    assert tower.items() <= vars(run.model.text).items()
    assert run.data.max_text_len <= run.model.text.longest


def test_padding_changes_nothing() -> None:
    run, task, data = setting("cola")
    batch = to_tensors(next(iter(data.eval_loader("val", run, batch_size=3))))
    longer = dataclasses.replace(
        batch,
        input_ids=paddle.nn.functional.pad(batch.input_ids, [0, 0, 0, 5], value=1),
        attention_mask=paddle.nn.functional.pad(batch.attention_mask, [0, 0, 0, 5], value=0),
    )
    np.testing.assert_allclose(task.logits(batch).numpy(), task.logits(longer).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("dataset", "names"),
    [
        ("sst2", {"accuracy", "majority"}),
        ("mnli", {"accuracy", "majority"}),
        ("cola", {"matthews", "accuracy", "majority"}),
        ("stsb", {"pearson", "spearman", "correlation"}),
        ("qqp", {"f1", "accuracy", "majority"}),
        ("mrpc", {"f1", "accuracy", "majority"}),
        ("qnli", {"accuracy", "majority"}),
        ("rte", {"accuracy", "majority"}),
        ("wnli", {"accuracy", "majority"}),
    ],
)
def test_metrics_of_each_data_set(dataset: str, names: set[str]) -> None:
    run, task, data = setting(dataset)
    records = []
    metrics = task.evaluate(data.eval_loader("val", run), lambda found: records.extend(found["records"]))
    assert set(metrics) == names and all(np.isfinite(value) for value in metrics.values())
    assert len(records) == 3 and set(records[0]) == {"sample_id", "score" if dataset == "stsb" else "label"}


def test_mnli_is_broken_down_and_samples_without_label_do_not_count() -> None:
    metric = GlueMetric("mnli")
    guesses = paddle.to_tensor([0, 1, 2, 2, 2, 2, 0])
    parts = ["matched", "matched", *["mismatched"] * 4, "matched"]
    batch = SimpleNamespace(labels=paddle.to_tensor([0, 2, 2, 2, 2, 1, -1]), scores=None, parts=parts)
    metric.update({"guesses": guesses}, batch)
    expected = {"accuracy/matched": 50.0, "accuracy/mismatched": 75.0, "accuracy/mean": 62.5}
    expected |= {"accuracy": 100 * 4 / 6, "majority": 100 * 4 / 6}
    assert metric.compute() == pytest.approx(expected)
    nothing = GlueMetric("stsb")
    unknown = SimpleNamespace(labels=None, scores=paddle.to_tensor([np.nan]), parts=[""])
    nothing.update({"guesses": paddle.to_tensor([1.0])}, unknown)
    assert nothing.compute() == {}


def test_server_files(tmp_path: Path) -> None:
    """Labels as GLUE spells them, scores inside 0 to 5 with three decimals, in the order of the indices."""
    spelled = {}
    for dataset in ("mnli", "qnli", "mrpc", "stsb"):
        run, task, data = setting(dataset)
        batch = next(iter(data.eval_loader("val", run, batch_size=3)))
        batch = to_tensors(dataclasses.replace(batch, question_ids=[2, 0, 1]))
        logits = [[9.0], [-1.0], [1.23456]] if dataset == "stsb" else np.eye(3)[:, : len(task.classes)]
        task.logits = lambda batch, logits=logits: paddle.to_tensor(np.array(logits, np.float32))
        path = tmp_path / f"{dataset}.tsv"
        task.write_records(path, task.predict(batch)["records"])
        head, *lines = path.read_text().splitlines()
        assert head == "index\tprediction" and [line.split("\t")[0] for line in lines] == ["0", "1", "2"]
        spelled[dataset] = [line.split("\t")[1] for line in lines]
    assert spelled == {
        "mnli": ["neutral", "entailment", "contradiction"],
        "qnli": ["not_entailment", "entailment", "entailment"],
        "mrpc": ["1", "0", "0"],
        "stsb": ["0.000", "1.235", "5.000"],
    }


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([None, None], "answers files of GLUE alone; write a .json"),
        ([0, 0], "2 samples have 1 indices, as those of two files have; give --split test_matched"),
        ([0, 2], "sample 1 has no answer, and GLUE's server wants all"),
        ([1, 2], "sample 0 has no answer"),
    ],
)
def test_server_files_that_the_server_would_refuse(
    tmp_path: Path, indices: list[int | None], message: str
) -> None:
    rows = [{"sample_id": "a"} | ({} if i is None else {"index": i, "prediction": "1"}) for i in indices]
    with pytest.raises(ConfigError, match=message):
        TextClassificationTask.write_records(tmp_path / "a.tsv", rows)
    assert not (tmp_path / "a.tsv").exists()


def test_a_model_that_needs_images_is_refused() -> None:
    with pytest.raises(CapabilityError, match="text_alone.*unimo2_tiny"):
        make_task(make_run("text_classification", **SEMVLP))


@pytest.mark.parametrize("changes", [{"model": MODEL}, UNIMO])
def test_one_separator_between_the_sentences_of_unimo_and_unimo2(changes: dict) -> None:
    """`[CLS] A [SEP] B [SEP]` in training, in evaluation and when a trained model is asked."""
    run = make_run("text_classification", **changes, task={"dataset": "mnli"})
    task, processor, opened = make_task(run)
    end = processor.tokenizer.eos_token_id
    for batch in (next(opened.train_loader(run)), next(iter(opened.eval_loader("val", run)))):
        assert ((batch.input_ids == end).sum(axis=1) == 2).all()
    task.eval()
    asked = []
    task.logits = lambda batch: asked.append(batch) or paddle.zeros([1, 3])
    task.ask(processor, [Question(text="a circle", text_pair="the square")], 1)
    names = processor.tokenizer.backend.get_vocab(with_added_tokens=True)
    words = ("<s>", "a", "circle", "</s>", "the", "square", "</s>")
    assert asked[0].input_ids.tolist() == [[names[word] for word in words]]


def test_the_layout_of_pairs_belongs_to_the_paper() -> None:
    models = ("unimo_base", "unimo2_base", "unimo3_base", "meter_base", "bridgetower_base")
    assert [registry.paper_of(model).pair_separators for model in models] == [1, 1, 2, 2, 2]
