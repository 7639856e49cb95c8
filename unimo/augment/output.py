"""The output of a job: a jsonl file with a line for each caption, in order, which a new start continues."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from unimo.augment.checks import prepare_output
from unimo.augment.corpus import Caption, CaptionCorpus
from unimo.errors import DataError
from unimo.files import write_text
from unimo.jobs import Progress, Shard, check_same_job

Line = dict[str, Any]
LinesOf = Callable[[Sequence[Caption]], Iterable[Line]]
"""Makes the lines of some captions, in their order."""


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
        self._file.seek(0)
        whole = [len(line) for line in self._file if line.endswith(b"\n")]
        self._file.truncate(sum(whole))
        self.done = len(whole)
        """Number of lines that were already written."""

    def __enter__(self) -> ResumableWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line and flush it, so that killing the process does not lose it."""
        self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        self._file.flush()


@dataclass(frozen=True)
class Job:
    """Inputs and outputs of a job, and the part of it that this process does."""

    captions: CaptionCorpus
    """The captions to augment."""
    out: Path
    """The jsonl file."""
    folder: Path
    """Folder of index, statistics and embeddings, created if needed and kept for the next run."""
    shard: Shard
    """Part of the captions to process."""
    progress: Progress
    """Makes progress bars."""

    def check(self) -> None:
        """Check captions and output first, because what precedes the first line can take hours.

        Raises:
            ConfigError: the output cannot be written.
            DataError: too few readable captions.
        """
        prepare_output(self.out)
        self.captions.check()

    def write(self, about: Mapping[str, Any], doing: str, lines_of: LinesOf, together: int = 1) -> None:
        """Write the line of every caption of the shard; samples without readable text get one that says so.

        Args:
            about: all settings that determine the lines.
            doing: description of the progress bar.
            lines_of: makes the lines.
            together: number of captions passed to it at a time.

        Raises:
            DataError: the file belongs to another job.
        """
        size = len(self.captions)
        with (
            ResumableWriter(self.out, {**about, "shard": str(self.shard)}) as writer,
            self.progress(doing, self.shard.count(size)) as bar,
        ):
            bar.update(writer.done)
            numbers = iter(self.shard.numbers(size, writer.done))
            while chunk := list(islice(numbers, together)):
                captions = list(map(self.captions.get, chunk))
                lines = iter(lines_of(list(filter(None, captions))))
                for number, caption in zip(chunk, captions, strict=True):
                    skipped = {"id": f"#{number}", "skipped": "no readable text"}
                    writer.write(next(lines) if caption else skipped)
                bar.update(len(chunk))


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
