"""Scores of a pre-trained model on tasks that it was not trained on: retrieval and image classification."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from unimo.config import parse_overrides
from unimo.errors import ConfigError, nearest
from unimo.inference.evaluation import Evaluation, measure, processor_changes, run_of
from unimo.inference.labels import PROMPT, align_labels, check_prompt, read_labels
from unimo.inference.loading import read_model_config
from unimo.inference.zero_shot import ZeroShotClassification, open_matcher
from unimo.settings import RunConfig
from unimo.tasks.classification.image import ImageClassificationTask, class_names
from unimo.tasks.retrieval.task import RetrievalConfig, RetrievalTask

ZERO_SHOT_TASKS = ("retrieval", "image_classification")


def evaluate_zero_shot(
    directory: str | Path,
    split: str,
    task: str,
    overrides: Sequence[str] = (),
    blank_images: bool = False,
    labels: str = "",
    prompt: str = "",
) -> Evaluation:
    """Evaluate a pre-trained model directory by its matching head.

    Args:
        directory: model directory or run folder of pre-training.
        split: of the data.
        task: `retrieval` or `image_classification`.
        overrides: words over the config of the directory. Without `data.path` retrieval takes the pairs of
            pre-training.
        blank_images: replace every image by one colour.
        labels: file of class names, one a line; empty: the names in the data.
        prompt: sentence with `{}` for a class name; empty: `PROMPT`.

    Raises:
        ConfigError: another task, labels or a prompt for retrieval, or a wrong override.
        CheckpointError, CapabilityError, DataError: no such model or data, or not of that kind.
    """
    from unimo import distributed

    if task not in ZERO_SHOT_TASKS:
        raise ConfigError(f"there is no zero-shot {task or 'task'}; {nearest(task, ZERO_SHOT_TASKS)}")
    if task == "retrieval" and (labels or prompt):
        raise ConfigError("labels and prompts are for --task image_classification; leave them out")
    trained_on = read_model_config(directory)["task"]["name"]
    if trained_on != "pretrain":
        raise ConfigError(
            f"{directory} was trained on {trained_on!r}, so nothing about it is zero-shot; "
            "give a pre-trained model, or leave out --zero-shot"
        )
    prompt, names = check_prompt(prompt or PROMPT), read_labels(labels) if labels else []
    run = run_of(directory, overrides, task)
    distributed.setup(run.train)
    size, changes = processor_changes(run, blank_images)
    config = run.task if task == "retrieval" else RetrievalConfig()
    if task == "retrieval":
        run = _with_pairs(run, overrides)
        matcher, processor = open_matcher(directory, size, changes, config)
        return measure(matcher, RetrievalTask.open_data(run, processor), split, run)
    classes = class_names(run, split)
    names = align_labels(names, classes, labels) if names else classes
    matcher, processor = open_matcher(directory, size, changes, config)
    classifier = ZeroShotClassification(matcher, processor, names, prompt)
    return measure(
        classifier, ImageClassificationTask.open_data(run, processor, {"classes": classes}), split, run
    )


def _with_pairs(run: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """The run with the corpora of pre-training as its data set, unless another was asked for."""
    if "path" in parse_overrides(list(overrides)).get("data", {}):
        return run
    return dataclasses.replace(run, data=dataclasses.replace(run.data, path=run.data.pairs))
