"""NLVR2: two passes in every family, what swapping does, and scores as the official ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from micro import TOWER, VALUES, make_run, make_task, saved
from micro_unimo import UNIMO
from micro_unimo2 import MODEL
from PIL import Image
from small_models import set_parameters
from small_vlmo import small_config

from unimo.config import to_plain
from unimo.errors import ConfigError
from unimo.inference import loading
from unimo.inference.evaluation import evaluate, write_predictions
from unimo.inference.pipeline import Pipeline, draw_answers
from unimo.settings import load_run_config
from unimo.tasks.base import to_tensors
from unimo.tasks.nlvr2 import Nlvr2Batch, Nlvr2Scores, Nlvr2Task, sentence_key

TWO_TYPES = {**VALUES["model"]["vision"], "types": 2}
VLMO = to_plain(small_config(text={"vocab_size": 300, "max_position": 20}, vision={"types": 2}))
FAMILIES: dict[str, dict[str, Any]] = {
    "unimo": UNIMO,
    "unimo2": {"model": MODEL},
    "unimo3": {"model": {"vision": TWO_TYPES}},
    "meter": {"model": {**VALUES["model"], "name": "meter_tiny", "vision": {**TWO_TYPES, "num_layers": 3}}},
    "bridgetower": {"model": {**VALUES["model"], "name": "bridgetower_tiny", "vision": TWO_TYPES}},
    "vlmo": {"model": VLMO},
}
WITH_TYPES = ("unimo3", "meter", "bridgetower", "vlmo")


def made(family: str, seed: int = 0, **changes: Any) -> tuple[Nlvr2Task, Any, Any, Any]:
    run = make_run("nlvr2", **FAMILIES[family], **changes)
    return *make_task(run, seed), run


def first_batch(data: Any, run: Any) -> Nlvr2Batch:
    return to_tensors(next(iter(data.eval_loader("val", run))))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns(family: str) -> None:
    task, _, data, run = made(family)
    set_parameters(task.model)
    task.eval()
    loader = data.train_loader(run)
    batch = to_tensors(next(loader))
    loader.close()
    assert task.logits(batch).shape == [8, 2]
    loss, values = task(batch)
    assert set(values) == {"nlvr2", "accuracy"}
    loss.backward()
    idle = [n for n, p in task.named_parameters() if not p.stop_gradient and p.grad is None]
    assert idle == []
    adam = paddle.optimizer.Adam(1e-2, parameters=task.parameters())
    for _ in range(6):
        adam.step()
        adam.clear_grad()
        later, _ = task(batch)
        later.backward()
    assert later.item() < loss.item()


def test_the_text_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    task, _, data, run = made("unimo3")
    encode, calls = task.model.encode_text, []
    monkeypatch.setattr(task.model, "encode_text", lambda *inputs: calls.append(1) or encode(*inputs))
    task.logits(first_batch(data, run))
    assert len(calls) == 1


@pytest.mark.parametrize("side", ["images", "second_images"])
@pytest.mark.parametrize("family", ["unimo3", "unimo"])
def test_one_picture_alone_gives_chance(family: str, side: str) -> None:
    """Whatever the weights are: on `scenes`, half of the labels of what is then the same input are true."""
    task, _, data, run = made(family)
    batches = []
    for batch in data.eval_loader("val", run):
        hidden = getattr(batch, side)
        if isinstance(hidden, dict):
            hidden = {**hidden, "features": 0 * hidden["features"]}
        else:
            hidden = 0 * hidden
        batches.append(dataclasses.replace(batch, **{side: hidden}))
    assert task.evaluate(batches)["accuracy"] == 50.0


def swapped(batch: Nlvr2Batch) -> Nlvr2Batch:
    return dataclasses.replace(batch, images=batch.second_images, second_images=batch.images)


def swap_head(task: Nlvr2Task) -> None:
    """Exchange what the classifier makes of the first and of the second vector."""
    weight = task.classifier.dense.weight
    half = weight.shape[0] // 2
    weight.set_value(paddle.concat([weight[half:], weight[:half]]))


@pytest.mark.parametrize("family", FAMILIES)
def test_swapping_pictures_swaps_their_vectors_while_types_are_equal(family: str) -> None:
    """The head reads them in order, so the answer changes; with its halves exchanged, too, it does not."""
    task, _, data, run = made(family)
    task.eval()
    task.classifier.dense.weight.set_value(paddle.randn(task.classifier.dense.weight.shape))
    batch = first_batch(data, run)
    before, after = task.logits(batch).numpy(), task.logits(swapped(batch)).numpy()
    assert np.abs(before - after).max() > 1e-4
    swap_head(task)
    np.testing.assert_allclose(task.logits(swapped(batch)), before, atol=1e-5)


@pytest.mark.parametrize("family", WITH_TYPES)
def test_swapping_is_no_symmetry_once_types_differ(family: str) -> None:
    task, _, data, run = made(family)
    task.eval()
    table = task.model.type_embedding.weight
    np.testing.assert_array_equal(table[2], table[1])
    set_parameters(task.model)
    task.classifier.dense.weight.set_value(paddle.randn(task.classifier.dense.weight.shape))
    batch = first_batch(data, run)
    before = task.logits(batch).numpy()
    swap_head(task)
    assert np.abs(task.logits(swapped(batch)).numpy() - before).max() > 1e-3


@pytest.mark.parametrize("family", ["unimo3", "vlmo"])
def test_weights_with_two_types_load_into_three(family: str, tmp_path: Path) -> None:
    model = FAMILIES[family]["model"]
    model = {**model, "vision": {**model["vision"], "types": 1}}
    directory = saved("pretrain", tmp_path, 5, model=model)
    task, *_ = made(family)
    fresh = loading.start_from(task, directory)
    assert set(fresh) == {name for name, _ in task.named_parameters() if name.startswith("classifier.")}
    stored, _ = loading.load(directory)
    rows, table = stored.type_embedding.weight.numpy(), task.model.type_embedding.weight.numpy()
    assert rows.shape[0] == 2
    np.testing.assert_array_equal(table, rows[[0, 1, 1]])


@pytest.mark.parametrize("family", WITH_TYPES)
def test_one_type_of_images_is_refused(family: str) -> None:
    model = FAMILIES[family]["model"]
    run = make_run("nlvr2", model={**model, "vision": {**model["vision"], "types": 1}})
    with pytest.raises(ConfigError, match="model.vision.types=2"):
        make_task(run)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vlmo_base", (384, 5e-5, 1.0, 1.0, 0.01, 0.1, 128, 6748, 2.0, 0.0)),
        ("vlmo_base_plus", (384, 3e-5, 1.0, 1.0, 0.01, 0.1, 128, 6748, 2.0, 0.0)),
        ("vlmo_large", (384, 3e-5, 1.0, 1.0, 0.01, 0.1, 128, 6748, 2.0, 0.0)),
        ("meter_base", (288, 1e-5, 10.0, 5.0, 0.01, 0.1, 256, 3374, 2.0, 0.0)),
        ("bridgetower_base", (384, 5e-6, 10.0, 5.0, 0.008, 0.1, 64, 13496, 3.0, 0.1)),
    ],
)
def test_recipes_are_those_of_the_releases(name: str, expected: tuple[float, ...]) -> None:
    run = load_run_config(name, "nlvr2")
    groups = run.optim.lr_multipliers
    assert expected == (
        run.data.image_size,
        run.optim.lr,
        groups["heads"],
        groups["cross_modal"],
        run.optim.weight_decay,
        run.optim.warmup,
        run.train.batch_size,
        run.train.max_steps,
        run.task.head_hidden_multiplier,
        run.task.head_dropout,
    )
    assert run.model.vision.types == 2
    if name.startswith("vlmo"):
        rates = {"vlmo_base": 0.1, "vlmo_base_plus": 0.2, "vlmo_large": 0.15}
        assert run.model.transformer.drop_path == rates[name]


def test_head_sizes() -> None:
    """METER 4H -> 2H, BridgeTower 4H -> 3H, VLMo 2D -> 2D."""
    width = TOWER["hidden_size"]
    for family, factor, sizes in (("meter", 2, (4, 2)), ("bridgetower", 3, (4, 3)), ("vlmo", 2, (2, 2))):
        task, *_ = made(family, task={"head_hidden_multiplier": factor})
        assert task.classifier.dense.weight.shape == [size * width for size in sizes]
        assert task.classifier.out.weight.shape[1] == 2


def scored(rows: list[tuple[str, str, int, int]]) -> dict[str, float]:
    """Scores of rows of identifier, sentence, label and guess, in two batches."""
    metric = Nlvr2Scores()
    for part in (rows[:3], rows[3:]):
        names, texts, labels, guesses = zip(*part, strict=True)
        batch = Nlvr2Batch(
            sample_ids=list(names), images=None, second_images=None, input_ids=None, attention_mask=None,
            image_group=None, labels=paddle.to_tensor(labels), identifiers=list(names), sentences=list(texts),
        )  # fmt: skip
        metric.update({"guesses": paddle.to_tensor(guesses)}, batch)
    return metric.compute()


def test_consistency_is_the_share_of_sentences_without_an_error() -> None:
    rows = [
        ("dev-1-0-0", "a", 1, 1), ("dev-1-1-0", "a", 0, 0),  # right for all pairs
        ("dev-1-0-1", "b", 1, 1), ("dev-1-2-1", "b", 0, 1),  # wrong for one, in another batch
        ("dev-2-0-0", "a", 1, 0),  # the words of the first, about another set
        ("test1-1-0-0", "a", 1, 1),
    ]  # fmt: skip
    assert scored(rows) == {"accuracy": pytest.approx(100 * 4 / 6), "consistency": 50.0}
    official: dict[str, bool] = {}
    for name, _, label, guess in rows:
        split, group, _, sentence = name.split("-")
        key = f"{split}-{group}-{sentence}"
        official[key] = official.get(key, True) and label == guess
    assert scored(rows)["consistency"] == 100 * sum(official.values()) / len(official)


def test_samples_without_official_names_are_grouped_by_their_words() -> None:
    assert sentence_key("mine:3#0", "a") == sentence_key(17, "a") == ("", "a")
    assert sentence_key("dev-850-0-1", "a") == sentence_key("dev-850-3-1", "a") != sentence_key(1, "a")


def test_evaluation_writes_the_official_file(tmp_path: Path) -> None:
    directory = saved("nlvr2", tmp_path, **FAMILIES["unimo3"])
    result = evaluate(directory, "val")
    assert result.samples == 12 and set(result.metrics) == {"accuracy", "consistency"}
    write_predictions(tmp_path / "found.csv", result)
    lines = [line.split(",") for line in (tmp_path / "found.csv").read_text().splitlines()]
    assert [name for name, _ in lines] == [f"val-{i}-{j}-0" for i in range(3) for j in range(4)]
    assert {guess for _, guess in lines} <= {"True", "False"}


@pytest.mark.parametrize("family", ["unimo", "vlmo"])
def test_pipeline(tmp_path: Path, family: str) -> None:
    pipeline = Pipeline(saved("nlvr2", tmp_path, **FAMILIES[family]))
    pictures = [Image.new("RGB", (20, 10), color) for color in ("red", "blue")]
    answers = pipeline.ask(pictures, "there is a red circle in one of the two .")
    assert {answer.text for answer in answers} == {"True", "False"}
    assert sum(answer.probability for answer in answers) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(ConfigError, match="two pictures, not 1; give --image LEFT --image RIGHT"):
        pipeline.ask(pictures[0], "there is a red circle .")
    drawn, one = draw_answers(pictures, {"q": answers}), draw_answers(pictures[0], {"q": answers})
    assert drawn.width - one.width == 2 * 384 + 16 and drawn.height == one.height


def test_two_pictures_are_refused_by_tasks_of_one(tmp_path: Path) -> None:
    pipeline = Pipeline(saved("entailment", tmp_path))
    picture = Image.new("RGB", (20, 10))
    with pytest.raises(ConfigError, match="looks at a picture, not 2; give --image FILE"):
        pipeline.ask((picture, picture), "there is a red circle .")
