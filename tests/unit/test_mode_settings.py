"""`task.mode` of fine-tuning: whose it is, what is refused, and the runs that `best` stands for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from micro import saved
from micro_semvlp import SEMVLP

from unimo.config import merge_plain, parse_overrides, read_recipe
from unimo.errors import ConfigError
from unimo.inference.evaluation import run_of
from unimo.run_series import load_modes
from unimo.settings import build_run_config, load_run_config

TWO = {"task": {"mode": "two"}}
SAVED = {"model": {"name": "semvlp_tiny", "mode": "two"}}
"""A later layer, as of a model that was trained in two-stream mode."""


@pytest.mark.parametrize(
    ("layers", "mode"),
    [
        ([], "single"),
        ([TWO], "two"),
        ([SAVED], "two"),
        ([{"task": {"mode": "single"}}, SAVED], "single"),
        ([SAVED, TWO, {"task": {"mode": "single"}}], "single"),
    ],
)
def test_the_task_says_the_mode_of_the_model(layers: list[Mapping[str, Any]], mode: str) -> None:
    run = build_run_config(read_recipe("semvlp_tiny", "vqa"), *layers)
    assert run.model.mode == mode and not hasattr(run.task, "mode")


@pytest.mark.parametrize(
    ("model", "task", "words", "said"),
    [
        ("semvlp_tiny", "vqa", ["task.mode=both"], "'both' is not one of single, two, nor `best`"),
        ("semvlp_tiny", "vqa", ["task.mode=2"], "2 is not one of single, two"),
        ("semvlp_tiny", "pretrain", ["task.mode=two"], "task.mode.*nearest: .*modes"),
        ("unimo3_tiny", "vqa", ["task.mode=two"], "unimo3_tiny is fine-tuned in one way .*semvlp_tiny"),
        ("unimo3_tiny", "vqa", ["task.mode=best"], "unimo3_tiny is fine-tuned in one way only"),
        ("semvlp_tiny", "vqa", ["task.mode=best", "resume=there"], "task.mode=best and resume"),
        ("semvlp_tiny", "vqa", ["task.mode=best", "train.select_metric="], "needs train.select_metric"),
    ],
)
def test_what_is_refused(model: str, task: str, words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_modes(read_recipe(model, task), parse_overrides(words))


def test_best_is_a_run_for_each_mode() -> None:
    words = parse_overrides(["task.mode=best", "output_dir=there"])
    runs = load_modes(read_recipe("semvlp_tiny", "nlvr2"), words)
    assert [(run.model.mode, run.output_dir) for run in runs] == [
        ("single", "there/single"),
        ("two", "there/two"),
    ]
    (one,) = load_modes(read_recipe("semvlp_tiny", "nlvr2"), TWO)
    assert one == load_run_config("semvlp_tiny", "nlvr2", ["task.mode=two"])


def test_the_mode_of_a_saved_model_stays(tmp_path: Path) -> None:
    directory = saved("vqa", tmp_path, **SEMVLP, **TWO)
    assert run_of(directory).model.mode == "two"
    with pytest.raises(ConfigError, match="was trained in one mode, which cannot be overridden"):
        run_of(directory, ["task.mode=single"])


@pytest.mark.parametrize("task", ["", "retrieval"])
def test_a_model_pre_trained_in_both_is_read_in_either(task: str, tmp_path: Path) -> None:
    directory = saved("pretrain", tmp_path, **SEMVLP)
    for mode in ("single", "two"):
        assert run_of(directory, [f"task.mode={mode}"], task).model.mode == mode
    with pytest.raises(ConfigError, match="'both' is not one of single, two"):
        run_of(directory, ["task.mode=both"], task)
    one = saved("pretrain", tmp_path / "one", **merge_plain(SEMVLP, {"task": {"modes": "two"}}))
    with pytest.raises(ConfigError, match="was trained in one mode"):
        run_of(one, ["task.mode=single"], task)
