"""The micro-batch is the largest that fits, and a step that memory does not suffice for is repeated whole."""

from __future__ import annotations

import json
import logging
import resource
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gpu import MESSAGE, FakeGpu
from lack_case import Shrink
from micro import make_run as make_micro_run
from small_run import SmallTask, make_run, make_state, train

from unimo.config import read_yaml
from unimo.errors import TrainingError
from unimo.settings import TrainConfig, load_run_config
from unimo.training import callbacks, memory, micro_batch
from unimo.training import run as training
from unimo.training.loop import take_whole_step
from unimo.training.memory import MemoryForecast, forecast
from unimo.training.probe import is_lack_of_memory
from unimo.training.state import StepReport, TrainState
from unimo.weights.files import read_safetensors

GIB = 2**30


def losses(output: Path) -> list[float]:
    """The losses that a run logged."""
    rows = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if row["split"] == "train"]


def plain(output: Path, **changes: Any) -> Any:
    """A run without dropout that logs every step."""
    values = {"model": {"dropout": 0.0}, "train": {"log_every": 1, "save_every": 4}}
    return make_run(output, **{**values, **changes})


class Watch(callbacks.Callback):
    """Keeps the samples of every step."""

    def __init__(self) -> None:
        self.samples: list[list[str]] = []

    def on_step_end(self, state: TrainState, report: StepReport) -> None:
        self.samples.append(report.sample_ids)


