import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn
from small_run import make_run, make_state, train

from unimo.training import callbacks, loop
from unimo.training.optimizer import optimizer_tensors
from unimo.training.state import MetricWindow, StepReport, TrainState, step_seed


def test_learns(tmp_path: Path) -> None:
    window: list[float] = []

    class Watch(callbacks.Callback):
        def on_log(self, state: TrainState, values: dict[str, float]) -> None:
            window.append(values["loss"])

    run = make_run(
        tmp_path, train={"max_steps": 150, "log_every": 30, "save_every": 0}, model={"dropout": 0.0}
    )
    train(run, [Watch()])
    assert window[-1] < 0.2 * window[0]


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("contrast", [False, True])
def test_accumulation_gives_the_update_of_the_whole_batch(
    tmp_path: Path, contrast: bool, clip: float | None
) -> None:
    """Also the gradients before Adam, which hides their scale, and their norm, which clipping sees."""
    results = []
    for micro in (0, 4, 2, 1):
        changes = {"task": {"contrast": contrast}, "optim": {"clip_grad_norm": clip}}
        output = tmp_path / str(micro)
        run = make_run(output, model={"dropout": 0.0}, train={"micro_batch_size": micro}, **changes)
        state = make_state(run)
        report = loop.take_step(state, iter(state.loader))
        state.loader.close()
        values = dict(zip(report.names, report.values.tolist(), strict=True))
        moments = optimizer_tensors(state.adamw, state.task)
        state = train(run)
        results.append((values, moments, {name: p.numpy() for name, p in state.task.named_parameters()}))
    for values, moments, weights in results[1:]:
        assert values == pytest.approx(results[0][0], rel=1e-5)
        assert clip is None or values["grad_norm"] > 2 * clip
        for name, value in results[0][1].items():
            np.testing.assert_allclose(moments[name], value, rtol=1e-3, atol=1e-7, err_msg=name)
        for name, value in results[0][2].items():
            np.testing.assert_allclose(weights[name], value, atol=2e-5, err_msg=name)


def test_seed_of_a_step_depends_on_seed_rank_and_step_alone() -> None:
    seeds = {step_seed(seed, rank, step) for seed in range(3) for rank in range(3) for step in range(100)}
    assert len(seeds) == 900
    assert step_seed(1, 2, 3) == step_seed(1, 2, 3)


