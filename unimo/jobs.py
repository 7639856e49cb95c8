"""Jobs over many samples: the part of each process, the note that describes a job."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimo.errors import ConfigError, DataError
from unimo.files import read_json_object


@dataclass(frozen=True)
class Shard:
    """The part of a job that one process does: every `of`-th sample, starting with number `rank`."""

    rank: int = 0
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `RANK/OF`, ranks from 0.

        Raises:
            ConfigError: not of that form, or the rank is not below the number of shards.
        """
        first, _, second = text.partition("/")
        if not (first.isdecimal() and second.isdecimal() and int(first) < int(second)):
            raise ConfigError(f"shard {text!r}: expected RANK/OF with RANK from 0, e.g. 0/4 ... 3/4")
        return cls(int(first), int(second))

    @classmethod
    def of_rank(cls, environ: Mapping[str, str] = os.environ) -> Shard:
        """Return the part of this rank of `unimo.training.launch`; everything for a single process."""
        return cls(int(environ.get("PADDLE_TRAINER_ID", "0")), int(environ.get("PADDLE_TRAINERS_NUM", "1")))

    def file(self, path: Path) -> Path:
        """Return where this part is written: `a-0-of-4.jsonl` for the first of four of `a.jsonl`."""
        return path if self.of == 1 else path.with_name(f"{path.stem}-{self.rank}-of-{self.of}{path.suffix}")

    def __str__(self) -> str:
        return f"{self.rank}/{self.of}"

    def numbers(self, size: int, done: int = 0) -> range:
        """Return the numbers of its samples among `size`, without the first `done` of them."""
        return range(self.rank + done * self.of, size, self.of)


def check_same_job(note: Path, job: Mapping[str, Any], complaint: str) -> None:
    """Compare a job with the one described in the note beside its output.

    Args:
        note: JSON file with the settings that the output depends on.
        job, complaint: the same settings now, and the start of the error message.

    Raises:
        DataError: they differ, or the note cannot be read.
    """
    try:
        old = read_json_object(note, DataError)
    except DataError as error:
        raise DataError(f"{complaint}: {error}; remove both or name others") from error
    check_same(old, job, complaint)


def check_same(old: Mapping[str, Any], new: Mapping[str, Any], complaint: str) -> None:
    """Compare what decided about an output with what decides about it now.

    Args:
        old, new: values read from JSON, and values that JSON can hold.
        complaint: start of the error message.

    Raises:
        DataError: they differ.
    """
    new = json.loads(json.dumps(dict(new)))
    changed = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    if changed:
        changes = ", ".join(
            f"{key} {old.get(key)!r:.200} there, {new.get(key)!r:.200} here" for key in changed
        )
        raise DataError(f"{complaint} ({changes}); remove it, or name another file or folder")
