"""Broken records of a preparation or a file: left out and counted, and an error where they are too many."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from unimo.errors import ConfigError, DataError, RecordError

log = logging.getLogger(__name__)
_NAMED, _KEPT = 3, 100
MOST = 0.5
"""Share of broken lines at which a file beside the data, such as one of captions to compare with, is refused:
it is of another kind or another model then."""


class BrokenRecords:
    """Counts the records of a source and those of them that are broken; the first is logged.

        for number, item in enumerate(items):
            with broken.skipping():
                read(item)

    Args:
        source: what the records come from, for messages.
        max_rate: largest share of them that may be broken.
        setting: what a person changes to allow more, for the message; empty if it cannot be changed.

    Raises:
        ConfigError: the share is not in [0, 1].
    """

    def __init__(self, source: object, max_rate: float, setting: str = "--max-missing-rate") -> None:
        if not 0 <= max_rate <= 1:
            raise ConfigError(f"{setting} {max_rate}: expected a share, 0 to 1; try 0.01")
        self.source, self.max_rate, self.setting = source, max_rate, setting
        self.read = self.count = 0
        self.examples: list[str] = []
        """Reasons of the first ones."""

    @contextlib.contextmanager
    def skipping(self) -> Iterator[None]:
        """Run a block that reads one record; a `RecordError` ends the block and is counted."""
        self.read += 1
        try:
            yield
        except RecordError as error:
            self.count += 1
            if self.count == 1:
                log.warning("skipped %s (further ones are only counted)", error)
            if len(self.examples) < _KEPT:
                self.examples.append(str(error))

    def check(self) -> None:
        """Check, before anything is made of them, that enough records are left, and log how many are not.

        Raises:
            DataError: more than `max_rate` of the records were broken.
        """
        if self.count > self.max_rate * self.read:
            raise DataError(
                f"{self.count} of {self.read} samples of {self.source} are broken, more than "
                f"{self.setting or 'the share of'} {self.max_rate:g} allows; the first: "
                f"{'; '.join(self.examples[:_NAMED])}"
            )
        if self.count > 1:
            log.warning("%d of %d samples of %s are broken and left out", self.count, self.read, self.source)
