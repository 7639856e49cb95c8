"""Training is saved before it is evaluated: whatever happens to an evaluation costs no step."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import micro
import pytest
from small_run import SmallData, SmallTask, make_run, make_state
from small_run import train as train_small

from unimo.data.loading.loader import RecordCounter
from unimo.data.scenes.dataset import ScenesDataset
from unimo.errors import CheckpointError, ConfigError, DataError, RecordError
from unimo.inference.evaluation import evaluate
from unimo.tasks.vqa import VqaTask
from unimo.training import callbacks, checkpoint, loop
from unimo.training.run import train
from unimo.training.state import TrainState
from unimo.training.stopping import StoppedError, until_stopped
from unimo.training.summary import format_summary


class Batches(list):
    """Batches of an evaluation, with something that happens before one of them."""

    def __init__(self, count: int, at: int = -1, what: Callable[[], None] = lambda: None) -> None:
        super().__init__(range(count))
        self.at, self.what, self.passes = at, what, 0
        self.world_size, self.counter = 1, RecordCounter(0.01)

    def __iter__(self) -> Iterator[int]:
        self.passes += 1
        for number in range(len(self)):
            if number == self.at:
                self.what()
            yield number


def read_all(self: SmallTask, batches: Any, observe: Any = None, watch: Any = iter) -> dict[str, float]:
    """Metrics of the small task: how many batches there were, and a number of the model."""
    count = len(list(watch(batches)))
    return {"batches": float(count), "weight_sum": float(self.head.weight.sum().item())}


def set_up(monkeypatch: pytest.MonkeyPatch, batches: Batches) -> None:
    monkeypatch.setattr(SmallData, "eval_loader", lambda *_, **__: batches)
    monkeypatch.setattr(SmallTask, "evaluate", read_all)


def rows(output: Path, split: str) -> list[dict[str, Any]]:
    lines = (output / "metrics.jsonl").read_text().splitlines()
    names = ("step", "loss", "batches", "weight_sum")
    found = [row for row in map(json.loads, lines) if row["split"] == split]
    return [{name: row[name] for name in names if name in row} for row in found]


def fail() -> None:
    raise DataError("a broken picture")


@pytest.mark.parametrize("every", [0, 3, 5])
def test_what_fails_in_an_evaluation_costs_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    options = {"eval_every": every}
    set_up(monkeypatch, Batches(4))
    train_small(make_run(tmp_path / "whole", train=options))
    broken = Batches(4, 2, fail)
    set_up(monkeypatch, broken)
    run = make_run(tmp_path / "broken", train=options)
    for _ in range(2):
        with pytest.raises(DataError, match="a broken picture"):
            train_small(run)
        assert checkpoint.find_last(tmp_path / "broken").name == f"step_{every or 12:08d}"
    assert broken.passes == 2  # the second time nothing was trained before
    set_up(monkeypatch, Batches(4))
    train_small(run)
    for split in ("train", "val"):
        assert rows(tmp_path / "broken", split) == rows(tmp_path / "whole", split)
    assert rows(tmp_path / "whole", "val")[-1]["batches"] == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("every", [0, 5])
def test_a_signal_during_an_evaluation_ends_it_and_the_next_start_makes_up_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, every: int
) -> None:
    options = {"eval_every": every}
    set_up(monkeypatch, Batches(4))
    train_small(make_run(tmp_path / "whole", train=options))
    killed = Batches(4, 2, lambda: os.kill(os.getpid(), number))
    set_up(monkeypatch, killed)
    run = make_run(tmp_path / "broken", train=options)
    before = signal.getsignal(number)
    state = train_small(run)
    assert (state.step, state.stop_reason, killed.passes) == (every or 12, number.name, 1)
    assert signal.getsignal(number) == before and not rows(tmp_path / "broken", "val")
    assert checkpoint.find_last(tmp_path / "broken").name == f"step_{every or 12:08d}"
    set_up(monkeypatch, Batches(4))
    train_small(run)
    for split in ("train", "val"):
        assert rows(tmp_path / "broken", split) == rows(tmp_path / "whole", split)


def test_an_evaluation_asks_before_every_batch(tmp_path: Path) -> None:
    state = make_state(make_run(tmp_path))
    seen = []
    with pytest.raises(StoppedError):
        for batch in until_stopped(state, range(9)):
            seen.append(batch)
            if batch == 3:
                state.stop_wanted = "SIGTERM"
    assert seen == [0, 1, 2, 3] and state.stop_reason == "SIGTERM"
    state = make_state(make_run(tmp_path))
    state.stop_wanted = "max_minutes"  # the time of training, which an evaluation at its end may exceed
    assert list(until_stopped(state, range(3))) == [0, 1, 2]


def test_the_best_model_is_the_same_whether_or_not_a_run_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unimo.inference.saving.save_model", lambda *_: None)
    options = {"eval_every": 2, "select_metric": "weight_sum"}
    set_up(monkeypatch, Batches(2))
    whole = train_small(make_run(tmp_path / "whole", train=options))
    for number in range(1, 7):  # stopped in each evaluation in turn, and then let through
        set_up(monkeypatch, Batches(2, 1, lambda: os.kill(os.getpid(), signal.SIGTERM)))
        state = train_small(make_run(tmp_path / "broken", train=options))
        assert state.step == 2 * number
        set_up(monkeypatch, Batches(2))
        state = train_small(make_run(tmp_path / "broken", train=options), [StopAt(state.step)])
    state = train_small(make_run(tmp_path / "broken", train=options))
    assert state.best == whole.best and rows(tmp_path / "broken", "val") == rows(tmp_path / "whole", "val")


class StopAt(callbacks.Callback):
    """Ends the run as soon as it has gone on one step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_logged(self, state: TrainState) -> None:
        if state.step == self.step + 1:
            state.stop_reason, state.stop_wanted = "SIGTERM", "SIGTERM"


