"""unimo/settings.py: how a recipe, a tool and the command line add up to a run."""

from __future__ import annotations

import pytest

from unimo.config import merge_into
from unimo.errors import ConfigError
from unimo.settings import CorpusConfig, RunConfig, TrainConfig, build_run_config, load_run_config

MINIMAL = {"model": {"name": "unimo3_tiny"}, "task": {"name": "pretrain"}}


def test_defaults_run_on_scenes_into_a_named_folder():
    run = build_run_config(MINIMAL)
    assert run.data.pairs == [CorpusConfig(path="scenes")]
    assert run.output_dir == "output/unimo3_tiny_pretrain"


def test_a_name_alone_stands_for_a_section():
    run = build_run_config({"model": "unimo3_tiny", "task": "pretrain"})
    assert (run.model.name, run.task.name) == ("unimo3_tiny", "pretrain")


def test_model_fields_are_those_of_the_named_model():
    run = build_run_config({**MINIMAL, "model": {"name": "unimo3_tiny", "text": {"vocab_size": 99}}})
    assert run.model.text.vocab_size == 99
    assert run.model.text.hidden_size == 64


@pytest.mark.parametrize("missing", ["model", "task"])
def test_model_and_task_are_needed(missing):
    with pytest.raises(ConfigError, match="needs model.name and task.name"):
        build_run_config({key: value for key, value in MINIMAL.items() if key != missing})
    with pytest.raises(ConfigError, match=f"{missing}.name is missing"):
        build_run_config({**MINIMAL, missing: {}})


def test_corpora_have_short_and_long_forms():
    pairs = ["/data/coco", {"path": "/data/vg", "weight": 0.3, "name": "vg"}]
    run = build_run_config({**MINIMAL, "data": {"pairs": pairs}})
    assert run.data.pairs == [CorpusConfig(path="/data/coco"), CorpusConfig("/data/vg", 0.3, "vg")]
    with pytest.raises(ConfigError, match=r"pairs\[0\]: expected a path or a mapping with `path`, found 3"):
        build_run_config({**MINIMAL, "data": {"pairs": [3]}})


def test_command_line_wins_over_the_tool_and_the_tool_over_the_file():
    overrides = ["train.max_steps=7", "data.pairs=/data/mine", "optim.lr=2e-4"]
    under = {"train": {"max_steps": 5, "batch_size": 4}, "init_from": "somewhere"}
    run = load_run_config("unimo3_tiny", "pretrain", overrides, **under)
    assert (run.train.max_steps, run.train.batch_size, run.init_from) == (7, 4, "somewhere")
    assert run.data.pairs == [CorpusConfig(path="/data/mine")]
    assert run.optim.lr == 2e-4
    assert run.data.image_size == 64


def test_runs_are_compared_by_value():
    assert RunConfig() == RunConfig()
    assert load_run_config("meter_tiny", "pretrain") != load_run_config("unimo3_tiny", "pretrain")


@pytest.mark.parametrize(
    ("batch", "micro", "ranks", "rounds"),
    [(4096, 32, 8, 16), (4096, 32, 1, 128), (4096, 32, 256, 1), (64, 0, 2, 1), (60, 16, 1, 4), (14, 4, 2, 7)],
)
def test_rounds_follow_from_what_a_rank_can_take(batch, micro, ranks, rounds):
    train = TrainConfig(batch_size=batch, micro_batch_size=micro)
    assert train.rounds(ranks) == rounds
    share = batch // ranks
    assert share % rounds == 0 and (micro == 0 or share // rounds <= micro)


def test_batches_that_cannot_be_cut():
    with pytest.raises(ConfigError, match="batch_size 10 does not divide among 4 ranks"):
        TrainConfig(batch_size=10).rounds(4)
    with pytest.raises(ConfigError, match="micro_batch_size -1: expected 0 or more"):
        merge_into(TrainConfig(), {"micro_batch_size": -1})