@pytest.mark.parametrize("contrast", [False, True])
def test_chance_of_steps_ranks_and_rounds(
    contrast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every forward pass of a run drops units of its own, except that passes of one round are alike."""
    changes = {"task": {"contrast": contrast}, "model": {"dropout": 0.5}, "train": {"micro_batch_size": 4}}

    def dropped(rank: int, first: int = 0, seed: int = 42) -> list[bytes]:
        """The units that each dropout of two steps hides."""
        state = make_state(make_run(tmp_path, seed=seed, **changes))
        state.step, found, batches = first, [], iter(state.loader)
        layer = state.task.model.dropout
        layer.register_forward_post_hook(lambda _, __, output: found.append((output == 0).numpy().tobytes()))
        with monkeypatch.context() as patch:
            patch.setattr(loop.distributed, "rank", lambda: rank)
            for _ in range(2):
                loop.take_step(state, batches)
                state.step += 1
        state.loader.close()
        return found

    runs = [dropped(0), dropped(1), dropped(0, first=2), dropped(0, seed=43)]
    # A round has one pass for its error, and two for its views, with two dropouts each, which are the same.
    passes = 2 * 2 * (3 if contrast else 1)
    assert [len(set(found)) for found in runs] == [passes] * 4
    assert len({mask for found in runs for mask in found}) == 4 * passes
    assert all(set(Counter(found).values()) == ({1, 2} if contrast else {1}) for found in runs)
    assert dropped(0) == runs[0]
    assert dropped(0, first=1)[: len(runs[0]) // 2] == runs[0][len(runs[0]) // 2 :]


def test_what_is_one_for_a_whole_step_is_drawn_from_the_run_and_the_step_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a step, whatever the rank and the number of rounds."""

    def drawn(rank: int = 0, first: int = 0, seed: int = 42, micro: int = 0) -> list[int]:
        state = make_state(make_run(tmp_path, seed=seed, train={"micro_batch_size": micro}))
        state.step, found = first, []
        monkeypatch.setattr(state.task, "begin_step", found.append)
        batches = iter(state.loader)
        with monkeypatch.context() as patch:
            patch.setattr(loop.distributed, "rank", lambda: rank)
            for _ in range(3):
                loop.take_step(state, batches)
                state.step += 1
        state.loader.close()
        return found

    seeds = drawn()
    assert len(set(seeds)) == 3
    assert drawn(rank=1) == drawn(micro=4) == seeds
    assert drawn(first=2)[0] == seeds[2]
    assert not {*drawn(seed=43), step_seed(42, 0, 0)} & {*seeds}


class FakeParallel(nn.Layer):
    """Stands for Paddle's DataParallel, and counts what it is asked not to do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.held = nn.Linear(2, 2), 0

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        self.held += 1
        yield


@pytest.mark.parametrize(
    ("is_parallel", "is_last", "recompute", "held", "averaged"),
    [
        (True, True, False, 0, 0),
        (True, False, False, 1, 0),
        (True, True, True, 1, 2),
        (True, False, True, 1, 2),
        (False, False, True, 0, 0),
        (False, True, False, 0, 0),
    ],
)
def test_gradients_are_averaged_once_a_step(
    is_parallel: bool,
    is_last: bool,
    recompute: bool,
    held: int,
    averaged: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By DataParallel in the last round, or with recomputation by the loop, after it."""
    seen: list[paddle.Tensor] = []
    monkeypatch.setattr(loop, "fused_allreduce_gradients", lambda found, _: seen.extend(found))
    layer = FakeParallel()
    if is_parallel:
        monkeypatch.setattr(paddle, "DataParallel", FakeParallel)
    with loop.backward_pass(layer, is_last, recompute):
        pass
    loop.average_gradients(layer, recompute)
    assert (layer.held, len(seen)) == (held, averaged)


def report(step: int, **values: float) -> StepReport:
    tensor = paddle.to_tensor(list(values.values()), dtype="float32")
    return StepReport(step, tuple(values), tensor, [], 0.0, 0.0)


def test_window_means_survive_a_state_round_trip() -> None:
    window = MetricWindow()
    window.add(report(1, loss=1.0, extra=5.0))
    window.add(report(2, loss=2.0))
    assert [item.step for item in window.read()] == [1, 2]
    other = MetricWindow()
    other.load_state_dict(window.state_dict())
    other.add(report(3, loss=6.0))
    other.read()
    assert other.take_means() == {"loss": 3.0, "extra": 5.0}
    assert other.take_means() == {}


def test_an_error_reaches_every_callback(tmp_path: Path) -> None:
    seen: list[str] = []

    class Recorder(callbacks.Callback):
        def on_step_end(self, state: TrainState, report: StepReport) -> None:
            if state.step == 2:
                raise ValueError("no")

        def on_exception(self, state: TrainState, error: BaseException) -> None:
            seen.append(str(error))

    with pytest.raises(ValueError, match="no"):
        train(make_run(tmp_path), [Recorder()])
    assert seen == ["no"]


def test_max_minutes_saves_and_stops_early(tmp_path: Path) -> None:
    state = train(make_run(tmp_path, train={"max_steps": 10**6, "max_minutes": 0.005, "save_every": 0}))
    assert state.stop_reason == "max_minutes"
    assert (tmp_path / f"checkpoints/step_{state.step:08d}/state.json").exists()


def test_reports_are_not_kept(tmp_path: Path) -> None:
    state = make_state(make_run(tmp_path))
    train(state.run)
    assert state.window.read() == []
