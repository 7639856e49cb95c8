"""What a job writes: folders, and a jsonl file with a line for each caption, which a new start continues."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from unimo.augment.corpus import Caption, CaptionCorpus
from unimo.errors import ConfigError, DataError, shown
from unimo.files import checked_path, is_at, make_folder, write_text
from unimo.jobs import Shard, check_same_job
from unimo.metrics.text import encodable
from unimo.progress import Progress

logger = logging.getLogger(__name__)
Line = dict[str, Any]
LinesOf = Callable[[Sequence[Caption]], Iterable[Line]]
"""Makes the lines of some captions, in their order."""


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Lock a folder, waiting for other processes on this machine; the lock of a killed process is released.

    The first process prepares the files in the folder, and the others find them ready.

    Raises:
        ConfigError: the folder cannot be created.
    """
    make_folder(folder)
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting for another process that works in %s", folder)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


class ResumableWriter(AbstractContextManager["ResumableWriter"]):
    """Appends lines to a file; keeps the lines of a killed run, except for an unfinished last one.

    `NAME.job.json` beside `NAME.jsonl` describes the job that wrote it: corpus fingerprint, settings, and
    everything else that determines the content.

    Raises:
        DataError: the file belongs to another job, another process is writing it, or, at the end, it was
            removed meanwhile.
    """

    def __init__(self, path: str | Path, job: Mapping[str, Any]) -> None:
        self.path = Path(path)
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

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._file:
            if kind is None and not is_at(self._file, self.path):
                raise DataError(f"{self.path} was removed or moved while it was written; run the job again")

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line and flush it, so that killing the process does not lose it."""
        self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        self._file.flush()


@dataclass(frozen=True)
class Job:
    """Inputs and outputs of a job, and the part of it that this process does."""

    captions: CaptionCorpus
    out: Path
    """The jsonl file."""
    folder: Path
    """Folder of index, statistics and embeddings, created if needed and kept for the next run."""
    shard: Shard
    """Part of the captions to process."""
    progress: Callable[..., Progress] = Progress
    """Makes a progress, see there."""

    def check(self) -> None:
        """Check captions and output first, because what precedes the first line can take hours.

        Raises:
            ConfigError: the output cannot be written.
            DataError: too few readable captions.
        """
        if checked_path(self.out, ConfigError, "the output").is_dir():
            raise ConfigError(
                f"the output {self.out} is a folder; expected a file to write, e.g. "
                f"{self.out / 'augmented.jsonl'}"
            )
        make_folder(self.out.parent)
        self.captions.check()

    def write(self, about: Mapping[str, Any], doing: str, lines_of: LinesOf, together: int = 1) -> None:
        """Write the line of every caption of the shard; samples without readable text get one that says so.

        Args:
            about: all settings that determine the lines.
            doing: description of the progress bar.
            lines_of: makes the lines of `together` captions at a time.

        Raises:
            DataError: the file belongs to another job.
        """
        size = len(self.captions)
        with (
            ResumableWriter(self.out, {**about, "shard": str(self.shard)}) as writer,
            self.progress(doing, len(self.shard.numbers(size)), writer.done) as bar,
        ):
            numbers = iter(self.shard.numbers(size, writer.done))
            while chunk := list(islice(numbers, together)):
                captions = list(map(self.captions.get, chunk))
                lines = iter(lines_of(list(filter(None, captions))))
                for number, caption in zip(chunk, captions, strict=True):
                    writer.write(next(lines) if caption else self._skipped(number))
                bar.update(len(chunk))

    def _skipped(self, number: int) -> Line:
        """Make the line of a sample without a readable text, which says where it stands and what it has."""
        reason = encodable(self.captions.complaint(number))
        return {"id": self.captions.sample_id(number), "skipped": "no readable text", "reason": reason}


def describe_files(path: Path) -> str:
    """Describe a file or a folder by names, sizes and modification times, without reading the content.

    Raises:
        DataError: it does not exist.
    """
    try:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        states = [(str(file.relative_to(path)), file.stat()) for file in files]
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"cannot read {shown(str(path))}: {reason}") from error
    described = json.dumps([(name, state.st_size, state.st_mtime_ns) for name, state in states])
    size = sum(state.st_size for _, state in states)
    return f"{path.name}, {size} bytes, {hashlib.sha256(described.encode()).hexdigest()[:16]}"
