"""Fine-tuning recipes of UNIMO say what Tables 8 and 9 say, and elsewhere what the release has."""

from __future__ import annotations

import pytest

from unimo.config import to_plain
from unimo.settings import RunConfig, load_run_config
from unimo.training.optimizer import learning_rate

SIZES = ("base", "large")
# Samples of an epoch: captions and sentence pairs of Table 7; VQA questions with a known answer, no rest_val.
EPOCH = {"vqa": 640_191, "caption": 566_747, "entailment": 529_527, "retrieval": 145_000}
# Batch of base and large, epochs, warm-up, weight decay.
TABLE_8 = {
    "retrieval": ((64, 32), 40, 0.0, 0.01),
    "entailment": ((192, 64), 10, 0.06, 0.0),
    "vqa": ((256, 256), 12, 0.0, 0.01),
    "caption": ((64, 32), 10, 0.06, 0.01),
}
# Epoch -> rates of base and large; of the release's linear decay at the end of warm-up and half-way.
RATES = {
    "retrieval": {
        0: (5e-6, 5e-6),
        23.9: (5e-6, 5e-6),
        24: (5e-7, 5e-7),
        32: (5e-8, 5e-8),
        39.9: (5e-8, 5e-8),
    },
    "entailment": {0.6: (9.4e-6, 9.4e-6), 5: (5e-6, 5e-6)},
    "vqa": {0: (1e-4, 4e-5), 4.9: (1e-4, 4e-5), 5.1: (1e-5, 4e-6), 7.9: (1e-5, 4e-6), 8.1: (1e-6, 4e-7)},
    "caption": {0.6: (9.4e-6, 4.7e-6), 5: (5e-6, 2.5e-6)},
}
ADVERSARIAL = {"steps": 0, "lr": 0.05, "init_mag": 0.4, "max_norm": 0.4, "kl_weight": 1.0, "norm_type": "l2"}


def recipe(size: str, kind: str) -> RunConfig:
    return load_run_config(f"unimo_{size}", kind)


@pytest.mark.parametrize("which", range(2), ids=SIZES)
@pytest.mark.parametrize("kind", TABLE_8)
def test_table_8(kind: str, which: int) -> None:
    run = recipe(SIZES[which], kind)
    batches, epochs, warmup, decay = TABLE_8[kind]
    assert run.train.batch_size == batches[which]
    assert (run.optim.warmup, run.optim.weight_decay) == (warmup, decay)
    assert run.train.max_steps * batches[which] / EPOCH[kind] == pytest.approx(epochs, abs=0.001)
    passes = run.train.max_steps / run.train.eval_every  # every epoch, of retrieval every second
    assert passes == pytest.approx(20 if kind == "retrieval" else epochs, rel=1e-3)
    for epoch, rates in RATES[kind].items():
        step = round(epoch / epochs * run.train.max_steps)
        rate = learning_rate(step, run.train.max_steps, run.optim)
        assert rate == pytest.approx(rates[which], rel=2e-3), f"epoch {epoch}"


@pytest.mark.parametrize("size", SIZES)
def test_table_9_on_understanding(size: str) -> None:
    run = recipe(size, "text_classification")
    assert run.optim.lr in (1e-5, 2e-5, 3e-5) and run.train.batch_size in (16, 32)
    assert run.train.max_steps * run.train.batch_size / 67_349 == pytest.approx(10, abs=0.001)
    assert (run.optim.warmup, run.optim.schedule) == (0.06, "linear_unscaled") and run.data.regions == ""


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [*TABLE_8, "text_classification", "image_classification"])
def test_what_all_have_of_the_release(kind: str, size: str) -> None:
    run = recipe(size, kind)
    assert run.optim.lr_multipliers == {"cross_modal": 1.0, "heads": 1.0}
    betas = [0.9, 0.999] if kind == "entailment" else [0.9, 0.98]
    assert (run.optim.betas, run.optim.eps, run.optim.clip_grad_norm) == (betas, 1e-6, 1.0)
    assert run.data.max_regions == 100
    assert run.data.max_text_len == (50 if kind == "caption" else 512)


@pytest.mark.parametrize("size", SIZES)
def test_settings_of_the_release(size: str) -> None:
    entailment, retrieval = recipe(size, "entailment"), recipe(size, "retrieval").task
    assert entailment.model.pair_feature == "sum" and entailment.task.head == "linear"
    assert round(entailment.task.head_hidden_multiplier * entailment.model.hidden_size) == 2048
    assert (retrieval.loss, retrieval.negatives, retrieval.margin, retrieval.scale) == (
        "circle",
        20,
        0.2,
        1.0,
    )
    caption = recipe(size, "caption").task
    for task in (entailment.task, caption):
        assert to_plain(task.adversarial) == {**ADVERSARIAL, "projection": "release"}
    beam = (caption.beam.size, caption.beam.length_penalty, caption.beam.min_length, caption.beam.max_length)
    assert beam == (5, 0.6, 5, 50) and caption.label_smoothing == 0.1
    for kind in ("vqa", "retrieval", "caption"):
        assert recipe(size, kind).model.pair_feature == "product"


@pytest.mark.parametrize("kind", [*TABLE_8, "text_classification", "image_classification"])
def test_tiny_recipes_run_on_scenes(kind: str) -> None:
    run = recipe("tiny", kind)
    assert run.data.regions == ("" if kind == "text_classification" else "grid:2:16")
    assert run.model.name == "unimo_tiny" and run.data.path[0].path == "scenes"
    if kind == "entailment":
        assert run.model.pair_feature == "sum"
