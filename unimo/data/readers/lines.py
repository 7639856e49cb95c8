"""Random access to the lines of a file, shared by the readers of one sample a line."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path

from unimo.data.readers.base import read_at
from unimo.errors import DataError, RecordError


class LineFile:
    """The lines of a file, located when it is opened and read when asked for.

    Args:
        keep: decides by number (from 1) and content whether a line counts, called once for each line in
            order; lines with text when None.

    Raises:
        DataError: the file cannot be read.
    """

    def __init__(self, path: Path, keep: Callable[[int, bytes], bool] | None = None) -> None:
        self.path = path
        # Flat arrays: millions of small objects would cost gigabytes.
        self._begins, self._sizes, self._numbers = array("q"), array("q"), array("q")
        begin = 0
        try:
            with open(path, "rb") as file:
                for number, line in enumerate(file, start=1):
                    if keep(number, line) if keep else line.strip():
                        self._begins.append(begin)
                        self._sizes.append(len(line))
                        self._numbers.append(number)
                    begin += len(line)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error

    def __len__(self) -> int:
        return len(self._begins)

    def where(self, index: int) -> str:
        """Return file and line number, for messages."""
        return f"{self.path}, line {self._numbers[index]}"

    def sample_id(self, index: int) -> str:
        """Return file stem and line number, for records."""
        return f"{self.path.stem}:{self._numbers[index]}"

    def content(self, index: int) -> bytes:
        """Read the bytes of one line.

        Raises:
            RecordError: the file is gone or shorter than it was.
        """
        return read_at(self.path, self._begins[index], self._sizes[index])

    def text(self, index: int) -> str:
        """Read one line without its end.

        Raises:
            RecordError: not UTF-8.
        """
        try:
            return self.content(index).decode("utf8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise RecordError(f"{self.where(index)}: not valid UTF-8 at byte {error.start}") from error
