"""The rounds of a step equal one batch: on one rank and on two, with dropout, resumed, in less memory."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
import rounds_case
from killed import DieAt, KilledError
from micro import TOWER, make_run
from micro_unimo2 import WITH_DROPOUT
from paddle_launch import run_ranks
from rounds_case import CASES, make_task, step_of

from unimo.losses.vectors import Vectors
from unimo.models import objective
from unimo.models.contrastive import OTHERS, Round, Spanned, one_round
from unimo.models.vlmo import pretrain as vlmo
from unimo.tasks.base import Task, to_tensors
from unimo.tasks.retrieval import task as retrieval
from unimo.training import rounds
from unimo.training import run as training
from unimo.training.loop import take_step
from unimo.training.optimizer import optimizer_tensors
from unimo.training.state import StepReport, TrainState
from unimo.weights.files import read_safetensors

JOINED, ROUNDS = [[0, 1, 2, 3]], [[0], [1], [2], [3]]
Result = tuple[dict[str, float], dict[str, np.ndarray]]


@pytest.fixture(autouse=True)
def next_pair_is_hard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hard negatives are drawn within a round; here they are those of the joined batch."""
    monkeypatch.setattr(objective, "draw_hard_images", rounds_case.draw_next)
    monkeypatch.setattr(retrieval, "hard_negatives", rounds_case.draw_next_row)
    monkeypatch.setattr(vlmo, "draw_both", rounds_case.draw_next_both)


def result(state: TrainState, report: StepReport) -> Result:
    """Losses and gradients of the first step."""
    found = optimizer_tensors(state.adamw, state.task)
    gradients = {name: value / 0.1 for name, value in found.items() if name.endswith("moment1")}
    return dict(zip(report.names, report.values.tolist(), strict=True)), gradients


def step(case: str, parts: list[list[int]], dropout: float = 0.0) -> Result:
    """Losses and gradients of a step whose rounds have the given parts."""
    return result(*step_of(make_task(case, dropout), [CASES[case][1](part) for part in parts]))


