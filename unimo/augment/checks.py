"""Checks before a job starts: its settings, and the folders it writes to."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unimo.errors import ConfigError

logger = logging.getLogger(__name__)


def prepare_output(path: Path) -> None:
    """Create the folder of an output file, which a job does first, because its preparation can take hours.

    Raises:
        ConfigError: `path` is a folder, or the folder of the file cannot be created.
    """
    if path.is_dir():
        raise ConfigError(
            f"the output {path} is a folder; expected a file to write, e.g. {path / 'augmented.jsonl'}"
        )
    make_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Create a folder unless it exists.

    Raises:
        ConfigError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise ConfigError(f"{folder} is a file; expected a folder, new or existing: name another") from error
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder} ({error.strerror}); name another") from error


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


def check_at_least(settings: object, **least: int) -> None:
    """Check the minimum of fields of a settings dataclass.

    Raises:
        ConfigError: one of them is smaller.
    """
    for name, bound in least.items():
        value, default = getattr(settings, name), getattr(type(settings), name)
        if value < bound:
            raise ConfigError(f"{name} is {value}; expected {bound} or more, e.g. {default}, the default")
