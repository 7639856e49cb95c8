"""Stages of a recipe: settings of each, and the runs that `task.stages=all` stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from unimo.config import read_recipe
from unimo.doctor.storage import light_run
from unimo.errors import ConfigError
from unimo.models.vlmo import PAPER
from unimo.models.vlmo.config import PretrainingConfig
from unimo.run_series import load_stages
from unimo.settings import RunConfig, load_run_config

STAGES = list(read_recipe("vlmo_base", "pretrain")["stages"])


def stage_of(size: str, *words: str) -> RunConfig:
    return load_run_config(f"vlmo_{size}", "pretrain", words)


def test_stages_are_those_of_the_task_in_order() -> None:
    assert STAGES[-1] == PretrainingConfig().stage
    assert set(get_args(get_type_hints(PretrainingConfig)["stage"])) <= set(STAGES)
    for name in PAPER.sizes:
        assert list(read_recipe(name, "pretrain")["stages"]) == STAGES


@pytest.mark.parametrize("size", ["base", "base_plus", "large"])
def test_language_stage_is_that_of_the_release(size: str) -> None:
    run = stage_of(size, "task.stage=language")
    assert (run.model.text.max_position, run.data.max_text_len) == (196, 196)
    assert not run.model.transformer.has_pair_experts
    assert run.task.whole_word_masking and run.task.mlm_probability == 0.15
    assert (run.data.pairs, [corpus.path for corpus in run.data.texts]) == ([], ["scenes"])
    assert (run.optim.lr, run.optim.warmup, run.optim.weight_decay) == (2e-4, 2500, 0.01)
    assert (run.train.max_steps, run.train.batch_size) == (200_000, 1024)
    assert run.output_dir == f"output/vlmo_{size}_pretrain_language"


@pytest.mark.parametrize("size", ["base", "tiny"])
def test_last_stage_is_the_default_and_has_the_settings_of_the_file(size: str) -> None:
    run = stage_of(size)
    assert run == stage_of(size, "task.stage=vision_language")
    assert run.model.transformer.has_pair_experts
    assert (run.model.text.max_position, run.data.texts, run.data.images) == (40, [], [])


def test_command_line_wins_over_a_stage_and_may_change_it() -> None:
    words = ["stages.language.train.max_steps=9", "stages.vision.train.max_steps=3"]
    assert stage_of("base", *words, "task.stage=language").train.max_steps == 9
    assert stage_of("base", *words).train.max_steps == 200_000
    assert stage_of("base", *words, "task.stage=language", "train.max_steps=7").train.max_steps == 7
    assert light_run("vlmo_base", ["task.stage=language"]).data.max_text_len == 196


@pytest.mark.parametrize(
    ("recipe", "words", "message"),
    [
        (
            "vlmo_tiny",
            ["task.stage=text"],
            "config.task.stage: 'text' is not one of vision, language, vision_la",
        ),
        ("vlmo_tiny", ["task.stage=[language]"], "is not one of vision"),
        (
            "vlmo_tiny",
            ["stages.langage.train.max_steps=1"],
            "unknown key config.stages.langage; nearest: language",
        ),
        ("vlmo_tiny", ["stages.language=3"], "stages: expected the settings of each stage, found"),
        (
            "vlmo_tiny",
            ["stages.language.train.steps=1", "task.stage=language"],
            "unknown key config.train.steps",
        ),
        (
            "vlmo_tiny",
            ["task.stages=both"],
            "task.stages: 'both' is not `all`; a single one is task.stage=NAME",
        ),
        ("vlmo_tiny", ["task.stages=all", "task.stage=language"], "task.stages=all and task.stage"),
        ("vlmo_tiny", ["task.stages=all", "resume=out"], "task.stages=all and resume"),
        ("unimo3_tiny", ["task.stages=all"], "the recipe unimo3_tiny has no stages"),
        ("unimo3_tiny", ["stages.language.train.max_steps=1"], "unknown key config.stages"),
    ],
)
def test_what_no_recipe_has_is_refused(recipe: str, words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_stages(recipe, "pretrain", words)
    assert message in str(raised.value)


def test_all_stages_are_runs_one_after_the_other() -> None:
    words = ["output_dir=out", "train.max_steps=5", "init_from=weights/beit", "stages.language.seed=4"]
    runs = load_stages("vlmo_tiny", "pretrain", [*words, "task.stages=all"])
    assert [run.task.stage for run in runs] == STAGES
    assert [run.output_dir for run in runs] == [f"out/{stage}" for stage in STAGES]
    assert [run.init_from for run in runs] == ["weights/beit", "out/vision/model", "out/language/model"]
    assert [run.train.max_steps for run in runs] == [5, 5, 5]
    assert [run.seed for run in runs] == [0, 4, 0]
    assert load_stages("vlmo_tiny", "pretrain", words) == [stage_of("tiny", *words)]
    (first, *_) = load_stages("vlmo_tiny", "pretrain", ["task.stages=all"])
    assert first.output_dir == "output/vlmo_tiny_pretrain/vision"


def test_a_file_of_ones_own_has_stages_too(tmp_path: Path) -> None:
    text = "_base_: {0}:tiny\nstages: {{language: {{train: {{max_steps: 8}}}}}}\n"
    base = Path(__file__).resolve().parents[2] / "configs/vlmo/pretrain.yaml"
    (tmp_path / "mine.yaml").write_text(text.format(base))
    given: Any = str(tmp_path / "mine.yaml")
    runs = load_stages(given, "pretrain", ["task.stages=all"])
    assert [run.train.max_steps for run in runs] == [1500, 8, 1500]
