"""A jsonl file that a killed job goes on writing: one line a sample, in the order of the corpus."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from unimo.augment.checks import prepare_output
from unimo.config import write_text
from unimo.errors import DataError


class ResumableWriter:
    """Appends lines; what a killed run has written stays, but for a line that it did not finish.

    Beside `NAME.jsonl` lies `NAME.job.json`, which says what made it.

    Args:
        path: the jsonl file.
        job: corpus fingerprint, settings, and whatever else decides about the content.

    Raises:
        ConfigError: a folder has that name, or its own cannot be made.
        DataError: the file was begun by another job, or another process is writing it.
    """

    def __init__(self, path: str | Path, job: Mapping[str, Any]) -> None:
        self.path = Path(path)
        prepare_output(self.path)
        note = self.path.with_suffix(".job.json")
        if self.path.exists():
            check_same(note, job, f"{self.path} holds the work of another job")
        else:
            write_text(note, json.dumps(dict(job), indent=2) + "\n")
        self._file = open(self.path, "a+b")  # noqa: SIM115 - closed by __exit__
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise DataError(
                f"another process is writing {self.path}; wait for it, or name another file or shard"
            ) from error
        self.done = self._keep_whole_lines()
        """Lines that were there already."""

    def __enter__(self) -> ResumableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line; it is handed to the system at once, so killing the process does not lose it."""
        self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        self._file.flush()

    def _keep_whole_lines(self) -> int:
        self._file.seek(0)
        count = whole = 0
        for line in self._file:
            if line.endswith(b"\n"):
                count, whole = count + 1, whole + len(line)
        self._file.truncate(whole)
        return count


def check_same(note: Path, job: Mapping[str, Any], complaint: str) -> None:
    """Compare a job with the one that a `*.job.json` tells of.

    Raises:
        DataError: they differ, or the note cannot be read.
    """
    try:
        old = json.loads(note.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{complaint}: {note} cannot be read ({error}); remove both or name others"
        ) from error
    wanted = json.loads(json.dumps(dict(job)))
    other = sorted(key for key in {*old, *wanted} if old.get(key) != wanted.get(key))
    if other:
        told = ", ".join(f"{key} {old.get(key)!r:.200} there, {wanted.get(key)!r:.200} here" for key in other)
        raise DataError(f"{complaint} ({told}); remove it, or name another file or folder")


def describe_files(path: Path) -> str:
    """What a file, or a folder of files, can be told apart from others by without reading it.

    Raises:
        DataError: it is not there.
    """
    try:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        states = [(str(file.relative_to(path)), file.stat()) for file in files]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    told = json.dumps([(name, state.st_size, state.st_mtime_ns) for name, state in states])
    size = sum(state.st_size for _, state in states)
    return f"{path.name}, {size} bytes, {hashlib.sha256(told.encode()).hexdigest()[:16]}"
