"""The order of the stages of pre-training: what may follow on what, and what a model says of itself."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import yaml

from unimo.errors import CheckpointError, ConfigError
from unimo.settings import RunConfig, load_run_config
from unimo.training import stages


def run_from(start: str, stage: str, task: str = "pretrain") -> RunConfig:
    words = [f"task.stage={stage}"] if task == "pretrain" else []
    return load_run_config("vlmo_tiny", task, [*words, f"init_from={start}"])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model directory, as far as its stages are concerned."""
    content = {"model": {"name": "vlmo_tiny"}, "task": {"name": "pretrain"}, "metadata": {}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "model.safetensors").touch()
    return tmp_path


def set_stages(model: Path, value: object) -> None:
    content = yaml.safe_load((model / "config.yaml").read_text())
    (model / "config.yaml").write_text(yaml.safe_dump({**content, "metadata": {"stages": value}}))


ALL = ["vision", "language", "vision_language"]


@pytest.mark.parametrize(
    ("stage", "there", "refused", "warned"),
    [
        ("language", None, "", "keeps what stage vision taught, and without init_from that is random"),
        ("vision_language", None, "", ""),  # random initialisation, section 4.5
        ("vision_language", [], "", "did not go through stage language"),
        ("vision_language", ["vision"], "", "did not go through stage language"),  # Table 3
        ("vision_language", ["vision", "language"], "", ""),
        ("vision_language", ALL, "", ""),
        ("language", ["vision"], "", ""),
        ("language", ["vision", "language"], "", ""),
        ("language", [], "keeps what stage vision taught, and init_from=", ""),
        ("language", 3, "keeps what stage vision taught, and init_from=", ""),
        ("language", ALL, "task.stage=language comes before vision_language, which init_from=", ""),
        ("vision", ["vision", "language"], "task.stage=vision comes before language", ""),
        ("vision", ["vision"], "", ""),
    ],
)
def test_a_stage_follows_on_those_before_it(
    stage: str,
    there: object,
    refused: str,
    warned: str,
    model: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if there is not None:
        set_stages(model, there)
    run = run_from("" if there is None else str(model), stage)
    with caplog.at_level(logging.WARNING):
        if refused:
            with pytest.raises(CheckpointError) as raised:
                stages.check_order(run)
            assert refused in str(raised.value)
        else:
            stages.check_order(run)
    said = caplog.text or (str(raised.value) if refused else "")
    assert bool(caplog.text) == bool(warned) and warned in caplog.text
    if "stage vision taught" in said:
        assert "bash scripts/run_pretrain.sh vlmo_tiny task.stage=vision output_dir=DIR" in said


def test_a_model_says_which_stages_it_went_through(model: Path) -> None:
    set_stages(model, ["vision"])
    assert stages.record(run_from(str(model), "vision_language")) == {"stages": ["vision", "vision_language"]}
    assert stages.record(run_from("", "language")) == {"stages": ["language"]}
    assert stages.record(run_from(str(model), "", "vqa")) == {}
    assert stages.record(load_run_config("unimo3_tiny", "pretrain")) == {}


def test_no_stage_of_another_name(model: Path) -> None:
    with pytest.raises(ConfigError, match="not one of vision, language"):
        run_from(str(model), "words")