def assert_equal(found: Result, expected: Result) -> None:
    """Compare to 1e-5; the share of dictionary entries in use is one of each forward pass."""
    for name in expected[0].keys() - {"dictionary_use"}:
        assert found[0][name] == pytest.approx(expected[0][name], rel=1e-5, abs=1e-5), name
    assert found[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        np.testing.assert_allclose(found[1][name], value, atol=1e-5, rtol=0, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_rounds_equal_one_batch(case: str) -> None:
    """Four rounds of eight pairs with a picture in common, and other numbers of everything else."""
    expected = step(case, JOINED)
    assert_equal(step(case, ROUNDS), expected)
    # What the comparison itself learns: the temperature of ITC, the weights of UNIMO's score.
    name = {
        "unimo": "model.match_head.weight",
        "retrieval": "temperature",
        "vlmo": "objective.itc_log_scale",
        "vlmo_vision": "objective.masked_images.mask_embedding",  # it compares nothing
        "dual": "itc_log_scale",
        "semvlp": "objective.answer_head.out.weight",
    }
    gradient = expected[1][f"{name.get(case, 'objective.itc_temperature')}/moment1"]
    assert np.abs(gradient).max() > 0.01


GENERATION: dict[str, dict[str, Any]] = {
    "caption": {
        "model": {
            "name": "unimo2_tiny",
            "text": {**TOWER, "vocab_size": 300, "dropout": 0.0, "attention_dropout": 0.0},
            "vision": {**TOWER, "image_size": 32},
            "grounding": {"dictionary_size": 20, "num_tokens": 4},
            "fusion": {**TOWER, "dropout": 0.0, "attention_dropout": 0.0},
        },
    },
    "seq2seq": {
        "model": {
            "name": "unimo_tiny",
            "text": {**TOWER, "vocab_size": 300, "dropout": 0.0, "attention_dropout": 0.0},
        },
    },
}


@pytest.mark.parametrize("task", GENERATION)
def test_every_token_of_a_step_counts_the_same(task: str, tmp_path: Path) -> None:
    """Rounds of the same samples have other numbers of tokens."""
    results = []
    for size in (0, 2):
        train = {"batch_size": 8, "micro_batch_size": size}
        run = make_run(task, tmp_path, **GENERATION[task], train=train, optim={"clip_grad_norm": None})
        state = training.build(run, training.open_processor(run))
        batches = list(islice(state.loader, run.train.rounds(1)))
        state.loader.close()
        tokens = {state.task.counts(batch)[OTHERS] for batch in batches}
        assert len(tokens) > 1 or size == 0
        results.append(result(state, take_step(state, iter(batches))))
    assert_equal(results[1], results[0])


def test_a_part_may_be_absent_from_some_rounds() -> None:
    batches = [CASES["unimo2"][1](part) for part in ROUNDS]
    whole = CASES["unimo2"][1]([0, 1, 2, 3])
    for batch in batches[1:]:
        batch.images = batch.texts = None
    first = batches[0]
    whole.images, whole.texts = first.images, first.texts
    expected, found = (result(*step_of(make_task("unimo2"), chosen)) for chosen in ([whole], batches))
    assert_equal(found, expected)


@pytest.mark.parametrize(
    "case",
    [
        "unimo2",
        "unimo",
        "semvlp",
        *(pytest.param(case, marks=pytest.mark.slow) for case in ("unimo3", "retrieval", "vlmo_vision")),
    ],
)
def test_two_ranks_of_two_rounds_equal_one_batch(case: str, tmp_path: Path) -> None:
    assert run_ranks(2, tmp_path, [case, "2"], script="rounds_case.py") == 0, (
        tmp_path / "launcher.log"
    ).read_text()[-2000:]
    expected = step(case, JOINED)
    losses = json.loads((tmp_path / "loss.json").read_text())
    for name, value in losses.items():
        if name != "dictionary_use":
            assert value == pytest.approx(expected[0][name], rel=1e-5, abs=1e-5), name
    gradients = read_safetensors(tmp_path / "gradients-0.safetensors")
    assert gradients.keys() == expected[1].keys()
    for name, value in expected[1].items():
        np.testing.assert_allclose(gradients[name], value, atol=1e-5, rtol=0, err_msg=name)


def test_hard_negatives_of_two_ranks_are_those_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VLMo's draw: the rows for one seed, and what follows from them. Four captions are of one picture."""
    assert run_ranks(2, tmp_path, ["vlmo", "1", "drawn"], script="rounds_case.py") == 0, (
        tmp_path / "launcher.log"
    ).read_text()[-2000:]
    noted: list[dict[str, list[int]]] = []
    monkeypatch.setattr(vlmo, "draw_both", rounds_case.draw_and_note(noted))
    paddle.seed(rounds_case.SEED)
    expected = step("vlmo", JOINED)
    (joined,) = noted
    parts = [json.loads((tmp_path / f"drawn-{rank}.json").read_text()) for rank in (0, 1)]
    assert joined == {name: parts[0][name] + parts[1][name] for name in joined}
    group = np.array(joined["group"])
    for kind in ("images", "texts"):
        rows = np.array(joined[kind])
        assert (group[rows] != group).all()
        assert {0, 1} == set(rows[:16] // 16) == set(rows[16:] // 16)  # both ranks draw from both
    losses = json.loads((tmp_path / "loss.json").read_text())
    gradients = read_safetensors(tmp_path / "gradients-0.safetensors")
    assert_equal((losses, gradients), ({name: expected[0][name] for name in losses}, expected[1]))


@pytest.mark.parametrize("case", CASES)
def test_dropout_of_both_forward_passes_is_one(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, in every round, also where other losses draw before the vectors."""
    first: dict[str, list[np.ndarray]] = {}
    second: dict[str, list[np.ndarray]] = {}
    span, loss_of = rounds.span, Spanned.loss

    def remember(task: Task, found: list[dict[str, Vectors]]) -> Any:
        spanned = span(task, found)
        for vectors, losses in zip(found, spanned, strict=True):
            for name, part in vectors.items():
                first[name] = [*first.get(name, []), *(one.numpy() for one in part.learned())]
                names[id(losses[name])] = name
        return spanned

    def again(spanned: Spanned, vectors: Vectors) -> paddle.Tensor:
        name = names[id(spanned)]
        second[name] = [*second.get(name, []), *(one.numpy() for one in vectors.learned())]
        return loss_of(spanned, vectors)

    names: dict[int, str] = {}
    monkeypatch.setattr(rounds, "span", remember)
    monkeypatch.setattr(Spanned, "loss", again)
    step(case, ROUNDS, dropout=0.3)
    assert first.keys() == second.keys() == set(make_task(case).contrasts)
    for name, found in first.items():
        assert len(found) == len(second[name]) >= 4
        for one, other in zip(found, second[name], strict=True):
            np.testing.assert_array_equal(one, other)


def test_each_round_has_dropout_of_its_own() -> None:
    task, batch = make_task("retrieval", 0.3), to_tensors(CASES["retrieval"][1]([0]))
    found = []
    for seed in (1, 2, 1):
        with paddle.no_grad(), one_round(task, Round(seed)):
            found.append(task.vectors(batch)["itc"].text.numpy())
    np.testing.assert_array_equal(found[0], found[2])
    assert np.abs(found[0] - found[1]).max() > 0.1


def test_memory_is_that_of_one_round() -> None:
    stats = paddle.base.core
    peaks = {}
    for name, parts in (("one batch", JOINED), ("rounds", ROUNDS), ("one round", [[0]])):
        task = make_task("retrieval")
        batches = [CASES["retrieval"][1](part) for part in parts]
        before = stats.host_memory_stat_current_value("Allocated", 0)
        stats.host_memory_stat_reset_peak_value("Allocated", 0)
        step_of(task, batches)
        peaks[name] = stats.host_memory_stat_peak_value("Allocated", 0) - before
    assert peaks["rounds"] < 1.3 * peaks["one round"]
    assert peaks["rounds"] < 0.5 * peaks["one batch"]


RUNS: dict[str, dict[str, Any]] = {
    "semvlp": {
        "task": {"name": "pretrain"},
        "model": {"name": "semvlp_tiny", "text": {**TOWER, "vocab_size": 300, "dropout": 0.1}},
        "data": {"regions": "grid:2:2"},
    },
    "retrieval": {"model": {"text": {**TOWER, "vocab_size": 300, "dropout": 0.1}}},
    "pretrain": {
        "model": {**WITH_DROPOUT, "objective": {"itm_negatives": "hard"}},
        "data": {
            "texts": [{"path": "scenes", "weight": 0.25}],
            "images": [{"path": "scenes", "weight": 0.25}],
            "num_workers": 2,
        },
    },
}


@pytest.mark.parametrize("task", RUNS)
def test_broken_run_with_rounds_equals_unbroken_run(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # chance draws the hard negatives
    train = {"max_steps": 5, "batch_size": 16, "micro_batch_size": 4, "save_every": 2, "log_every": 1}
    build = training.build

    def dying(*opened: Any, **options: Any) -> TrainState:
        state = build(*opened, **options)
        state.callbacks.append(DieAt(4))
        return state

    logs = []
    for name in ("whole", "broken"):
        run = make_run(task, tmp_path / name, **RUNS[task], train=train)
        if name == "broken":
            with monkeypatch.context() as patch, pytest.raises(KilledError):
                patch.setattr(training, "build", dying)
                training.train(run)
        training.train(run)
        lines = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        logs.append(
            [
                {key: row.get(key) for key in ("step", "loss", "itc", "mlm", "vcl", "two_stream")}
                for row in lines
            ]
        )
    assert len(logs[0]) >= 5
    assert logs[0] == logs[1]
    if task == "semvlp":
        assert {row["two_stream"] for row in logs[0] if row["loss"] is not None} == {0.0, 100.0}
    path = Path("checkpoints/step_00000005/model.safetensors")
    assert (tmp_path / "whole" / path).read_bytes() == (tmp_path / "broken" / path).read_bytes()
