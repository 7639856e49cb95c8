"""Progress of a job: a bar with rate and remaining time on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time

from tqdm import tqdm

logger = logging.getLogger("unimo.ppdet_features")
EVERY = 20.0
"""Seconds between lines."""


class Progress:
    """Counts images; a context manager.

    Args:
        total: number of images of this process.
        done: number of images that an earlier run has done.
        quiet: show nothing.
    """

    def __init__(self, total: int, done: int, quiet: bool = False) -> None:
        self._total, self._done, self._first = total, done, done
        self._is_bar, self._quiet = sys.stderr.isatty(), quiet

    def __enter__(self) -> Progress:
        shown = self._is_bar and not self._quiet
        self._bar = tqdm(total=self._total, initial=self._done, unit=" images", disable=not shown)
        self._started = self._logged = time.monotonic()
        if self._done and not self._quiet:
            logger.info("%d of %d images are done already", self._done, self._total)
        return self

    def update(self, count: int) -> None:
        """Advance by `count` images."""
        self._done += count
        self._bar.update(count)
        now = time.monotonic()
        if not (self._is_bar or self._quiet) and now - self._logged >= EVERY:
            self._logged = now
            rate = (self._done - self._first) / (now - self._started)
            left = tqdm.format_interval((self._total - self._done) / rate)
            logger.info("%d/%d images  %.2f/s  ETA %s", self._done, self._total, rate, left)

    def __exit__(self, *error: object) -> None:
        self._bar.close()
