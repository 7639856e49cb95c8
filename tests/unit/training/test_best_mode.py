"""`task.mode=best`: both modes are trained, and the one with the better development score is kept."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from micro import make_run
from micro_semvlp import SEMVLP

from unimo import cli
from unimo.config import merge_plain
from unimo.errors import CheckpointError
from unimo.inference.loading import read_model_config
from unimo.run_series import load_modes
from unimo.settings import RunConfig
from unimo.training import callbacks, modes
from unimo.training.command import carry_out
from unimo.training.state import StepReport, TrainState

MODES = ("single", "two")


def runs_in(folder: Path, metric: str) -> list[RunConfig]:
    changes = merge_plain(SEMVLP, {"train": {"select_metric": metric}})
    return [
        make_run("vqa", folder / mode, **merge_plain(changes, {"task": {"mode": mode}})) for mode in MODES
    ]


@pytest.mark.parametrize(
    ("metric", "scores", "kept"),
    [
        ("overall", (61.0, 62.0), "two"),
        ("overall", (62.0, 61.0), "single"),
        ("loss", (0.5, 0.4), "two"),
        ("overall", (61.0, 61.0), "single"),
    ],
)
def test_the_better_score_is_kept(
    metric: str, scores: tuple[float, float], kept: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "unimo")
    runs, summaries = runs_in(tmp_path, metric), []
    for run, score in zip(runs, scores, strict=True):
        for name in ("model", "best"):
            (folder := Path(run.output_dir) / name).mkdir(parents=True)
            (folder / "whose").write_text(run.model.mode)
        # The last model has another score, which does not choose.
        found = {
            "best": {metric: score},
            "metrics": {metric: -score},
            "split": "val",
            "model": run.model.mode,
        }
        summaries.append(found | {"model": run.model.mode})
    for _ in range(2):  # done again it is the same
        summary = modes.keep_best(runs, summaries)
        assert (summary["mode"], summary["model"]) == (kept, kept)
        assert summary["modes"] == dict(zip(MODES, scores, strict=True))
        assert [(tmp_path / name / "whose").read_text() for name in ("model", "best")] == [kept, kept]
    assert f"kept {kept}" in caplog.text and f"--model {tmp_path}/model" in summary["next"]
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


def train_both(folder: Path, steps: int = 1) -> int:
    """Carry out the command, and return its exit code."""
    values: dict[str, Any] = merge_plain(
        SEMVLP,
        {
            "task": {"name": "vqa", "mode": "best"},
            "train": {"max_steps": steps, "batch_size": 4, "select_metric": "overall", "device": "cpu"},
            "data": {"scenes": {"train_images": 4, "val_images": 2}, "num_workers": 0},
            "optim": {"warmup": 0},
            "output_dir": str(folder),
        },
    )
    return carry_out(*load_modes(values), dry_run=False, plan=False)


def test_both_are_trained_and_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_both(tmp_path) == 0
    kept = read_model_config(tmp_path)["model"]["mode"]
    assert f"{kept}, the best by overall: single" in capsys.readouterr().out
    written = [(tmp_path / mode / "summary.json").stat().st_mtime_ns for mode in MODES]
    assert train_both(tmp_path) == 0 and "This run was finished before" in capsys.readouterr().out
    assert written == [(tmp_path / mode / "summary.json").stat().st_mtime_ns for mode in MODES]
    for mode in MODES:
        assert yaml.safe_load((tmp_path / mode / "model/config.yaml").read_text())["model"]["mode"] == mode


def test_stopped_within_and_between_the_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal after every step: the last of a mode comes before its evaluation, so between the two."""
    assert train_both(tmp_path / "whole", 2) == 0
    seen: list[tuple[str, int]] = []
    inner = callbacks.NonFiniteGuard.on_step_end

    def on_step_end(guard: Any, state: TrainState, report: StepReport) -> None:
        inner(guard, state, report)
        seen.append((state.run.model.mode, state.step))
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(callbacks.NonFiniteGuard, "on_step_end", on_step_end)
    codes = [train_both(tmp_path / "broken", 2) for _ in range(5)]
    assert codes == [cli.STOPPED] * 4 + [0]
    assert seen == [(mode, step) for mode in MODES for step in (1, 2)]
    for name in ("single/model", "two/model", "model", "best"):
        weights = [(tmp_path / run / name / "model.safetensors").read_bytes() for run in ("whole", "broken")]
        assert weights[0] == weights[1], name
    whole, broken = (json.loads((tmp_path / run / "summary.json").read_text()) for run in ("whole", "broken"))
    for key in ("mode", "modes", "metrics", "best", "step", "stopped_by"):
        assert whole[key] == broken[key], key


def test_the_folder_of_a_single_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match="is the output folder of a single run; choose another"):
        carry_out(*runs_in(tmp_path, "overall"), dry_run=True, plan=False)