Expected = tuple[dict[str, Any], list[float], list[list[str]]]


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "contrast"])
def expected(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Expected:
    """Changes of a run, and its losses and samples with the whole batch at once."""
    changes, watch, output = {"task": {"contrast": request.param}}, Watch(), tmp_path_factory.mktemp("whole")
    train(plain(output, **changes), [watch])
    return changes, losses(output), watch.samples


@pytest.mark.parametrize(
    ("capacity", "raises", "in_backward"),
    [
        (8, MemoryError, False),
        (4, MemoryError, True),
        (3, RuntimeError, False),
        (2, RuntimeError, True),
        (1, MemoryError, False),
    ],
)
def test_trial_on_a_gpu_halves_until_it_fits(
    capacity: int,
    raises: type[Exception],
    in_backward: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = FakeGpu(monkeypatch, capacity, raises, in_backward)
    state = make_state(plain(tmp_path))
    choice = micro_batch.settle(state, forecast(state))
    fits = {8: 8, 4: 4, 3: 2, 2: 2, 1: 1}[capacity]
    assert (choice.micro_batch, choice.wanted) == (fits, 8)
    assert (state.run.train.micro_batch_size, state.loader.rounds) == (fits, 8 // fits)
    assert all(parameter.grad is None for parameter in state.task.parameters())
    assert gpu.tried
    state.loader.close()


@pytest.mark.parametrize("capacity", [8, 4, 2])
def test_losses_do_not_depend_on_what_fits(
    capacity: int,
    expected: Expected,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes, whole, _ = expected
    gpu = FakeGpu(monkeypatch, capacity)
    state = train(plain(tmp_path / "run", **changes))
    assert state.run.train.micro_batch_size == capacity
    assert set(gpu.tried[-12:]) == {capacity}
    np.testing.assert_allclose(losses(tmp_path / "run"), whole, rtol=1e-5)


@pytest.mark.parametrize("in_backward", [False, True])
@pytest.mark.parametrize("capacity", [4, 2])
def test_a_step_is_repeated_whole(
    capacity: int,
    in_backward: bool,
    expected: Expected,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    changes, whole, samples = expected
    gpu, watch = FakeGpu(monkeypatch, 100, in_backward=in_backward), Watch()
    state = train(plain(tmp_path / "run", **changes), [Shrink(gpu, 5, capacity), watch])
    assert state.run.train.micro_batch_size == capacity
    assert gpu.emptied
    np.testing.assert_allclose(losses(tmp_path / "run"), whole, rtol=1e-5)
    assert watch.samples == samples
    assert state.loader.counter.read.total() == 12 * 8
    assert "step 6 does not fit into memory with micro-batches of" in caplog.text
    saved = json.loads((tmp_path / "run/checkpoints/step_00000008/state.json").read_text())
    assert saved["config"]["train"]["micro_batch_size"] == capacity


def test_a_run_that_goes_on_keeps_its_size_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, which the size changes, and although all would fit now."""
    for name, steps in (("whole", (12,)), ("broken", (6, 12))):
        for number in steps:
            with monkeypatch.context() as patch:
                gpu = FakeGpu(patch, 4 if number == steps[0] else 100)
                run = make_run(
                    tmp_path / name,
                    model={"dropout": 0.3},
                    train={"log_every": 1, "save_every": 2, "max_steps": number},
                    optim={"schedule": "constant", "warmup": 0},
                )
                state = train(run)
                assert state.run.train.micro_batch_size == 4
                assert gpu.tried
        assert read_yaml(tmp_path / name / "config.yaml")["train"]["micro_batch_size"] == 4
    assert losses(tmp_path / "whole") == losses(tmp_path / "broken")
    one, other = (
        read_safetensors(tmp_path / name / "checkpoints/step_00000012/model.safetensors")
        for name in ("whole", "broken")
    )
    assert all((one[key] == other[key]).all() for key in one)


def test_a_run_without_a_checkpoint_keeps_its_size_too(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("train: {micro_batch_size: 2}\n")
    state = make_state(plain(tmp_path))
    assert micro_batch.settle(state, forecast(state)).micro_batch == 2
    (tmp_path / "config.yaml").write_text("train: {micro_batch_size: auto}\n")
    state = make_state(plain(tmp_path))
    assert micro_batch.settle(state, forecast(state)).micro_batch == 8


def test_a_size_that_a_person_chose_is_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeGpu(monkeypatch, 2)
    with pytest.raises(
        TrainingError,
        match=r"out of memory in step 1 with micro-batches of 4 on rank 0; try train.micro_batch_size=auto, "
        r"train.recompute=true, on a GPU train.precision=bf16 or a smaller",
    ):
        train(plain(tmp_path, train={"micro_batch_size": 4}))


def test_a_single_sample_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = make_state(plain(tmp_path))
    found = forecast(state)
    FakeGpu(monkeypatch, 0)
    with pytest.raises(TrainingError, match="with micro-batches of 1 on rank 0; try train.recompute=true"):
        micro_batch.settle(state, found)


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("not a number")

    monkeypatch.setattr(SmallTask, "losses", broken)
    with pytest.raises(ValueError, match="not a number"):
        train(plain(tmp_path, train={"micro_batch_size": 4}))


def test_a_lack_while_parameters_change_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = make_state(plain(tmp_path))
    micro_batch.settle(state, forecast(state))

    def lack(*_: Any) -> None:
        raise MemoryError(MESSAGE)

    monkeypatch.setattr(state.precision, "step", lack)
    with pytest.raises(TrainingError, match="out of memory in step 1"):
        take_whole_step(state, iter(state.loader))
    state.loader.close()


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (MemoryError(MESSAGE), True),
        (MemoryError("(ResourceExhausted) Fail to alloc memory of 2147483648 size, error code is 12."), True),
        (RuntimeError(MESSAGE), True),
        (SystemError("(Fatal) ResourceExhaustedError: Out of memory error on GPU 1."), True),
        (OSError("(External) CUDA error(2), out of memory."), True),
        (OSError("(External) CUBLAS error(3). CUBLAS_STATUS_ALLOC_FAILED"), True),
        (np.core._exceptions._ArrayMemoryError((1, 2), np.dtype("float64")), True),
        (RuntimeError("(PreconditionNotMet) shapes differ"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_that_say_that_memory_is_exhausted(error: Exception, lacks: bool) -> None:
    assert is_lack_of_memory(error) is lacks


MADE = MemoryForecast(
    **dict.fromkeys(
        ("process", "parameters", "gradients", "optimizer", "constant", "comparison", "evaluation"), 0
    ),
    **{"saving": 0, "sample": 0, "share": 8, "ahead": 4},
    activations=2 * GIB,
    micro_batch=2,
)


@pytest.mark.parametrize(("free", "fits"), [(100, 8), (9, 8), (8, 4), (3, 2), (0.1, 1)])
def test_forecast_decides_on_a_cpu(
    free: float, fits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample takes 1 GiB."""
    monkeypatch.setattr(memory, "available", lambda _: round(free * GIB))
    monkeypatch.setattr(memory, "process_memory", lambda _: 0)
    state = make_state(plain(tmp_path))
    choice = micro_batch.settle(state, MADE)
    assert choice.micro_batch == fits == state.run.train.micro_batch_size
    assert bool(choice.hints) == (fits < 8 or free < 1)


def test_evaluation_that_does_not_fit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes no micro-batch smaller."""
    monkeypatch.setattr(memory, "available", lambda _: 9 * GIB)
    monkeypatch.setattr(memory, "process_memory", lambda _: 0)
    choice = micro_batch.settle(make_state(plain(tmp_path)), replace(MADE, evaluation=20 * GIB))
    assert choice.micro_batch == 8
    assert (
        "evaluation and saving need 20.0 GiB, there are 8.1; try a smaller train.eval_batch_size"
        in choice.hints[0]
    )


def test_recompute_is_offered_where_it_would_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "process_memory", lambda _: 0)
    run = make_micro_run("pretrain", tmp_path)
    state = training.build(run, training.open_processor(run))
    needs = forecast(state)
    fewer = micro_batch.recomputed(state, needs)
    assert fewer.activations < needs.activations
    assert not any(getattr(layer, "recompute", False) for layer in state.task.sublayers())
    between = (needs.of_step(8) + fewer.of_step(8)) // 2
    monkeypatch.setattr(memory, "available", lambda _: round(between / 0.9))
    (hint,) = micro_batch.settle(state, needs).hints
    assert "with train.recompute=true 8 fit" in hint


@pytest.mark.parametrize(
    ("draws", "recipe", "free", "fits", "warns"),
    [
        (True, 4, 100, 4, False),  # more would fit
        (True, 4, 2.5, 2, True),
        (True, 0, 100, 8, False),
        (True, 0, 5, 4, True),
        (False, 4, 100, 8, False),
        (False, 4, 2.5, 2, False),
    ],
)
def test_draws_within_a_round_are_those_of_the_recipe(
    draws: bool,
    recipe: int,
    free: float,
    fits: int,
    warns: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(memory, "available", lambda _: round(free * GIB))
    monkeypatch.setattr(memory, "process_memory", lambda _: 0)
    monkeypatch.setattr(SmallTask, "draws_in_round", draws)
    state = make_state(plain(tmp_path, train={"negatives_batch_size": recipe}))
    with caplog.at_level(logging.WARNING):
        assert micro_batch.settle(state, MADE).micro_batch == fits
    assert ("results are not those of the recipe" in caplog.text) is warns


@pytest.mark.parametrize(
    ("recipe", "task", "words", "draws"),
    [
        ("unimo_tiny", "pretrain", [], True),
        ("unimo2_tiny", "pretrain", [], True),
        ("unimo3_tiny", "pretrain", [], True),
        ("unimo3_tiny", "pretrain", ["task.false_images=dataset"], False),
        (
            "unimo3_tiny",
            "pretrain",
            ["task.false_images=dataset", "model.objective.itm_negatives=hard"],
            True,
        ),
        ("vlmo_tiny", "pretrain", ["task.stage=language"], False),
        ("unimo3_tiny", "retrieval", [], True),
        ("unimo2_tiny", "retrieval", [], True),
        ("unimo3_tiny", "vqa", [], False),
        ("unimo2_tiny", "caption", [], False),
        ("unimo_tiny", "seq2seq", [], False),
    ],
)
def test_tasks_say_whether_they_draw_within_a_round(
    recipe: str, task: str, words: list[str], draws: bool, tmp_path: Path
) -> None:
    run = load_run_config(recipe, task, [f"output_dir={tmp_path}", "data.scenes.train_images=20", *words])
    processor = training.open_processor(run)
    state = training.build(training.resolve(run, processor), processor)
    assert state.task.draws_in_round is draws
    state.loader.close()


def test_sizes_cut_a_step_into_equal_rounds(tmp_path: Path) -> None:
    state = make_state(make_run(tmp_path, train={"batch_size": 12}))
    assert micro_batch.sizes(state, 12) == [12, 6, 4, 3, 2, 1]
    assert micro_batch.sizes(state, 5) == [4, 3, 2, 1]
    assert TrainConfig(batch_size=12).rounds(1) == 1


def test_what_the_machine_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = memory._free()
    assert free > 2**28
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _: unlimited)
    monkeypatch.setattr(memory, "_left_to_group", lambda: None)
    monkeypatch.setattr(memory, "_free", lambda: 8 * GIB)
    assert memory.available() == 8 * GIB
    monkeypatch.setenv("PADDLE_LOCAL_SIZE", "4")
    assert memory.available() == 2 * GIB
    monkeypatch.setattr(memory, "_left_to_group", lambda: 4 * GIB)
    assert memory.available() == 1 * GIB
    limit = memory.process_memory("VmSize") + 300 * memory.MB
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert memory.available(2) == pytest.approx(300 * memory.MB - 2 * memory._THREAD, abs=20 * memory.MB)


@pytest.mark.parametrize(
    ("folder", "names", "stat"),
    [
        ("", ("memory.max", "memory.current"), "inactive_file 100\nanon 3\n"),
        ("memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file 100\ncache 2\n"),
    ],
)
def test_what_a_control_group_leaves(
    folder: str, names: tuple[str, str], stat: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    lines = SimpleNamespace(read_text=lambda: f"{7 if folder else 0}:{folder}:/job/7\n3:cpuset:/\n")
    monkeypatch.setattr(memory, "_OWN_GROUPS", lines)
    assert memory._left_to_group() is None
    for path in (folder, f"{folder}/job/7".lstrip("/")):
        place = tmp_path / path
        place.mkdir(parents=True, exist_ok=True)
        for name, text in zip((*names, "memory.stat"), ("1000\n", "700\n", stat), strict=True):
            (place / name).write_text(text)
        assert memory._left_to_group() == 400
    (place / names[0]).write_text("max\n")
    (tmp_path / folder / names[0]).write_text("max\n")
    assert memory._left_to_group() is None
