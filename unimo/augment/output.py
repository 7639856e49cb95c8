"""A jsonl file that a restarted job continues: one line for each sample, in the order of the corpus."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from unimo.augment.checks import prepare_output
from unimo.errors import DataError
from unimo.files import write_text
from unimo.jobs import check_same_job


class ResumableWriter:
    """Appends lines to a file; keeps the lines of a killed run, except for an unfinished last one.

    `NAME.job.json` beside `NAME.jsonl` describes the job that wrote it.

    Args:
        path: the jsonl file.
        job: corpus fingerprint, settings, and everything else that determines the content.

    Raises:
        ConfigError: a folder has that name, or the folder of the file cannot be created.
        DataError: the file belongs to another job, or another process is writing it.
    """

    def __init__(self, path: str | Path, job: Mapping[str, Any]) -> None:
        self.path = Path(path)
        prepare_output(self.path)
        note = self.path.with_suffix(".job.json")
        if self.path.exists():
            check_same_job(note, job, f"{self.path} holds the work of another job")
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
        """Number of lines that were already written."""

    def __enter__(self) -> ResumableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line and flush it, so that killing the process does not lose it."""
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


def describe_files(path: Path) -> str:
    """Describe a file or a folder by names, sizes and modification times, without reading the content.

    Raises:
        DataError: it does not exist.
    """
    try:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        states = [(str(file.relative_to(path)), file.stat()) for file in files]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    described = json.dumps([(name, state.st_size, state.st_mtime_ns) for name, state in states])
    size = sum(state.st_size for _, state in states)
    return f"{path.name}, {size} bytes, {hashlib.sha256(described.encode()).hexdigest()[:16]}"
