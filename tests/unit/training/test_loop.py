from pathlib import Path

import numpy as np
import paddle
import pytest
from small_run import make_run, make_state, train

from unimo.training import callbacks
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


def test_accumulation_gives_the_update_of_the_whole_batch(tmp_path: Path) -> None:
    finals = []
    for micro in (0, 4, 2):
        run = make_run(tmp_path / str(micro), model={"dropout": 0.0}, train={"micro_batch_size": micro})
        state = train(run)
        finals.append({name: p.numpy() for name, p in state.task.named_parameters()})
    for other in finals[1:]:
        for name, value in finals[0].items():
            np.testing.assert_allclose(other[name], value, atol=2e-5, err_msg=name)


def test_seed_of_a_step_depends_on_seed_rank_and_step_alone() -> None:
    seeds = {step_seed(seed, rank, step) for seed in range(3) for rank in range(3) for step in range(100)}
    assert len(seeds) == 900
    assert step_seed(1, 2, 3) == step_seed(1, 2, 3)


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
