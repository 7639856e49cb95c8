"""Text generation with a micro UNIMO: loss, what targets see, search, dialogs, files, and where it starts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest
from micro import TOWER, make_run, make_task, saved

from unimo.errors import CapabilityError, ConfigError
from unimo.inference.evaluation import evaluate, write_predictions
from unimo.inference.loading import start_from
from unimo.metrics.generation import Written
from unimo.nn.beam_search import BeamConfig
from unimo.tasks.base import to_tensors
from unimo.tasks.seq2seq.task import Seq2SeqMetric

MODEL = {
    "name": "unimo_tiny",
    "text": {**TOWER, "vocab_size": 300, "max_position": 80},
    "regions": {"feature_size": 16},
}
DIALOG = {**MODEL, "role_types": 3, "turn_types": 16}
TASK = {"max_target_len": 30, "beam": {"size": 2, "min_length": 0, "max_length": 12}}
DATA = {"max_text_len": 60}


def run_of(task: dict[str, Any] | None = None, **changes: Any):
    return make_run("seq2seq", **{"model": MODEL, "data": DATA, "task": {**TASK, **(task or {})}, **changes})


def make(task: dict[str, Any] | None = None, **changes: Any):
    run = run_of(task, **changes)
    return run, *make_task(run)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def test_loss_is_smoothed_cross_entropy_of_the_next_token() -> None:
    run, task, _, data = make()
    task.eval()
    batch = to_tensors(next(data.train_loader(run)))
    states = task.model.decode(task.encode(batch), batch.input_ids, batch.attention_mask)
    logits = task.lm_head(states.flatten(0, 1)).numpy().astype(np.float64)[batch.target_positions.numpy()]
    logs, labels = log_softmax(logits), batch.target_labels.numpy()
    expected = -(0.9 * logs[np.arange(len(labels)), labels] + 0.1 * logs.mean(axis=1)).mean()
    losses, report = task.losses(batch)
    assert task.total(losses).item() == pytest.approx(expected, rel=1e-5)
    accuracy = 100 * (logits.argmax(axis=1) == labels).mean()
    assert report["accuracy"].item() == pytest.approx(accuracy, abs=1e-3)


@pytest.mark.parametrize("dialog", [False, True])
def test_every_parameter_that_is_not_frozen_learns(dialog: bool) -> None:
    run, task, _, data = make({"dialog": dialog}, model=DIALOG if dialog else MODEL)
    loss, _ = task(to_tensors(next(data.train_loader(run))))
    loss.backward()
    learning = {name for name, parameter in task.named_parameters() if not parameter.stop_gradient}
    assert learning == {name for name, parameter in task.named_parameters() if parameter.grad is not None}
    parts = {name.split(".")[1] for name in learning if name.startswith("model.")}
    assert parts == {"transformer"} | ({"roles", "turns"} if dialog else set())


def test_targets_see_the_source_and_nothing_that_comes_later() -> None:
    run, task, _, data = make()
    task.eval()
    batch = to_tensors(next(data.train_loader(run)))
    seen: list[paddle.Tensor] = []
    embed = task.model.transformer.embeddings.at

    def remember(*arguments: Any) -> paddle.Tensor:
        states = embed(*arguments)
        states.stop_gradient = False
        states.retain_grads()
        seen.append(states)
        return states

    task.model.transformer.embeddings.at = remember
    states = task.model.decode(task.encode(batch), batch.input_ids, batch.attention_mask)
    (states[0, 2] * paddle.arange(16.0)).sum().backward()  # a plain sum is constant behind a LayerNorm
    source, target = (part.grad.numpy()[0] for part in seen)
    length = int(batch.source_mask[0].sum())
    # Paddle's softmax on CPU cuts logits at -64 below the largest, so that what is hidden weighs 1e-28.
    assert np.abs(source[:length]).max(axis=1).min() > 1e-3 and np.abs(source[length:]).max(initial=0) < 1e-24
    assert np.abs(target[:3]).max(axis=1).min() > 1e-3 and np.abs(target[3:]).max() < 1e-24


def test_padding_of_sources_changes_nothing() -> None:
    run, task, processor, data = make()
    task.eval()
    batch = to_tensors(next(iter(data.eval_loader("val", run, batch_size=3))))
    together = task.generate(batch, processor.tokenizer, BeamConfig(3, 0.6, 0, 12))
    assert len({int(row.sum()) for row in batch.source_mask}) > 1
    for row, hypotheses in enumerate(together):
        length = int(batch.source_mask[row].sum())
        keys = ("source_ids", "source_mask", "source_positions")
        alone = task.generate(
            dataclasses.replace(batch, **{key: getattr(batch, key)[row : row + 1, :length] for key in keys}),
            processor.tokenizer,
            BeamConfig(3, 0.6, 0, 12),
        )[0]
        assert [h.tokens for h in alone] == [h.tokens for h in hypotheses]
        np.testing.assert_allclose([h.score for h in alone], [h.score for h in hypotheses], rtol=1e-4)


@pytest.mark.parametrize(("end_token", "dialog"), [("sep", False), ("mask", False), ("sep", True)])
def test_scores_of_hypotheses_are_those_of_teacher_forcing(end_token: str, dialog: bool) -> None:
    run, task, processor, data = make(
        {"end_token": end_token, "dialog": dialog}, model=DIALOG if dialog else MODEL
    )
    task.eval()
    batch = to_tensors(next(iter(data.eval_loader("val", run, batch_size=1))))
    tokenizer = processor.tokenizer
    end = tokenizer.mask_token_id if end_token == "mask" else tokenizer.eos_token_id
    # A beam that is as wide as the vocabulary holds the texts that end at once.
    found = task.generate(batch, tokenizer, BeamConfig(90, 0.6, 0, 4))[0]
    assert any(one.is_finished for one in found)
    for hypothesis in found:
        ids = [tokenizer.bos_token_id, *hypothesis.tokens]
        targets = [*hypothesis.tokens, end] if hypothesis.is_finished else ids[1:]
        inputs = paddle.to_tensor([ids[: len(targets)]])
        states = task.model.decode(task.encode(batch), inputs, paddle.ones_like(inputs))
        logs = log_softmax(task.lm_head(states[0]).numpy().astype(np.float64))
        total = logs[np.arange(len(targets)), targets].sum()
        assert hypothesis.log_probability == pytest.approx(total, abs=1e-4)
        assert not set(hypothesis.tokens) & tokenizer.special_ids


def test_what_is_learned_by_heart_is_said_again() -> None:
    run, task, processor, data = make({"end_token": "mask"})
    collator, rng = data.collator(True), np.random.default_rng(0)
    dataset = data.train_datasets()["scenes"]
    batch = to_tensors(collator.collate([collator.prepare(dataset[row], rng) for row in range(3)], rng))
    adam = paddle.optimizer.Adam(1e-2, parameters=task.parameters())
    for _ in range(150):
        loss, _ = task(batch)
        loss.backward()
        adam.step()
        adam.clear_grad()
    task.eval()
    beams = task.generate(batch, processor.tokenizer, BeamConfig(3, 0.6, 0, 20))
    said = [processor.tokenizer.decode(beam[0].tokens) for beam in beams]
    assert said == [processor.tokenizer.decode(row) for row in batch.input_ids.tolist()]
    assert all(beam[0].is_finished for beam in beams)


def test_roles_and_turns_are_read() -> None:
    run, task, _, data = make({"dialog": True}, model=DIALOG)
    task.eval()
    batch = to_tensors(next(data.train_loader(run)))
    loss = task(batch)[0].item()
    for key in ("source_roles", "source_turns"):
        other = task(dataclasses.replace(batch, **{key: paddle.zeros_like(getattr(batch, key))}))[0].item()
        assert abs(other - loss) > 1e-6, key


def test_evaluation_and_its_files(tmp_path: Path) -> None:
    directory = saved("seq2seq", tmp_path, model=MODEL, data=DATA, task=TASK)
    result = evaluate(directory, "val", "seq2seq")
    assert result.samples == 3
    assert set(result.metrics) == {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "coco_rouge_l", "exact"}
    rows = json.loads(write_predictions(tmp_path / "out.json", result).read_text())
    assert [row["sample_id"] for row in rows] == ["val-0", "val-1", "val-2"]
    lines = write_predictions(tmp_path / "out.txt", result).read_text()
    assert lines == "".join(f"{row['text']}\n" for row in rows) and lines.count("\n") == 3


def test_dialogs_make_the_result_file_of_coqa(tmp_path: Path) -> None:
    story = {
        "id": "s1",
        "source": "cnn",
        "story": "a red circle",
        "questions": [{"input_text": f"what is {turn} ?", "turn_id": turn} for turn in (1, 2)],
        "answers": [{"input_text": "red", "turn_id": turn} for turn in (1, 2)],
    }
    (tmp_path / "coqa-dev-v1.0.json").write_text(json.dumps({"data": [story]}))
    task = {**TASK, "dialog": True, "metrics": ["coqa"]}
    directory = saved("seq2seq", tmp_path, model=DIALOG, data=DATA, task=task)
    result = evaluate(directory, "val", overrides=[f"data.path={tmp_path}"])
    rows = json.loads(write_predictions(tmp_path / "predictions.json", result).read_text())
    assert [(row["id"], row["turn_id"], set(row)) for row in rows] == [
        ("s1", turn, {"id", "turn_id", "answer"}) for turn in (1, 2)
    ]
    assert set(result.metrics) == {"f1", "exact_match", "f1/news"}
    assert len(write_predictions(tmp_path / "lines.txt", result).read_text().splitlines()) == 2


def update(metric: Seq2SeqMetric, *rows: tuple[str, str, str]) -> dict[str, float]:
    sources, texts, references = zip(*rows, strict=True)
    batch = SimpleNamespace(
        sources=sources, references=[(text,) for text in references], parts=[""] * len(rows)
    )
    metric.update({"texts": texts}, batch)
    return metric.compute()


def test_equal_sources_share_references_where_wanted() -> None:
    rows = [("passage", "who ?", "who ?"), ("passage", "who ?", "when ?"), ("other", "where ?", "why ?")]
    each = Seq2SeqMetric(run_of({"metrics": ["exact"]}).task)
    assert update(each, *rows) == {"exact": pytest.approx(100 / 3)}
    pooled = Seq2SeqMetric(run_of({"metrics": ["exact"], "pool_references": True}).task)
    assert update(pooled, *rows) == {"exact": 50.0}
    assert Written("x", ("y",)).part == ""


def test_a_dialog_starts_from_a_model_without_roles(tmp_path: Path) -> None:
    directory = saved("seq2seq", tmp_path, seed=5, model=MODEL, data=DATA, task=TASK)
    source = make_task(run_of(), seed=5)[0]
    _, task, _, _ = make({"dialog": True}, model=DIALOG)
    roles = task.model.roles.weight.numpy()
    assert start_from(task, directory) == []
    np.testing.assert_array_equal(task.model.roles.weight.numpy(), roles)
    for name in ("model.transformer.embeddings.word.weight", "lm_head.decoder.weight"):
        np.testing.assert_array_equal(task.state_dict()[name].numpy(), source.state_dict()[name].numpy())


def test_models_and_settings_that_cannot_generate() -> None:
    with pytest.raises(CapabilityError, match="'seq2seq' needs text_generation.*unimo_tiny"):
        make_task(make_run("seq2seq", data={"max_text_len": 20}))
    with pytest.raises(ConfigError, match=r"beam.max_length 90: unimo_tiny has text positions for 78"):
        make({"beam": {"max_length": 90}})
    with pytest.raises(ConfigError, match=r"max_target_len 79: unimo_tiny has text positions for 78"):
        make({"max_target_len": 79})
    with pytest.raises(ConfigError, match=r"max_text_len 79: unimo_tiny has text positions for 78"):
        make(data={"max_text_len": 79})
    with pytest.raises(ConfigError, match=r"0 roles and 0 turns; set model.role_types=3 model.turn_types=16"):
        make({"dialog": True})
    with pytest.raises(ConfigError, match="max_target_len 1: expected 2 or more"):
        make({"max_target_len": 1})
    with pytest.raises(ConfigError, match="'rogue' is not one of rouge"):
        make({"metrics": ["rogue"]})
