"""Counts of the comparison of vectors, two stages and fusion; times are not judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from micro import TOWER, Tool, saved

from unimo.benchmark import retrieval
from unimo.benchmark.retrieval import exponent, format_report, measure, processor_time, two_stages
from unimo.errors import CapabilityError, CheckpointError, ConfigError
from unimo.inference.zero_shot import open_matcher
from unimo.tasks.retrieval.task import DualEncoderTask, RetrievalConfig

MODEL: dict[str, Any] = {
    "name": "vlmo_tiny",
    "text": {"vocab_size": 300},
    "vision": {"image_size": 32},
    "transformer": {**TOWER, "pair_layers": 1},
}
SCENES = ["data.scenes.val_images=6", "data.scenes.captions_per_image=1"]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("pretrain", tmp_path_factory.mktemp("run"), model=MODEL)


@pytest.fixture(autouse=True)
def fused(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of pairs that are fused; measurements are not repeated."""
    rows: list[int] = []
    original = DualEncoderTask.match_logits
    monkeypatch.setattr(retrieval, "LEAST_SECONDS", 1e-9)
    monkeypatch.setattr(
        DualEncoderTask,
        "match_logits",
        lambda task, text, image: rows.append(image.image.shape[0]) or original(task, text, image),
    )
    return rows


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_exponent_of_a_power_law(power: float) -> None:
    counts = [250, 500, 1000]
    assert exponent(counts, [3e-4 * count**power for count in counts]) == pytest.approx(power)


def test_vectors_fuse_nothing_and_fusion_all_pairs(pretrained: Path, fused: list[int]) -> None:
    task, _ = open_matcher(pretrained, config=RetrievalConfig(loss="itc", rerank=2))
    assert processor_time(task, 60, 9, fuses=False) > 0 and fused == []
    assert processor_time(task, 7, 9, fuses=True) > 0
    assert sum(fused) == 2 * 7**2  # once to warm up
    assert (task.config.rerank, task.config.exhaustive) == (2, False)


@pytest.mark.parametrize("kind", ["pretrain", "retrieval"])
def test_two_stages_beside_all_pairs(kind: str, pretrained: Path, tmp_path: Path, fused: list[int]) -> None:
    directory = pretrained
    if kind == "retrieval":
        directory = saved(kind, tmp_path, model=MODEL, task={"rerank": 1})
    _, rows = two_stages(str(directory), SCENES, (1, 6))
    assert [row["way"] for row in rows] == ["vectors", "two stages", "two stages", "all pairs"]
    assert [row["fused"] for row in rows][::2] == [0, 36] and rows[3]["fused"] == 36
    assert 6 <= rows[1]["fused"] <= 12 and rows[1]["share"] == rows[1]["fused"] / 36
    assert sum(fused) == sum(row["fused"] for row in rows)
    for name in ("tr_r1", "ir_r1"):
        assert rows[2][name] == rows[3][name]  # six of six are all


def test_report_of_a_trained_model(pretrained: Path) -> None:
    content = measure(str(pretrained), SCENES, largest=48, first=(1, 2))
    assert content["dual"]["count"] == [3, 6, 12, 24, 48] and content["fused"]["count"] == [1, 3, 6]
    assert np.isfinite([content["dual"]["exponent"], content["fused"]["exponent"]]).all()
    text = format_report(content)
    assert "two stages, first 2" in text and "N = 48" in text and "image R@1" in text


def test_command(tool: Tool, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    code, shown, err = tool("benchmark", *f"retrieval --largest 32 --text-len 8 --out {out}".split())
    assert code == 0, err
    content = json.loads(out.read_text())
    assert content["settings"] == {"model": "vlmo_tiny", "text_len": 8, "largest": 32}
    assert content["two_stage"] == [] and "all pairs fused, N x N" in shown


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        ("vlmo_tiny", {"largest": 31}, ConfigError, "--largest is 31; .*32 or more"),
        (
            "vlmo_tiny",
            {"overrides": ["data.path=x"]},
            ConfigError,
            "data.path=x: vlmo_tiny has random weights",
        ),
        ("vlmo_tiny", {"text_len": 41}, ConfigError, "--text-len is 41; .*positions for 40"),
        ("unimo3_tiny", {}, CapabilityError, "needs vector_retrieval"),
        ("nowhere", {}, CheckpointError, "no model directory at nowhere"),
        ("nowhere", {"largest": 100}, ConfigError, "first 24 of 12 results"),
    ],
)
def test_what_cannot_be_measured(
    model: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        measure(model, **options)
