"""Broken records of a preparation: left out and counted, and an error where they are too many."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from unimo.errors import ConfigError, DataError, RecordError

log = logging.getLogger(__name__)
_NAMED, _KEPT = 3, 100


class BrokenRecords:
    """Counts the records of a source and those of them that are broken; the first is logged.

        for number, item in enumerate(items):
            with broken.skipping():
                read(item)

    Args:
        source: what the records come from, for messages.
        max_rate: largest share of them that may be broken.

    Raises:
        ConfigError: the share is not in [0, 1].
    """

    def __init__(self, source: object, max_rate: float) -> None:
        if not 0 <= max_rate <= 1:
            raise ConfigError(f"--max-missing-rate {max_rate}: expected a share, 0 to 1; try 0.01")
        self.source, self.max_rate = source, max_rate
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
        """Check, before anything is written, that enough records are left.

        Raises:
            DataError: more than `max_rate` of the records were broken.
        """
        if self.count > self.max_rate * self.read:
            raise DataError(
                f"{self.count} of {self.read} samples of {self.source} are broken, more than "
                f"--max-missing-rate {self.max_rate:g} allows; the first: {'; '.join(self.examples[:_NAMED])}"
            )
