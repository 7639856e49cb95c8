"""Recipes of text generation say what Table 9 of the UNIMO paper says, and run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from micro import TOWER, Tool, words

from unimo.config import CONFIG_ROOT
from unimo.settings import RunConfig, load_run_config

# Training samples; batch, epochs, (rate of base, of large), beam, (length penalties), trigram blocking.
TABLE_9 = {
    "": (287_113, 32, 20, (4e-5, 2e-5), 6, (0.6, 1.2), True),
    "_gigaword": (3_803_957, 128, 10, (3e-5, 3e-5), 6, (0.6, 1.2), False),
    "_squad_qg": (75_722, 32, 20, (1.25e-5, 5e-6), 6, (1.0, 1.2), False),
    "_coqa": (108_647, 32, 20, (1e-5, 8e-6), 3, (0.0, 0.0), False),
}
# The released code: longest source column, target and generated text, shortest generated text.
LENGTHS = {
    "": (512, 128, 128, 20),
    "_gigaword": (128, 32, 32, 5),
    "_squad_qg": (416, 96, 48, 5),
    "_coqa": (480, 32, 30, 0),
}
METRICS = {"": "rouge_lsum", "_gigaword": "rouge_l", "_squad_qg": "bleu_4", "_coqa": "f1"}


def recipe(size: str, data: str) -> RunConfig:
    return load_run_config(f"unimo_{size}{data}", "seq2seq")


@pytest.mark.parametrize("size", ["base", "large"])
@pytest.mark.parametrize("data", TABLE_9)
def test_table_9(data: str, size: str) -> None:
    run, which = recipe(size, data), ("base", "large").index(size)
    samples, batch, epochs, rates, beam, penalties, blocks = TABLE_9[data]
    assert run.train.batch_size == batch
    assert run.train.max_steps * batch / samples == pytest.approx(epochs, abs=0.001)
    assert run.train.eval_every * epochs == pytest.approx(run.train.max_steps, rel=0.001)
    assert (run.optim.lr, run.optim.warmup, run.optim.schedule) == (rates[which], 0.06, "linear_unscaled")
    found = run.task.beam
    assert (found.size, found.length_penalty, found.block_trigrams) == (beam, penalties[which], blocks)
    assert run.optim.lr_multipliers == {"cross_modal": 1.0, "heads": 1.0}
    assert (run.optim.betas, run.optim.eps, run.optim.weight_decay) == ([0.9, 0.98], 1e-6, 0.01)


@pytest.mark.parametrize("data", LENGTHS)
def test_lengths_of_the_release(data: str) -> None:
    run = recipe("base", data)
    beam, task = run.task.beam, run.task
    assert (run.data.max_text_len, task.max_target_len, beam.max_length, beam.min_length) == LENGTHS[data]
    assert (task.label_smoothing, task.end_token, beam.renormalise) == (0.1, "sep", True)


def test_only_coqa_has_roles_and_turns() -> None:
    for data in TABLE_9:
        run = recipe("base", data)
        sizes = (3, 16) if data == "_coqa" else (0, 0)
        assert (run.model.role_types, run.model.turn_types) == sizes
        assert run.task.dialog == (data == "_coqa")


@pytest.mark.parametrize("data", TABLE_9)
def test_recipes_run_in_small(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str) -> None:
    monkeypatch.chdir(tmp_path)
    small = {
        "model": {"text": {**TOWER, "max_position": 514}},
        "data": {"num_workers": 0, "scenes": {"train_images": 8, "val_images": 2}},
        "train": {"max_steps": 2, "batch_size": 4, "micro_batch_size": 2, "device": "cpu", "log_every": 1},
        "task": {"beam": {"max_length": 22, "size": 2}},
    }
    recipe = f"{CONFIG_ROOT}/unimo/seq2seq.yaml:base{data}"
    # METEOR's Java program takes longer than all the rest.
    quick = ["task.metrics=[bleu,coco_rouge_l]"] * (data == "_squad_qg")
    options = ("--init", "none", *words(small), *quick, "train.eval_every=1", "output_dir=out")
    code, _, err = tool("finetune", "--task", "seq2seq", "--model", recipe, *options)
    assert code == 0, err
    scores = json.loads(Path("out/best/metrics.json").read_text())
    assert METRICS[data] in scores
