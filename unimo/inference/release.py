"""Convert a folder of released weights to a model directory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unimo.config import merge_plain, parse_overrides, to_plain
from unimo.data.processor import build_processor
from unimo.data.readers.answers import read_classes
from unimo.data.tokenizers import load_tokenizer
from unimo.errors import CheckpointError, ConfigError, nearest, shown
from unimo.files import read_json_object
from unimo.inference.folders import check_replaceable
from unimo.inference.saving import CONFIG, WEIGHTS, save_model
from unimo.models.paper import Paper
from unimo.registry import build_model, papers, task_class
from unimo.settings import RunConfig, load_run_config, named_section
from unimo.weights.files import read_tensors
from unimo.weights.named import TOWERS, Files, converted, tokenizer_of, tower_of, use
from unimo.weights.paddle_folder import read_folder

if TYPE_CHECKING:
    from unimo.tasks.base import Task
    from unimo.weights.cards import Card
    from unimo.weights.name_map import Converted

logger = logging.getLogger(__name__)


def releases() -> dict[str, Paper]:
    """Return the paper of every release that can be converted, by the name of the release."""
    return {name: paper for paper in papers() for name in paper.converters}


def convert_release(
    release: str,
    folder: str | Path,
    tokenizer: str | Path,
    directory: str | Path,
    task: str = "pretrain",
    overrides: Sequence[str] = (),
    config: str | Path | None = None,
    answers: str | Path | None = None,
) -> dict[str, int]:
    """Write a model directory that `unimo.load`, fine-tuning and evaluation open.

    Heads that the folder lacks are not written, so that nobody mistakes random numbers for learned ones.
    Poolers are part of the model and start at random, as do parts of our objective that the release lacks.

    Args:
        release: name of the release, a key of `releases()`.
        folder: folder with one file for each parameter, or a file with all of them.
        tokenizer: tokenizer that the weights were trained with, see `load_tokenizer`.
        directory: model directory to write; an older one there is replaced.
        task: task that the weights were trained for.
        overrides: words such as `data.regions=DIR` over the recipe of that task; those of the model section
            say what tensors do not show, such as `model.grounding.num_tokens=50`.
        config: their config.json, from which the number of attention heads is read; None for heads of 64.
        answers: names of the outputs of a classifier of answers (VQA), see `read_classes`; None for others.

    Returns:
        Numbers of `parameters` and `tensors` that were converted.

    Raises:
        ConfigError: unknown release, a task that it has no heads for, or a wrong override.
        CheckpointError: the folder, the size of the tokenizer or the output folder do not fit.
    """
    known = releases()
    if release not in known:
        raise ConfigError(f"unknown release {release!r}; {nearest(release, known)}")
    directory = check_replaceable(directory, (CONFIG, WEIGHTS), "a model directory")
    given = named_section(parse_overrides(overrides).get("model", {}))
    if config is not None:
        given = merge_plain(_heads(known[release], config), given)
    tensors = read_tensors(folder) if Path(folder).is_file() else read_folder(folder)
    converted = known[release].converters[release](tensors, str(folder), task, given)
    _name_answers(converted, answers, task)
    words, rows = load_tokenizer(tokenizer), converted.config.text.vocab_size
    sections = {"model": to_plain(converted.config), "task": converted.task, "data": converted.data}
    if not converted.has_words:
        sections["model"]["text"]["vocab_size"] = words.vocab_size
    elif words.vocab_size != rows:
        raise CheckpointError(
            f"the tokenizer {tokenizer} has {words.vocab_size} tokens, the weights have {rows} words; give "
            "the tokenizer files that were released with them"
        )
    run = load_run_config(converted.config.name, converted.task["name"], list(overrides), **sections)
    processor = build_processor(run.data, words)
    regions = processor.visual
    if regions is not None and regions.feature_size != run.model.regions.feature_size:
        logger.warning(
            "data.regions=%s has features of %d numbers, the weights read %d; name a source of those with "
            "data.regions=DIR, now or when the model is used",
            *(run.data.regions, regions.feature_size, run.model.regions.feature_size),
        )
    save_model(_fill(run, converted, str(folder)), processor, directory, run=run)
    counts = [tensor.size for tensor in converted.tensors.values()]
    return {"parameters": sum(counts), "tensors": len(counts)}


def released_model(card: Card, again: bool = False) -> Path:
    """Return the model directory of a card; it is fetched and converted when it is asked for first.

    Args:
        card: card of a model.
        again: fetch and convert anew.

    Raises:
        ConfigError, CheckpointError: the card is of something else, or as of `unimo.weights.named.converted`
            and `convert_release`.
    """

    if card.part != "model":
        raise CheckpointError(f"{card.name} is a {card.part}, expected a model; use {use(card)}")

    def convert(files: Files, folder: Path) -> None:
        convert_release(card.converter, files.weights, files.tokenizer, folder, config=files.config)

    return converted(card, convert, again)


def fetch_card(card: Card, again: bool = False) -> Path:
    """Fetch and convert what a card names, unless that was done before, and return its folder.

    Raises:
        ConfigError, CheckpointError: as of `released_model`.
    """
    if card.part == "model":
        return released_model(card, again)
    return tower_of(card, again) if card.part in TOWERS else tokenizer_of(card)


def _heads(paper: Paper, path: str | Path) -> dict[str, Any]:
    """Read the number of heads of every part of a model from the release's config.json.

    Raises:
        ConfigError: it has none.
    """
    heads = read_json_object(path, ConfigError).get("num_attention_heads")
    if not isinstance(heads, int):
        raise ConfigError(
            f"{path}: expected a number num_attention_heads, found {shown(heads)}; give the config of the "
            "release, such as grounded_base_en.json, or leave it out"
        )
    default = next(iter(paper.sizes.values()))
    parts = [item.name for item in fields(default) if hasattr(getattr(default, item.name), "num_heads")]
    return {part: {"num_heads": heads} for part in parts}


def _name_answers(converted: Converted, answers: str | Path | None, task: str) -> None:
    """Put the names of the outputs of a classifier of answers in its metadata.

    Raises:
        ConfigError: there is no such classifier, or no list for it, or one of another length.
    """
    if not converted.classes and answers is not None:
        raise ConfigError(f"--answers is for a classifier of answers, not for {task!r}; leave it out")
    if converted.classes and answers is None:
        raise ConfigError(
            f"the classifier has {converted.classes:,} outputs, whose answers no file of weights names; give "
            "their list with --answers, such as data/vqa/answers.json"
        )
    if answers is not None:
        converted.metadata["answers"] = read_classes(answers, converted.classes)


def _fill(run: RunConfig, converted: Converted, where: str) -> Task:
    """Return the task with the converted weights; heads that the release lacks are removed."""
    import paddle

    from unimo.weights.layers import load_into

    paddle.seed(run.seed)
    task = task_class(run.task.name).create(build_model(run.model), run.task, converted.metadata)
    if converted.absent:
        logger.warning("%s has no weights for %s", where, ", ".join(converted.absent))
    for part, _, head in (name.partition(".") for name in converted.absent):
        if part == "objective":
            delattr(task.objective, head)
    known = ("objective.", *converted.absent)
    fresh = [name for name in task.state_dict() if name.startswith(known) and name not in converted.tensors]
    load_into(task, converted.tensors, where, ignore=fresh)
    if fresh:
        logger.info("not in %s, starting at random: %s", where, ", ".join(fresh))
    return task
