"""How many steps of two trainings fit into a time: a short run of each is timed first."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unimo.errors import ConfigError
from unimo.files import read_json_object, write_text

TIMED_STEPS = 12
"""Steps of a timed run."""
_WARM_UP = 3
"""First steps, which are slower and do not count."""
LEAST_STEPS = 10
CHOICE = "steps.json"
"""File that keeps what was chosen, so that the same command goes on with it."""


@dataclass(frozen=True)
class Pace:
    """Cost of a training on this machine."""

    step: float
    """Seconds of a step."""
    rest: float
    """Seconds of everything else: start, evaluation, saving."""


def read_pace(seconds: float, folder: Path) -> Pace:
    """Return the pace of the timed run that wrote `folder` and took so long by the clock."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf8").splitlines())
    steps = [line["step_seconds"] for line in lines if line["split"] == "train"]
    return Pace(statistics.median(steps[_WARM_UP:]), max(0.0, seconds - sum(steps)))


def fit(paces: Mapping[str, Pace], recipe: Mapping[str, int], seconds: float) -> dict[str, int]:
    """Return the steps of each training that fit into a time, in the proportion of the recipes.

    No training gets more steps than its recipe or fewer than `LEAST_STEPS`.

    Args:
        paces: what each training costs.
        recipe: the steps of each recipe.
        seconds: the time for all trainings.
    """
    rest = seconds - sum(each.rest for each in paces.values())
    share = rest / sum(each.step * recipe[name] for name, each in paces.items())
    return {
        name: max(min(LEAST_STEPS, steps), min(steps, int(share * steps))) for name, steps in recipe.items()
    }


def kept_choice(folder: Path, minutes: float) -> dict[str, int]:
    """Return the steps that an earlier call with the same limit chose for a folder; {} if there is none.

    Raises:
        ConfigError: the folder was begun with another limit.
    """
    path = folder / CHOICE
    if not path.is_file():
        return {}
    kept = read_json_object(path, ConfigError)
    if kept.pop("minutes", None) != minutes:
        raise ConfigError(f"{folder} was begun with other --minutes; give another --output, or remove it")
    return kept


def keep_choice(folder: Path, minutes: float, steps: Mapping[str, int]) -> None:
    """Write what was chosen, for `kept_choice`."""
    write_text(folder / CHOICE, json.dumps({"minutes": minutes, **steps}) + "\n")
