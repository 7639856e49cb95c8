"""A UNIMO-2 or UNIMO run that is killed and started again is the unbroken run, bit for bit."""

import json
import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from killed import KilledError
from micro import TOWER, make_run
from micro_unimo2 import WITH_DROPOUT

from unimo.config import merge_plain
from unimo.training import callbacks, checkpoint
from unimo.training import run as training
from unimo.training.state import StepReport, TrainState

# 12 scenes with 4 captions: half an epoch are 24 pairs, three steps of 8.
CHANGES: dict[str, Any] = {
    "model": WITH_DROPOUT,
    "data": {
        "texts": [{"path": "scenes", "weight": 0.25}],
        "images": [{"path": "scenes", "weight": 0.25}],
        "pairs_only_epochs": 0.5,
        "num_workers": 2,
    },
    "task": {"masking": "span"},
    "train": {"max_steps": 7, "save_every": 1, "log_every": 2, "keep_checkpoints": 3},
}

UNIMO: dict[str, Any] = {
    "model": {"name": "unimo_tiny", "text": {**TOWER, "vocab_size": 300, "dropout": 0.1}},
    "data": {
        "texts": [{"path": "scenes", "weight": 0.25}],
        "images": [{"path": "scenes", "weight": 0.25}],
        "regions": "grid:2:2",
        "num_workers": 2,
    },
    "task": {
        "masking": "span",
        "seq2seq_probability": 0.5,
        "augment": {"rewrites": "scenes", "texts": "scenes", "images": "scenes"},
    },
    "train": {"max_steps": 5, "save_every": 1, "log_every": 2, "keep_checkpoints": 3},
}


def rows(output: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without what depends on the clock."""
    lines = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
    clock = ("time", "seconds", "wait", "memory", "per_second")
    return [
        {key: value for key, value in row.items() if not any(word in key for word in clock)} for row in lines
    ]


def train(
    output: Path, die_at: int | None, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any] = CHANGES
) -> None:
    """Train; with `die_at` only until that step, whose metrics are lost."""

    def on_step_end(self: Any, state: TrainState, report: StepReport) -> None:
        if state.step == die_at:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.VisualDL, "on_step_end", on_step_end)
        training.train(make_run("pretrain", output, **changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole")
    training.train(make_run("pretrain", output, **CHANGES))
    return output


def test_parts_come_in_after_the_pairs(whole: Path) -> None:
    logged = {row["step"]: row for row in rows(whole) if "loss" in row}
    assert "vcl" not in logged[2] and "text_mlm" not in logged[2]
    assert {"vcl", "text_mlm", "image_grounding", "dictionary_use", "mlm", "itm"} <= set(logged[6])
    assert all(
        isinstance(value, (int, str)) or value == value for row in logged.values() for value in row.values()
    )
    assert 20 <= logged[6]["dictionary_use"] <= 100


@pytest.mark.parametrize("die_at", [3, 5])
def test_resume_is_bit_equal(
    whole: Path,
    tmp_path: Path,
    die_at: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(KilledError):
        train(tmp_path, die_at, monkeypatch)
    caplog.clear()
    train(tmp_path, None, monkeypatch)
    said = [record.message for record in caplog.records if "first with all corpora" in record.message]
    assert said == (["curriculum: step 4 is the first with all corpora"] if die_at == 3 else [])
    assert_equal_runs(tmp_path, whole, 7)


def test_resume_of_unimo_is_bit_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    train(whole, None, monkeypatch, UNIMO)
    with pytest.raises(KilledError):
        train(broken, 3, monkeypatch, UNIMO)
    train(broken, None, monkeypatch, UNIMO)
    logged = next(row for row in rows(whole) if row.get("step") == 4 and "loss" in row)
    assert {"mlm", "seq2seq", "region", "cmcl", "text_mlm", "image_region"} <= set(logged)
    assert_equal_runs(broken, whole, 5)


@pytest.mark.parametrize(
    ("changes", "step", "doing"), [(CHANGES, 3, "planning"), (UNIMO, 2, "training")], ids=["unimo2", "unimo"]
)
def test_a_step_dropped_for_a_signal_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], step: int, doing: str
) -> None:
    """In the step in which the curriculum lets all corpora in, and with regions; steps have four rounds."""
    rounds = merge_plain(changes, {"train": {"micro_batch_size": 2, "save_every": 0}})
    train(tmp_path / "whole", None, monkeypatch, rounds)

    def on_round(self: Any, state: TrainState, now: str, done: int, count: int) -> None:
        if (state.step, now, done) == (step, doing, 2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert not state.stop_wanted or (state.step, now, done) == (step, doing, 2)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.VisualDL, "on_round", on_round)
        training.train(make_run("pretrain", tmp_path / "broken", **rounds))
    assert checkpoint.find_last(tmp_path / "broken").name == f"step_{step:08d}"
    train(tmp_path / "broken", None, monkeypatch, rounds)
    assert_equal_runs(tmp_path / "broken", tmp_path / "whole", rounds["train"]["max_steps"])


def assert_equal_runs(broken: Path, whole: Path, steps: int) -> None:
    assert rows(broken) == rows(whole)
    for name in ("model.safetensors", "optimizer.safetensors"):
        path = Path(f"checkpoints/step_{steps:08d}") / name
        assert (broken / path).read_bytes() == (whole / path).read_bytes()
