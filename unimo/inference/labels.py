"""Class names and prompts for zero-shot classification, checked as they are given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unimo.data.checks import check_text
from unimo.errors import ConfigError, DataError, RecordError
from unimo.files import read_text
from unimo.limits import CONFIG_BYTES

PROMPT = "a photo of {}"
"""The prompt of UNIMO-2, section 5.2."""


def read_labels(path: str | Path) -> list[str]:
    """Read the class names of a file, one a line.

    Raises:
        DataError: the file cannot be read, or has fewer than two names, an empty line or a repeated name.
    """
    lines = read_text(path, CONFIG_BYTES, DataError, "labels").rstrip().split("\n")
    return _checked(lines, f"labels file {path}", "line")


def split_labels(text: str) -> list[str]:
    """Split class names that are separated by commas."""
    return _checked(text.split(","), f"--labels {text!r:.60}", "name")


def _checked(names: Sequence[str], where: str, unit: str) -> list[str]:
    names = [name.strip() for name in names]
    if not any(names):
        raise DataError(f"{where} is empty; expected one class name a line, at least two")
    places: dict[str, int] = {}
    for place, name in enumerate(names, start=1):
        try:
            check_text(name)
        except RecordError as error:
            raise DataError(f"{where}, {unit} {place}: no class name ({error}); take it out") from error
        first = places.setdefault(name, place)
        if first != place:
            raise DataError(f"{where}, {unit} {place}: {name!r} stands there already as {unit} {first}")
    if len(names) < 2:
        raise DataError(f"{where} has one class, {names[0]!r}; expected at least two to choose from")
    return names


def check_prompt(prompt: str) -> str:
    """Return a prompt that a class name can be put into.

    Raises:
        ConfigError: it does not hold `{}` exactly once.
    """
    if prompt.count("{}") != 1:
        raise ConfigError(f"prompt {prompt!r}: expected one {{}} where the class name goes, e.g. {PROMPT!r}")
    return prompt


def align_labels(labels: Sequence[str], classes: Sequence[str], where: str) -> list[str]:
    """Return a label for each class of a data set: the label of the same name, else that at the same place.

    Folders of ImageNet are named `n01440764`; a file of labels then has their meanings in the same order.

    Raises:
        DataError: the labels are not the classes, and there are more or fewer of them.
    """
    if set(labels) == set(classes):
        return list(classes)
    if len(labels) != len(classes):
        strange = [label for label in labels if label not in classes]
        raise DataError(
            f"{where} has {len(labels)} names and the data set {len(classes)} classes "
            f"({', '.join(classes[:5])}, ...); expected one for each, in their order"
            + (f"; not among them: {', '.join(strange[:3])}" if strange else "")
        )
    return list(labels)
