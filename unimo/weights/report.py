"""What came of the tensors of a conversion: loaded, left over, resized, or started at random."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from unimo.digests import digest
from unimo.weights.name_map import Tensors
from unimo.weights.stored import Stored

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


@dataclass(frozen=True)
class Report:
    """Result of a conversion."""

    folder: Path
    """Folder that was written."""
    what: str
    """Kind of it, such as `roberta tower`."""
    source: str
    """Name of the kind of weights that they were."""
    parameters: int
    """Number of values that were taken over."""
    tensors: int
    """Number of our tensors that they make."""
    loaded: int
    """Number of their tensors that were used."""
    left_over: Sequence[str]
    """Names of those that were not."""
    initialised: Sequence[str] = ()
    """Our tensors that start at random."""
    resized: Mapping[str, tuple[list[int], list[int]]] = field(default_factory=dict)
    """Our tensor -> its shape in the file, and ours."""

    def text(self) -> str:
        """Return the report as lines, with the SHA-256 of the file of weights.

        Raises:
            OSError: the file cannot be read.
        """
        kind = "released parameters" if self.what == "model" else "parameters"
        resized = [f"{name} {before} -> {after}" for name, (before, after) in self.resized.items()]
        return "\n".join(
            [
                f"{self.folder}: {self.what}, {self.parameters:,} {kind} in {self.tensors} tensors, from "
                f"{self.source}",
                f"loaded       {self.loaded} of their {self.loaded + len(self.left_over)} tensors",
                _line("initialised", self.initialised),
                _line("left over", self.left_over),
                _line("resized", resized),
                f"sha256       {digest(self.folder / 'model.safetensors')}  model.safetensors",
            ]
        )


def _line(what: str, names: Sequence[str]) -> str:
    return f"{what:<12} {len(names)}" + (f": {', '.join(grouped(names))}" if names else "")


def grouped(names: Iterable[str]) -> list[str]:
    """Return names of which those that differ in the number of a layer are one: `layers.{0-11}.norm.bias`."""
    groups: dict[str, list[int]] = {}
    for name in names:
        number = _NUMBER.search(name)
        key = name if number is None else f"{name[: number.start()]}{{}}{name[number.end() :]}"
        groups.setdefault(key, []).extend([] if number is None else [int(number[0])])
    return [key.replace("{}", _range(numbers), 1) for key, numbers in groups.items()]


def _range(numbers: list[int]) -> str:
    numbers = sorted(set(numbers))
    if len(numbers) < 2:
        return "".join(map(str, numbers))
    whole = numbers == list(range(numbers[0], numbers[-1] + 1))
    return f"{{{numbers[0]}-{numbers[-1]}}}" if whole else f"{{{','.join(map(str, numbers))}}}"


def used(tensors: Tensors) -> tuple[int, list[str]]:
    """Return how many tensors of a file were read, and the names of the others."""
    there = {name: value for name, value in tensors.items() if isinstance(value, Stored) and value.is_there}
    left = [name for name, value in there.items() if not value.is_read]
    return len(there) - len(left), left


def is_allowed(names: Iterable[str], patterns: Iterable[str]) -> bool:
    """Return whether one of the names of a tensor fits one of the patterns of `--allow-missing`."""
    patterns = list(patterns)
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)