@pytest.mark.parametrize("name", ["batchs", "overall", "Weight_sum"])
def test_an_unknown_metric_is_told_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    set_up(monkeypatch, Batches(3))
    with pytest.raises(ConfigError, match=f"select_metric='{name}' is not computed here"):
        train_small(make_run(tmp_path, train={"select_metric": name}))
    assert not (tmp_path / "checkpoints").exists() and not (tmp_path / "metrics.jsonl").exists()


def test_a_metric_that_only_some_batches_have_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unimo.inference.saving.save_model", lambda *_: None)
    set_up(monkeypatch, batches := Batches(3))
    rare = lambda self, found, **_: {"rare": 1.0} if len(list(found)) == 3 else {"other": 1.0}  # noqa: E731
    monkeypatch.setattr(SmallTask, "evaluate", rare)
    assert train_small(make_run(tmp_path, train={"select_metric": "rare"})).best == {"rare": 1.0, "step": 12}
    assert batches.passes == 3  # one batch, all of them, and the final evaluation


@pytest.mark.parametrize(
    ("task", "metric"), [("pretrain", "mlm_los"), ("vqa", "overal"), ("retrieval", "r1")]
)
def test_a_misspelt_metric_of_real_tasks_trains_nothing(tmp_path: Path, task: str, metric: str) -> None:
    run = micro.make_run(task, tmp_path, train={"select_metric": metric})
    with pytest.raises(ConfigError, match=f"select_metric='{metric}' is not computed here; nearest|known"):
        train(run)
    assert not (tmp_path / "checkpoints").exists()


def test_a_finished_training_is_kept_and_evaluated_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = micro.make_run("vqa", tmp_path, train={"max_steps": 1})
    predict = VqaTask.predict

    def stopped(self: VqaTask, batch: Any) -> dict[str, Any]:
        if signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:  # not while the plan is made
            os.kill(os.getpid(), signal.SIGTERM)
        return predict(self, batch)

    monkeypatch.setattr(VqaTask, "predict", stopped)
    summary = train(micro.make_run("vqa", tmp_path, train={"max_steps": 1, "eval_batch_size": 1}))
    assert (summary["step"], summary["stopped_by"], summary["metrics"]) == (1, "SIGTERM", {})
    assert "Trained and saved, but not evaluated" in format_summary(summary)
    assert (tmp_path / "model/model.safetensors").is_file()
    monkeypatch.undo()
    summary = train(run)
    assert summary["steps_now"] == 0 and summary["metrics"] and summary["stopped_by"] == ""


@pytest.fixture
def spoilt(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[int]], None]:
    """Breaks records of the held-out scenes by number."""
    original = ScenesDataset.__getitem__

    def spoil(numbers: set[int]) -> None:
        def read(self: ScenesDataset, index: int) -> Any:
            if self.split == "val" and index in numbers:
                raise RecordError(f"picture {index} is broken")
            return original(self, index)

        monkeypatch.setattr(ScenesDataset, "__getitem__", read)

    return spoil


@pytest.mark.parametrize("task", ["pretrain", "vqa", "retrieval"])
def test_a_broken_held_out_record_is_left_out_as_in_training(
    tmp_path: Path, spoilt: Any, caplog: pytest.LogCaptureFixture, task: str
) -> None:
    spoilt({1})
    summary = train(micro.make_run(task, tmp_path, train={"max_steps": 1}))
    assert summary["metrics"] and "picture 1 is broken" in caplog.text
    count = 18 if task == "vqa" else 12
    assert f"1 of {count} records of scenes were broken and left out" in caplog.text
    assert evaluate(tmp_path).samples == count - 1
    spoilt(set(range(count)))
    (tmp_path / "summary.json").unlink()  # as if it had been killed during this evaluation
    with pytest.raises(DataError, match="broken|no pairs"):
        train(micro.make_run(task, tmp_path, train={"max_steps": 1}))
    with pytest.raises(DataError, match="broken|no pairs"):
        evaluate(tmp_path)
    assert checkpoint.find_last(tmp_path).name == "step_00000001"


def test_the_start_is_chosen_under_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = micro.make_run("vqa", tmp_path, train={"max_steps": 1})
    (tmp_path / "config.yaml").write_text("model: [")  # would be an error, were it read
    (tmp_path / "metrics.jsonl").write_text("of the other process")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with loop.only_run_in(tmp_path), pytest.raises(CheckpointError, match="another process is training"):
        train(run)
    (tmp_path / ".lock").unlink()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("how", [shutil.rmtree, lambda path: path.rename(path.with_name("elsewhere"))])
def test_an_output_folder_that_goes_away_is_an_error(tmp_path: Path, how: Callable[[Path], Any]) -> None:
    class Remove(callbacks.Callback):
        def on_step_logged(self, state: TrainState) -> None:
            if state.step == 6:
                how(tmp_path / "run")

    with pytest.raises(CheckpointError, match="run was removed or moved during the run"):
        train_small(make_run(tmp_path / "run"), [Remove()])
