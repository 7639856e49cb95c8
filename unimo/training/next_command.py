"""The command to type after a run: one that suits its model and its data, and works as it stands."""

from __future__ import annotations

import shlex
from dataclasses import fields
from itertools import pairwise
from typing import Any

import yaml

from unimo import registry
from unimo.config import list_recipes
from unimo.errors import ConfigError
from unimo.plain_yaml import parse_yaml
from unimo.settings import CorpusConfig, DataConfig, RunConfig, ScenesConfig


def next_command(run: RunConfig, split: str, was_evaluated: bool) -> str:
    """Return the command that makes use of the model of a run.

    After a stage of pre-training that is the next one. After pre-training it is fine-tuning on the data of
    the run: pairs of images and captions suit captioning (UNIMO-2) or retrieval, labelled images
    classification, the built-in `scenes` questions. Where there is no such task, as after training on texts
    alone, and after fine-tuning, it is evaluation.

    Args:
        run: the run.
        split: split of its validation.
        was_evaluated: whether the data have that split.
    """
    directory = f"{run.output_dir}/model"
    if (stage := _next_stage(run)) and run.model.name in list_recipes("pretrain"):
        return _command("pretrain", run.model.name, f"task.stage={stage}", f"init_from={directory}")
    found = _fine_tuning(run) if run.task.name == "pretrain" else None
    if found is not None:
        task, words = found
        # Recipes of the papers choose the best checkpoint by validation.
        choice = [] if was_evaluated else ["train.select_metric="]
        return _command("finetune", "--task", task, "--init", directory, *words, *choice)
    held_out = split if was_evaluated else run.data.train_split
    return _command("evaluate", "--task", run.task.name, "--model", directory, "--split", held_out)


def _next_stage(run: RunConfig) -> str:
    """Return the stage of pre-training that follows on that of a run; empty if none does."""
    stages = list(registry.paper_of(run.model.name).stages) if run.task.name == "pretrain" else []
    return dict(pairwise(stages)).get(run.task.stage, "") if stages else ""


def _command(tool: str, *words: str) -> str:
    return f"python tools/{tool}.py {shlex.join(words)}"


def _fine_tuning(run: RunConfig) -> tuple[str, list[str]] | None:
    """Return a task that suits the model and the data of a pre-training run, and the settings it needs."""
    own = [corpus for corpus in run.data.pairs if corpus.path != "scenes"]
    captions = [corpus for corpus in own if not (corpus.prompt or corpus.questions)]
    questions = [corpus for corpus in own if corpus.questions]
    capabilities = registry.paper_of(run.model.name).capabilities
    if captions:
        writes = {"pixels", "generation"} <= capabilities
        task, words = "caption" if writes else "retrieval", _paths(captions, run.data)
    elif questions:
        task, words = "vqa", _paths(questions, run.data)
    elif own:
        task, words = "image_classification", _paths(own[:1], run.data)
    elif run.data.pairs:
        task, words = "vqa", _changed("data.scenes", run.data.scenes, ScenesConfig())
    else:
        return None
    if run.model.name not in list_recipes(task):
        return None
    if run.data.regions:
        words.append(f"data.regions={run.data.regions}")
        words += _changed("data", run.data, DataConfig(), "max_regions")
    return task, words


def _paths(corpora: list[CorpusConfig], data: DataConfig) -> list[str]:
    """Return the settings that make corpora those of a task."""
    plain = [{"path": corpus.path} | ({"name": corpus.name} if corpus.name else {}) for corpus in corpora]
    one = plain[0]["path"]
    is_plain = len(plain) == 1 and len(plain[0]) == 1 and _reads_as_itself(one)
    listed = yaml.safe_dump(
        plain, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10_000
    ).strip()
    words = [f"data.path={one if is_plain else listed}"]
    return words + _changed("data", data, DataConfig(), "root", "train_split")


def _reads_as_itself(text: str) -> bool:
    """Return whether YAML takes a text for that text, and not for a number, a list, or nothing."""
    try:
        return parse_yaml(text, "data.path") == text
    except ConfigError:
        return False


def _changed(where: str, section: Any, default: Any, *names: str) -> list[str]:
    """Return the fields of a section (all, or those of `names`) that differ from their defaults."""
    names = names or tuple(item.name for item in fields(section))
    pairs = ((name, getattr(section, name)) for name in names)
    return [f"{where}.{name}={value}" for name, value in pairs if value != getattr(default, name)]
