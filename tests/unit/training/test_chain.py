"""Three stages by one command: in order, each from the one before; gone on with after a stop."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from unimo import cli
from unimo.run_series import load_stages
from unimo.training import callbacks
from unimo.training.command import carry_out
from unimo.training.state import StepReport, TrainState
from unimo.weights.files import read_safetensors

LINE = [
    *("vlmo_tiny", "task.stages=all", "train.max_steps=2", "train.batch_size=4", "train.save_every=1"),
    *("model.transformer.hidden_size=8", "model.transformer.num_heads=2", "model.transformer.num_layers=2"),
    *("model.transformer.intermediate_size=8", "data.scenes.train_images=8", "data.scenes.val_images=4"),
    *("data.num_workers=0", "train.log_every=1", "optim.warmup=0"),
]
STAGES = ["vision", "language", "vision_language"]


def train(folder: Path) -> int:
    runs = load_stages(*LINE[:1], "pretrain", [*LINE[1:], f"output_dir={folder}"])
    return carry_out(*runs, dry_run=False, plan=False)


def steps_of(folder: Path) -> dict[str, list[str]]:
    """The checkpoints of each stage that was begun."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*/checkpoints/step_*")):
        found.setdefault(path.parts[-3], []).append(path.name[-1:])
    return found


class Signal:
    """Sends itself a signal after one step of the language stage, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent = False
        inner = callbacks.NonFiniteGuard.on_step_end

        def on_step_end(guard: Any, state: TrainState, report: StepReport) -> None:
            inner(guard, state, report)
            if state.run.task.stage == "language" and not self.sent:
                self.sent = True
                signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(callbacks.NonFiniteGuard, "on_step_end", on_step_end)


def test_stopped_in_the_middle_and_started_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "unimo")
    Signal(monkeypatch)
    assert train(tmp_path) == cli.STOPPED and "Stopped by SIGTERM and saved" in capsys.readouterr().out
    assert caplog.text.index("plan: vlmo_tiny, 3 stages") < caplog.text.index("stage 1 of 3: vision")
    assert steps_of(tmp_path) == {"vision": ["1", "2"], "language": ["1"]}
    caplog.clear()
    assert train(tmp_path) == 0
    assert f"--init {tmp_path}/vision_language/model" in capsys.readouterr().out.splitlines()[-1]
    assert "vision           finished" in caplog.text and "1 steps after step 1" in caplog.text
    assert f"{tmp_path}/vision is finished; nothing is trained" in caplog.text
    for stage, behind in zip(STAGES, (STAGES[:1], STAGES[:2], STAGES), strict=True):
        content = yaml.safe_load((tmp_path / stage / "model/config.yaml").read_text())
        assert content["metadata"]["stages"] == behind
        assert content["init_from"] == (f"{tmp_path}/{behind[-2]}/model" if behind[1:] else "")
    vision, language = (read_safetensors(tmp_path / each / "model/model.safetensors") for each in STAGES[:2])
    frozen = [name for name in vision if name.startswith("model.") and ".attention" in name]
    assert frozen and all((vision[name] == language[name]).all() for name in frozen)
