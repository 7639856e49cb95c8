"""Errors that a user can fix. Each message says what was given, what was expected, and one thing to try.

The tools turn every `UnimoError` into one line on standard error and exit code 2; other errors are bugs and
keep their traceback.
"""

from __future__ import annotations

import difflib
import reprlib
from collections import abc

LONGEST_MESSAGE = 2_000
"""Characters of a message; whatever a file or a library put into it, it is no longer than a screen."""


class UnimoError(Exception):
    """Base of all errors that a user can fix."""

    def __str__(self) -> str:
        """Return the message; of a longer one than `LONGEST_MESSAGE` its beginning and its end."""
        text = super().__str__()
        half = (LONGEST_MESSAGE - 5) // 2
        return text if len(text) <= LONGEST_MESSAGE else f"{text[:half]} ... {text[-half:]}"


class ConfigError(UnimoError):
    """A configuration name, key or value is wrong."""


class DataError(UnimoError):
    """A data set, or too many of its records, cannot be used."""


class SplitError(DataError):
    """A data set does not have a split; a run without one to evaluate goes on."""


class RecordError(DataError):
    """One record is broken. The loader counts it, logs the first, and goes on."""


class CheckpointError(UnimoError):
    """Weights or training state cannot be read, or do not fit the model."""


class UnavailableError(CheckpointError):
    """Released weights are neither here nor can be fetched now."""


class MissingError(CheckpointError):
    """Released weights do not fit; some tensors may be missing.

    Attributes:
        missing: their name of each missing tensor -> ours, and its shape.
    """

    def __init__(self, message: str, missing: abc.Mapping[str, tuple[str, abc.Sequence[int]]]) -> None:
        super().__init__(message)
        self.missing = missing


class CapabilityError(UnimoError):
    """A task needs something that the chosen model does not offer."""


class DeviceError(UnimoError):
    """The device or the number of ranks cannot do what the configuration asks for."""


class TrainingError(UnimoError):
    """Training cannot go on, for example after a loss that is not finite."""


def nearest(name: str, known: abc.Iterable[str]) -> str:
    """Return the known names that are closest to a wrong one, or all of them, as the end of a message."""
    name, known = str(name), sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"nearest: {', '.join(close)}" if close else f"known: {', '.join(known)}"


def shown(value: object, length: int = 80) -> str:
    """Return a value from a file or a user as it stands in a message: its repr, cut to `length` characters.

    Only the first items of the first levels are looked at, so neither a value that is many gigabytes when
    written out nor one nested a thousand times costs anything.
    """
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother, short.maxlong = 3, length, length, length
    try:
        text = short.repr(value)
    except Exception:  # whole numbers of more than 4,300 digits, objects with a repr of their own
        text = f"<{type(value).__name__}>"
    return text if len(text) <= length else text[: length - 3] + "..."


def first_line(error: Exception) -> str:
    """Return the kind of an error of another library, and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def visible(name: str) -> str:
    """Return a name for a message: quoted and escaped if it has blanks around it or what cannot be seen."""
    return name if name and name == name.strip() and name.isprintable() else ascii(name)
