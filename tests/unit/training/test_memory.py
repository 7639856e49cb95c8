"""Memory that a process holds, and that a run will hold."""

from __future__ import annotations

import mmap
import random
from pathlib import Path

import numpy as np
import paddle
import pytest
from small_run import make_run, make_state

from unimo import distributed
from unimo.settings import load_run_config
from unimo.training import micro_batch, probe
from unimo.training import run as training
from unimo.training.loop import take_step
from unimo.training.memory import MemoryForecast, forecast, memory, process_memory
from unimo.training.state import TrainState

SIZES = {"process": 0, "parameters": 10, "gradients": 10, "optimizer": 20, "comparison": 0}
MADE = MemoryForecast(
    **SIZES, activations=60, micro_batch=2, constant=20, evaluation=5, saving=20, sample=1, share=8, ahead=4
)


def built(tmp_path: Path, name: str, task: str = "pretrain", *words: str) -> TrainState:
    run = load_run_config(name, task, [f"output_dir={tmp_path}", "train.device=cpu", *words])
    processor = training.open_processor(run)
    return training.build(training.resolve(run, processor), processor)


def test_memory_counts_what_is_allocated() -> None:
    before, _ = memory()
    # Not from the heap, which may have that much that an earlier test freed.
    with mmap.mmap(-1, 64 << 20) as block:
        block[::4096] = b"x" * (64 << 8)
        assert memory()[0] - before == pytest.approx(64, abs=8)
    assert process_memory("VmRSS") <= process_memory("VmHWM") < process_memory("VmSize")


def test_peak_by_micro_batch() -> None:
    assert [MADE.activations_of(size) for size in (1, 2, 4, 8)] == [40, 60, 100, 180]
    # Of 8 samples all wait, and those read ahead: 9 of 1, or 5 of 2, 4 and 8.
    assert [MADE.batches(size) for size in (1, 2, 4, 8)] == [8 + 9, 8 + 10, 8 + 20, 8 + 40]
    assert [MADE.at(size) for size in (1, 2, 4, 8)] == [
        40 + 17 + 40,
        40 + 18 + 60,
        40 + 28 + 100,
        40 + 48 + 180,
    ]


def test_loss_over_all_rounds_counts_where_there_are_several() -> None:
    made = MemoryForecast(**{**vars(MADE), "comparison": 1000})
    assert made.at(4) == 40 + 28 + 1000
    assert made.at(8) == MADE.at(8)


@pytest.mark.parametrize(("stage", "parts"), [(0, (1, 1, 1)), (1, (1, 1, 4)), (2, (1, 4, 4)), (3, (4, 4, 4))])
def test_ranks_divide_what_a_stage_shards(
    stage: int, parts: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    state = make_state(run)
    whole = forecast(state)
    object.__setattr__(run.train, "sharding_stage", stage)
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    monkeypatch.setattr(probe, "measure", lambda _: probe.Probe(8, 2, 0, 0, 0, 4))
    found = forecast(state)
    for part, owners in zip(("parameters", "gradients", "optimizer"), parts, strict=True):
        assert getattr(found, part) == getattr(whole, part) // owners
    assert found.share == 2
    state.loader.close()


def test_frozen_parameters_have_neither_gradients_nor_moments(tmp_path: Path) -> None:
    state = make_state(make_run(tmp_path))
    before = forecast(state)
    for parameter in state.task.model.tower.parameters():
        parameter.stop_gradient = True
    frozen = 4 * sum(parameter.size for parameter in state.task.model.tower.parameters())
    after = forecast(state)
    assert after.parameters == before.parameters == 4 * sum(p.size for p in state.task.parameters())
    assert before.gradients == before.parameters
    assert before.optimizer == 2 * before.parameters
    assert (before.gradients - after.gradients, before.optimizer - after.optimizer) == (frozen, 2 * frozen)


@pytest.mark.parametrize("task", ["pretrain", "vqa", "retrieval", "entailment"])
def test_activations_are_those_of_a_step(task: str, tmp_path: Path) -> None:
    """The forecast for the whole batch is what its passes allocate."""
    state = built(tmp_path, "unimo3_tiny", task, "train.batch_size=16", "data.scenes.train_images=40")
    found = forecast(state)
    batch = next(state.loader)
    state.loader.close()
    with probe.no_trace(state):
        peak = probe.peak_of(lambda: probe.run_pass(state, batch))
    assert found.activations_of(16) == pytest.approx(peak, rel=0.25)


def test_recompute_needs_less(tmp_path: Path) -> None:
    plain = forecast(built(tmp_path, "unimo3_tiny"))
    less = forecast(built(tmp_path, "unimo3_tiny", "pretrain", "train.recompute=true"))
    assert less.activations < 0.8 * plain.activations
    assert less.parameters == plain.parameters


@pytest.mark.parametrize("name", ["unimo_tiny", "unimo2_tiny", "unimo3_tiny"])
def test_probe_leaves_no_trace(name: str, tmp_path: Path) -> None:
    state = built(tmp_path, name, "pretrain", "data.scenes.train_images=40", "train.batch_size=16")
    before = {key: value.numpy().copy() for key, value in state.task.state_dict().items()}
    position = state.loader.sampler.state_dict()
    paddle.seed(7)
    chance = paddle.rand([4]).tolist()
    paddle.seed(7)
    others = random.getstate(), np.random.get_state()[1].tolist()
    held = probe.allocated()
    forecast(state)
    assert paddle.rand([4]).tolist() == chance
    assert (random.getstate(), np.random.get_state()[1].tolist()) == others
    assert state.loader.sampler.state_dict() == position
    assert state.loader.counter.state_dict() == {"read": {}, "bad": {}}
    for key, value in state.task.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key], err_msg=key)
    assert all(parameter.grad is None for parameter in state.task.parameters())
    assert not state.adamw._accumulators
    assert probe.allocated() - held < 2**16
    assert state.task.round is None


def test_losses_after_a_forecast_are_those_without(tmp_path: Path) -> None:
    losses = []
    for ask in (False, True):
        state = built(
            tmp_path, "unimo3_tiny", "pretrain", "data.scenes.train_images=40", "train.batch_size=8"
        )
        if ask:
            forecast(state)
        batches = iter(state.loader)
        for _ in range(2):
            losses.append(take_step(state, batches).values.tolist())
            state.step += 1
        state.loader.close()
    assert losses[:2] == losses[2:]


def test_contrast_over_rounds_is_forecast(tmp_path: Path) -> None:
    found = forecast(make_state(make_run(tmp_path, task={"contrast": True}, train={"batch_size": 256})))
    assert found.comparison > 256 * 256 * 4
    assert forecast(make_state(make_run(tmp_path))).comparison == 0


def test_no_forecast_where_the_first_samples_are_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = make_state(make_run(tmp_path))
    monkeypatch.setattr(probe, "read_batch", lambda *_: (None, []))
    assert forecast(state) is None
    assert micro_batch.settle(state, None).micro_batch == 8
