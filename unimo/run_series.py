"""The run configs of a series: those of all stages of a recipe, or of all modes of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from unimo import registry
from unimo.config import merge_plain, parse_overrides, read_recipe
from unimo.errors import ConfigError, shown
from unimo.settings import RunConfig, build_run_config, named_section


def load_stages(recipe: str, task: str, overrides: Sequence[str] = ()) -> list[RunConfig]:
    """Build the run config of a recipe, as `load_run_config`, or with `task.stages=all` one for each stage.

    They write into folders of `output_dir` that have the names of the stages, and each but the first starts
    from the model of the one before.

    Raises:
        ConfigError: as of `build_run_config`; also stages of a recipe that has none, or settings that only
            make sense for one run.
    """
    plain, given = read_recipe(recipe, task), parse_overrides(overrides)
    wanted = named_section(given.get("task", {}), "task").get("stages")
    if wanted is None:
        return [build_run_config(plain, given)]
    if wanted != "all":
        raise ConfigError(f"task.stages: {shown(wanted)} is not `all`; a single one is task.stage=NAME")
    if "stages" not in plain:
        raise ConfigError(f"task.stages=all: the recipe {recipe} has no stages; leave it out")
    if "stage" in given["task"] or "resume" in given:
        alone = "task.stage" if "stage" in given["task"] else "resume"
        raise ConfigError(f"task.stages=all and {alone}, which is of a single stage; leave one of them out")
    given["task"] = {key: value for key, value in given["task"].items() if key != "stages"}
    output = build_run_config(plain, given).output_dir
    runs: list[RunConfig] = []
    for stage in plain["stages"]:
        own = {"task": {"stage": stage}, "output_dir": f"{output}/{stage}"}
        start = {"init_from": f"{runs[-1].output_dir}/model"} if runs else {}
        runs.append(build_run_config(plain, merge_plain(given, {**own, **start})))
    return runs


def load_modes(*layers: Mapping[str, Any]) -> list[RunConfig]:
    """Build the run config of layers, as `build_run_config`, or with `task.mode=best` one for each mode.

    They write into folders of `output_dir` that have the names of the modes.

    Raises:
        ConfigError: as of `build_run_config`; also a setting that only makes sense for one run, or nothing
            that tells which one is the best.
    """
    values = reduce(merge_plain, layers, {})
    model, task = (named_section(values.get(part), part) for part in ("model", "task"))
    if task.get("mode") != "best":
        return [build_run_config(*layers)]
    if values.get("resume"):
        raise ConfigError("task.mode=best and resume, which is of a single mode; leave one of them out")
    modes = registry.paper_of(model["name"]).modes or ("best",)  # which is refused
    run = build_run_config(*layers, {"task": {"mode": modes[0]}})
    if not run.train.select_metric:
        raise ConfigError("task.mode=best needs train.select_metric, by which the better mode is kept")
    changes = ({"task": {"mode": mode}, "output_dir": f"{run.output_dir}/{mode}"} for mode in modes)
    return [build_run_config(*layers, change) for change in changes]
