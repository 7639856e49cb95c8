"""Numbers that settings may have: the type of a field says its range, for config files and options alike.

lr: NonNegative = 1e-4          a field of a config; `unimo.config` checks it where a value is read
type=cli.number(Size)           an option of a tool
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any

from unimo.errors import ConfigError

LARGEST_FLOAT, LARGEST_INT = 3e38, 2**31 - 1  # of float32, and of an index into a tensor
NUMBER = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
LONGEST = 40


@dataclass(frozen=True)
class Range:
    """Numbers from `least` to `most`."""

    least: float = -LARGEST_FLOAT
    most: float = LARGEST_FLOAT
    above: bool = False
    """`least` itself is not allowed."""
    below: bool = False
    """`most` itself is not allowed."""

    def __contains__(self, number: float) -> bool:
        low = number > self.least if self.above else number >= self.least
        return low and (number < self.most if self.below else number <= self.most)

    def __str__(self) -> str:
        if self.least == -LARGEST_FLOAT:
            return "a finite number"
        if self.most in (LARGEST_FLOAT, LARGEST_INT):
            return f"a number above {self.least:g}" if self.above else f"{self.least:g} or more"
        return f"{self.least:g} to {'below ' * self.below}{self.most:.15g}"


Number = Annotated[float, Range()]
"""Any finite number."""
NonNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
Share = Annotated[float, Range(0, 1)]
"""A share of something, or a probability."""
Dropout = Annotated[float, Range(0, 1, below=True)]
"""A share that is not all, such as the probability that dropout hides a unit."""
Count = Annotated[int, Range(0, LARGEST_INT)]
"""How many there are, or how many steps lie between two of something; none is possible."""
Size = Annotated[int, Range(1, LARGEST_INT)]
"""How many there are; none is impossible."""
TextLength = Annotated[int, Range(3, LARGEST_INT)]
"""Tokens of a text, of which two begin and end it."""
Seed = Annotated[int, Range(0, 2**32 - 1)]
"""A seed that Paddle, NumPy and scikit-learn accept."""
Threads = Annotated[int, Range(0, 1024)]
Depth = Annotated[int, Range(1, 1000)]
"""Layers of a network."""
Heads = Annotated[int, Range(1, 1024)]
Width = Annotated[int, Range(1, 2**17)]
"""Channels of a state."""
Words = Annotated[int, Range(1, 10**7)]
"""Rows of a vocabulary or dictionary, or positions of a table."""
Classes = Annotated[int, Range(0, 10**7)]
Pixels = Annotated[int, Range(1, 2**14)]
"""Side of an image."""


def at_least(least: int) -> Any:
    """Return the type of a whole number from `least` on."""
    return Annotated[int, Range(least, LARGEST_INT)]


def read_number(value: Any, kind: type) -> int | float | None:
    """Return a value as an int or float, or None if it is none of that kind.

    A text such as `1e-5`, which YAML 1.1 does not take for a number, is one in decimal notation. `010`,
    `1_000`, `0x10` and `12:30` are not: readers of YAML disagree about what they mean.

    Args:
        value: a number or text.
        kind: int or float.
    """
    if isinstance(value, str):
        text = value.strip()
        if len(text) > LONGEST or not NUMBER.fullmatch(text):
            return None
        value = float(text) if set(text) & set(".eE") else int(text)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if kind is int:
        return int(value) if math.isfinite(value) and int(value) == value else None
    try:
        return float(value)
    except OverflowError:
        return None


def check_number(number: float, allowed: Range, where: str, example: Any = None) -> None:
    """Check that a number is in its range.

    Args:
        number, allowed: the number and its range.
        where: what it was given for, for the message.
        example: a value to try, such as the default.

    Raises:
        ConfigError: it is not, or it is not finite.
    """
    if number not in allowed:
        fits = isinstance(example, (int, float)) and example in allowed
        hint = f"; try {example:g}" if fits else ""
        raise ConfigError(f"{where} {number:.15g}: expected {allowed}{hint}")
