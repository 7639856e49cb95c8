"""Progress bars as the jobs see them, and the share of a corpus that one of several processes does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from unimo.errors import ConfigError


class Bar(Protocol):
    """What a job asks of a progress bar; `tqdm` has it."""

    def update(self, n: int) -> object:
        """Go on by `n` steps."""


Progress = Callable[[str, int], AbstractContextManager[Bar]]
"""What is being done, and how many steps it takes."""


@dataclass(frozen=True)
class Shard:
    """Every `of`-th sample, from number `rank` on."""

    rank: int = 0
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `RANK/OF`, ranks from 0.

        Raises:
            ConfigError: not of that form, or the rank is not below the number of shards.
        """
        first, _, second = text.partition("/")
        if not (first.isdigit() and second.isdigit() and int(first) < int(second)):
            raise ConfigError(f"shard {text!r}: expected RANK/OF with RANK from 0, e.g. 0/4 ... 3/4")
        return cls(int(first), int(second))

    def __str__(self) -> str:
        return f"{self.rank}/{self.of}"

    def numbers(self, size: int, done: int = 0) -> range:
        """Numbers of its samples, without the first `done`."""
        return range(self.rank + done * self.of, size, self.of)

    def count(self, size: int) -> int:
        """How many samples it has."""
        return len(self.numbers(size))
