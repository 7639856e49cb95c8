"""A run ends early once its metric has not been better for `train.patience` evaluations."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import micro
import pytest
from small_run import SmallRun, make_run, train

from unimo.errors import ConfigError
from unimo.settings import TrainConfig
from unimo.training import callbacks, checkpoint
from unimo.training.run import train as train_run
from unimo.training.state import StepReport, TrainState
from unimo.training.summary import format_summary

# The best is that of step 6: an equal score is not better. Without patience the last one would be the best.
SCORES = {2: 0.5, 4: 0.4, 6: 0.6, 8: 0.6, 10: 0.55, 12: 0.1, 14: 0.2, 16: 0.9}


@pytest.fixture(autouse=True)
def scored(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(self: callbacks.Evaluate, state: TrainState, most: int | None) -> dict[str, float]:
        return {"accuracy": SCORES.get(state.step, 0.0)}

    monkeypatch.setattr(callbacks.Evaluate, "_measure", measure)
    monkeypatch.setattr("unimo.inference.saving.save_model", lambda *_: None)


def patient(folder: Path, patience: int = 3, **more: Any) -> SmallRun:
    selection = {"select_metric": "accuracy", "eval_every": 2, "max_steps": 16, "patience": patience}
    return make_run(folder, train={**selection, "save_every": 1, "keep_checkpoints": 99, **more})


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{key: row[key] for key in ("step", "split", "loss", "accuracy") if key in row} for row in lines]


@pytest.mark.parametrize(("patience", "last"), [(0, 16), (1, 4), (2, 10), (3, 12), (4, 14), (5, 16)])
def test_it_ends_after_so_many_evaluations_that_were_not_better(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, patience: int, last: int
) -> None:
    with caplog.at_level(logging.INFO, logger="unimo"):
        state = train(patient(tmp_path, patience))
    assert state.step == last and state.stop_reason == ""
    said = f"accuracy has not been better than 0.6 of step 6 in the last {patience} evaluations; the run ends"
    assert (said in caplog.text) == (patience in (2, 3, 4))
    assert checkpoint.read_step(checkpoint.find_last(tmp_path)) == last


@pytest.mark.parametrize("save_every", [1, 3, 0])
@pytest.mark.parametrize("at", [5, 8, 11])
def test_resumed_equals_unbroken(tmp_path: Path, at: int, save_every: int) -> None:
    """Killed between two evaluations, or after a checkpoint that was saved before one."""

    class Killed(callbacks.Callback):
        def on_step_end(self, state: TrainState, report: StepReport) -> None:
            if state.step == at + 1:
                raise KeyboardInterrupt

    whole = train(patient(tmp_path / "whole", save_every=save_every))
    with pytest.raises(KeyboardInterrupt):
        train(patient(tmp_path / "cut", save_every=save_every), [Killed()])
    cut = train(patient(tmp_path / "cut", save_every=save_every))
    assert (cut.step, cut.best, cut.no_better) == (12, {"accuracy": 0.6, "step": 6}, [8, 10, 12])
    assert (whole.step, whole.best, whole.no_better) == (cut.step, cut.best, cut.no_better)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    for ours, theirs in zip(whole.task.parameters(), cut.task.parameters(), strict=True):
        assert (ours.numpy() == theirs.numpy()).all()


@pytest.mark.parametrize("save_every", [1, 0])
def test_more_patience_goes_on_where_less_has_ended(tmp_path: Path, save_every: int) -> None:
    assert train(patient(tmp_path, 3, save_every=save_every)).step == 12
    assert train(patient(tmp_path, 3, save_every=save_every)).no_better == [8, 10, 12]
    longer = train(patient(tmp_path, 5, save_every=save_every))
    assert (longer.step, longer.best["step"], longer.no_better) == (16, 16, [])


def test_a_run_that_ended_early_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    changes = {"max_steps": 9, "eval_every": 1, "select_metric": "accuracy", "patience": 2}
    run = micro.make_run("entailment", tmp_path, train=changes, optim={"lr": 0.0})  # never better
    summary = train_run(run)
    assert (summary["step"], summary["stopped_by"], summary["ended_early"]) == (3, "", True)
    assert summary["best"]["step"] == 1 and summary["metrics"]
    text = format_summary(summary)
    assert "3 of 9 (3 now), ended early by train.patience" in text and "Next:\n" in text
    again = train_run(run)
    assert again["was_finished"] and "go on: the same command with a larger train.patience" in (
        format_summary(again)
    )
    longer = train_run(replace(run, train=replace(run.train, patience=3)))
    assert (longer["step"], longer["steps_now"], longer["ended_early"]) == (4, 1, True)


@pytest.mark.parametrize(("lacks", "given"), [("eval_every", {"select_metric": "x"}), ("select_metric", {})])
def test_patience_needs_evaluations_and_a_metric(lacks: str, given: dict[str, Any]) -> None:
    given |= {"eval_every": 3} if lacks == "select_metric" else {}
    with pytest.raises(ConfigError, match=f"train.patience=2 needs train.{lacks}; give it, or set it to 0"):
        TrainConfig(patience=2, **given)
