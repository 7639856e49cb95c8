"""Convert weights of others: towers to folders, releases to model directories."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unimo.config import coerce, merge_plain, parse_overrides, to_plain
from unimo.data.processor import build_processor
from unimo.data.readers.answers import read_classes
from unimo.data.tokenizers import load_tokenizer
from unimo.errors import CheckpointError, ConfigError, MissingError, nearest, shown
from unimo.files import read_json_object
from unimo.inference.folders import check_replaceable
from unimo.inference.saving import CONFIG, WEIGHTS, save_model
from unimo.models.paper import Converter, Paper
from unimo.ranges import Heads
from unimo.registry import build_model, papers, task_class
from unimo.settings import RunConfig, load_run_config, named_section
from unimo.weights.files import open_tensors
from unimo.weights.huggingface import SOURCES, convert_tower
from unimo.weights.named import TOWERS, Files, converted, tokenizer_of, tower_of, use
from unimo.weights.places import find_config, find_tokenizer
from unimo.weights.recognise import recognise
from unimo.weights.report import Report, is_allowed, used
from unimo.weights.stored import Stored
from unimo.weights.zoo import LIBRARIES, RELEASES, convert_zoo, paddleclas_file

if TYPE_CHECKING:
    from unimo.tasks.base import Task
    from unimo.weights.cards import Card
    from unimo.weights.name_map import Converted, Tensors

logger = logging.getLogger(__name__)
_SAID = {"num_attention_heads": "num_heads", "hidden_size": "hidden_size", "image_size": "image_size"}
"""Key of their config.json -> field of a section of ours that says the same."""


def releases() -> dict[str, Paper]:
    """Return the paper of every release that can be converted, by the name of the release."""
    return {name: paper for paper in papers() for name in paper.converters}


def sources() -> list[str]:
    """Return the kinds of weights that can be converted: towers, those of libraries, and releases."""
    return sorted({**SOURCES, **LIBRARIES, **releases()})


def convert(
    given: str | Path,
    folder: str | Path,
    source: str | None = None,
    config: str | Path | None = None,
    tokenizer: str | Path | None = None,
    task: str | None = None,
    overrides: Sequence[str] = (),
    allow: Sequence[str] = (),
    answers: str | Path | None = None,
) -> Report:
    """Convert weights of others to a folder of a tower, or a release to a model directory.

    Args:
        given: their file or folder, or a name that PaddleNLP or PaddleClas knows.
        folder: folder to write.
        source: kind of weights, one of `sources()`; None to recognise it.
        config: their config.json; None for the one beside the weights.
        tokenizer, task, overrides: as for `convert_release`, of which only releases have any; without a
            tokenizer that beside the weights is taken.
        allow: patterns of tensors that may be missing and then start at random.
        answers: as for `convert_release`.

    Raises:
        ConfigError: the kind cannot be recognised, or an argument is missing or has no meaning for it.
        CheckpointError: the weights cannot be read or do not fit, or the folder cannot be written.
    """
    if source is None:
        marks = {name: paper.marks.get(name, ()) for name, paper in releases().items()}
        source = recognise(
            open_tensors(given), marks, Path(config) if config else find_config(given), str(given)
        )
        logger.info("%s is read as --from %s", given, source)
    if source in releases():
        beside = Path(given) if Path(given).is_dir() else Path(given).parent
        tokenizer = tokenizer or (beside if find_tokenizer(given) else None)
        if tokenizer is None:
            raise ConfigError(f"--from {source} needs --tokenizer; see --help")
        return convert_release(
            source, given, tokenizer, folder, task or "pretrain", overrides, config, answers, allow
        )
    if overrides or tokenizer or task or answers:
        raise ConfigError(
            f"--from {source} makes a tower, which has no task and no config to change, and no --tokenizer"
        )
    if source in SOURCES:
        return convert_tower(source, Path(given), Path(config) if config else None, Path(folder), allow)
    if config or allow:
        raise ConfigError(f"--from {source} takes no --config and no --allow-missing; see --help")
    return convert_zoo(source, str(given), Path(folder))


def convert_release(
    release: str,
    folder: str | Path,
    tokenizer: str | Path,
    directory: str | Path,
    task: str = "pretrain",
    overrides: Sequence[str] = (),
    config: str | Path | None = None,
    answers: str | Path | None = None,
    allow: Sequence[str] = (),
) -> Report:
    """Write a model directory that `unimo.load`, fine-tuning and evaluation open.

    Heads that the folder lacks are not written, so that nobody mistakes random numbers for learned ones.
    Poolers are part of the model and start at random, as do parts of our objective that the release lacks.

    Args:
        release: name of the release, a key of `releases()`.
        folder: file or folder of weights, see `open_tensors`; for those of PaddleClas also a name it knows.
        tokenizer: tokenizer that the weights were trained with, see `load_tokenizer`.
        directory: model directory to write; an older one there is replaced.
        task: task that the weights were trained for.
        overrides: words such as `data.regions=DIR` over the recipe of that task; those of the model section
            say what tensors do not show, such as `model.grounding.num_tokens=50`.
        config: their config.json, from which the numbers of attention heads are read; None for the one beside
            the weights, or without one for heads of 64.
        answers: names of the outputs of a classifier of answers (VQA), see `read_classes`; None for others.
        allow: patterns of tensors, in their names or ours, that may be missing and then start at random.

    Raises:
        ConfigError: unknown release, a task that it has no heads for, a wrong override, or a config.json
            beside the weights that is of others.
        CheckpointError: the folder, the size of the tokenizer or the output folder do not fit.
    """
    known = releases()
    if release not in known:
        raise ConfigError(f"unknown release {release!r}; {nearest(release, known)}")
    directory = check_replaceable(directory, (CONFIG, WEIGHTS), "a model directory")
    words = load_tokenizer(tokenizer)
    given = named_section(parse_overrides(overrides).get("model", {}))
    given = merge_plain(_heads(known[release], config, find_config(folder)), given)
    theirs = open_tensors(paddleclas_file(str(folder)) if release in RELEASES else folder)
    convert = known[release].converters[release]
    theirs, converted = _converted(convert, theirs, str(folder), task, given, allow)
    _check_config(None if config else find_config(folder), converted.config)
    _name_answers(converted, answers, task)
    rows = converted.config.text.vocab_size
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
    filled, fresh, resized = _fill(run, converted, str(folder))
    save_model(filled, processor, directory, run=run)
    sizes = [tensor.size for tensor in converted.tensors.values()]
    return Report(directory, "model", release, sum(sizes), len(sizes), *used(theirs), fresh, resized)


def _converted(
    convert: Converter, theirs: Tensors, where: str, task: str, given: Mapping[str, Any], allow: Sequence[str]
) -> tuple[Tensors, Converted]:
    """Return the tensors, with stand-ins for those that may be missing, and them converted."""
    try:
        converted = convert(theirs, where, task, given)
    except MissingError as error:
        absent = {
            name: Stored(shape, "f4")
            for name, (ours, shape) in error.missing.items()
            if is_allowed((name, ours), allow)
        }
        if not absent:
            raise
        theirs = {**theirs, **absent}
        converted = convert(theirs, where, task, given)
    there = {
        name: tensor
        for name, tensor in converted.tensors.items()
        if not isinstance(tensor, Stored) or tensor.is_there
    }
    dropped = (name for name in converted.tensors if name not in there and not name.startswith("objective."))
    return theirs, replace(converted, tensors=there, absent=(*converted.absent, *dropped))


def _check_config(path: Path | None, config: Any) -> None:
    """Compare the config of Hugging Face beside the weights, if there is one, with what their shapes say.

    Raises:
        ConfigError: they are of different models.
    """
    if path is None:
        return
    content = read_json_object(path, ConfigError)
    core = next(getattr(config, part) for part in ("fusion", "transformer", "text") if hasattr(config, part))
    sections = [(content, core)]
    for key, part in (("text_config", "text"), ("vision_config", "vision")):
        if isinstance(inner := content.get(key), Mapping):
            sections.append((inner, getattr(config, part, None)))
    if "vision_config" not in content:
        sections.append((content, getattr(config, "vision", None)))
    for theirs, ours in sections:
        for key, name in _SAID.items():
            found, expected = theirs.get(key), getattr(ours, name, None)
            if None not in (found, expected) and coerce(found, int, f"{path}: {key}") != expected:
                raise ConfigError(
                    f"{path} has {key} = {shown(found)}, the weights beside it have {expected}; take both "
                    "from the same model"
                )


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


def _heads(paper: Paper, given: str | Path | None, beside: Path | None) -> dict[str, Any]:
    """Read the number of heads of every part of a model from the release's config.json.

    A part that has a section of its own there, such as `vision_config`, has its heads in it, or heads of 64.

    Args:
        paper: says which parts there are.
        given: the config that the user names, if any.
        beside: that beside the weights, if any.

    Raises:
        ConfigError: the one that the user names has none, or numbers of heads are none.
    """
    path = given or beside
    content = read_json_object(path, ConfigError) if path else {}
    default, found = next(iter(paper.sizes.values())), {}
    for part in (item.name for item in fields(default) if hasattr(getattr(default, item.name), "num_heads")):
        section = content.get(f"{part}_config")
        section = section if isinstance(section, Mapping) else content
        if (heads := section.get("num_attention_heads")) is not None:
            found[part] = {"num_heads": coerce(heads, Heads, f"{path}: num_attention_heads")}
    if given and not found:
        raise ConfigError(
            f"{path}: expected a number num_attention_heads, found None; give the config of the release, "
            "such as grounded_base_en.json, or leave it out"
        )
    return found


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


def _fill(
    run: RunConfig, converted: Converted, where: str
) -> tuple[Task, list[str], dict[str, tuple[list[int], list[int]]]]:
    """Return the task with the converted weights, what starts at random, and what was resized.

    Heads that the release lacks are removed.
    """
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
    resized = load_into(task, converted.tensors, where, ignore=fresh)
    if fresh:
        logger.info("not in %s, starting at random: %s", where, ", ".join(fresh))
    return task, fresh, resized
