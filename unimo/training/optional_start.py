"""Weights that a run starts from where they can be had: names that end in `?`, as recipes have them.

    model.text.init=roberta-base?    this tower, or a warning and random numbers
    model.text.init=roberta-base     this tower, or an error

`init_from` may be optional too. A run that goes on keeps what it began with, and fetches nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unimo import distributed
from unimo.config import to_plain
from unimo.errors import UnavailableError
from unimo.inference.release import fetch_card
from unimo.registry import with_sections
from unimo.settings import RunConfig
from unimo.training import checkpoint, stages, start
from unimo.weights.cards import is_offline
from unimo.weights.named import card_of, is_here, tokenizer_of

logger = logging.getLogger(__name__)
MARK = "?"


def settle(run: RunConfig, download: bool = True) -> RunConfig:
    """Return the run with every optional name settled: without its mark, or empty. Collective.

    Args:
        run: the run.
        download: fetch what is not here; without, it counts as absent.

    Raises:
        CheckpointError: the output folder is that of another run, or files that are here are damaged.
    """
    run = settle_start([run], download)
    wanted = {part: name for part, name in tower_starts(run.model).items() if name.endswith(MARK)}
    if not wanted:
        return run
    last, source = distributed.on_first(lambda: start.choose_start(run, Path(run.output_dir)))
    if last is not None:
        found = checkpoint.read_settings(last)["model"]
        begun = {part: (found.get(part) or {}).get("init", "") for part in wanted}
    elif source != "scratch":
        begun = dict.fromkeys(wanted, "")
    else:
        begun = distributed.on_first(lambda: _towers(run, wanted, download))
    return replace(run, model=with_sections(run.model, {part: {"init": begun[part]} for part in wanted}))


def settle_start(runs: Sequence[RunConfig], download: bool = True) -> RunConfig:
    """Return the first of the runs of all stages, or a single run, with `init_from` settled. Collective.

    What has already gone through the stage of a single run is no start for it.

    Raises:
        CheckpointError: as of `settle`.
    """
    run = runs[0]
    if not run.init_from.endswith(MARK):
        return run
    if download:
        distributed.setup(run.train)
    return replace(run, init_from=distributed.on_first(lambda: _start(runs, download)))


def optional_keys(run: RunConfig) -> list[str]:
    """Return the settings of a run that are optional names, as `model.text.init`."""
    names = {f"model.{part}.init": name for part, name in tower_starts(run.model).items()}
    return [key for key, name in {**names, "init_from": run.init_from}.items() if name.endswith(MARK)]


def without_optional(run: RunConfig) -> RunConfig:
    """Return the run without its optional names."""
    keys = optional_keys(run)
    changes = {key.split(".")[1]: {"init": ""} for key in keys if key != "init_from"}
    start = "" if "init_from" in keys else run.init_from
    return replace(run, init_from=start, model=with_sections(run.model, changes))


def tower_starts(model: Any) -> dict[str, str]:
    """Return the weights that parts of a model start from: section -> name, of those that have one."""
    parts = to_plain(model).items()
    return {part: found["init"] for part, found in parts if isinstance(found, Mapping) and found.get("init")}


def _start(runs: Sequence[RunConfig], download: bool) -> str:
    for each in runs:
        if (last := checkpoint.find_last(Path(each.output_dir))) is not None:
            return checkpoint.read_settings(last)["init_from"]
    run, name = runs[0], runs[0].init_from.removesuffix(MARK)
    if run.resume:
        return ""
    if problem := _lack(name, download):
        _warn(run, {"init_from": name}, {"init_from": problem}, download)
        return ""
    is_past = len(runs) == 1 and getattr(run.task, "stage", "") in stages.behind(replace(run, init_from=name))
    return "" if is_past else name


def _towers(run: RunConfig, wanted: Mapping[str, str], download: bool) -> dict[str, str]:
    """Return the names of those that are here, or come; empty for the others, after a warning."""
    names = {part: name.removesuffix(MARK) for part, name in wanted.items()}
    words = run.data.tokenizer == "auto"
    problems = {part: _lack(name, download, words and part == "text") for part, name in names.items()}
    lacking = {f"model.{part}.init": problem for part, problem in problems.items() if problem}
    if lacking:
        _warn(run, {f"model.{part}.init": name for part, name in names.items()}, lacking, download)
    return {part: "" if problems[part] else name for part, name in names.items()}


def _lack(name: str, download: bool, with_tokenizer: bool = False) -> str:
    """Return why weights cannot be had; empty if they are here now."""
    card = card_of(name)
    if card is None:
        return "" if Path(name).exists() else f"there is no folder {name}"
    if not download and (is_here(card) or not is_offline()):
        return "" if is_here(card) else f"{card.title} is not here yet"
    try:
        fetch_card(card)
        if with_tokenizer:
            tokenizer_of(card)
    except UnavailableError as error:
        return str(error)
    return ""


def _warn(run: RunConfig, names: Mapping[str, str], lacking: Mapping[str, str], download: bool) -> None:
    """Say loudly what is random, and how to get it."""
    cards = [card for key in lacking if (card := card_of(names[key])) is not None]
    command = f"python tools/weights.py fetch {' '.join(dict.fromkeys(card.name for card in cards))}"
    if not download and not is_offline():
        keys = " ".join(f"{key}={names[key]}" for key in lacking)
        logger.warning("%s: fetched when the run starts, else random; now: %s", keys, command)
        return
    problems = "\n".join(f"  {key}={names[key]}: {problem}" for key, problem in lacking.items())
    logger.warning(
        "RANDOM WEIGHTS: %s starts from released weights in its recipe, and these cannot be had:\n%s\n"
        "Get them once, where there is a network, with\n  %s\n"
        "and start again with another output_dir=. If random ones are meant, say %s",
        *(run.model.name, problems, command, " ".join(f"{key}=" for key in lacking)),
    )
