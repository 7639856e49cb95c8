"""Several processes at one corpus: the share that each does, and what only one may do at a time.

And what the jobs ask of a progress bar.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from unimo.augment.checks import make_folder
from unimo.errors import ConfigError

log = logging.getLogger(__name__)


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

    @classmethod
    def of_rank(cls, environ: Mapping[str, str] = os.environ) -> Shard:
        """The share of this rank of `unimo.training.launch`; all of it for a process that runs alone."""
        return cls(int(environ.get("PADDLE_TRAINER_ID", "0")), int(environ.get("PADDLE_TRAINERS_NUM", "1")))

    def file(self, path: Path) -> Path:
        """Where this share goes: `a-0-of-4.jsonl` for the first of four of `a.jsonl`."""
        return path if self.of == 1 else path.with_name(f"{path.stem}-{self.rank}-of-{self.of}{path.suffix}")

    def __str__(self) -> str:
        return f"{self.rank}/{self.of}"

    def numbers(self, size: int, done: int = 0) -> range:
        """Numbers of its samples, without the first `done`."""
        return range(self.rank + done * self.of, size, self.of)

    def count(self, size: int) -> int:
        """How many samples it has."""
        return len(self.numbers(size))


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other process of this machine is at this with the same folder; a killed one frees it.

    What is prepared in the folder is then made by the first and found ready by the others.

    Raises:
        ConfigError: the folder cannot be made.
    """
    make_folder(folder)
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process that is at work in %s", folder)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
