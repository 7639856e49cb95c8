"""Progress of long work: a bar on a terminal, lines of the log elsewhere, and nothing on other ranks."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

from unimo import cli

logger = logging.getLogger(__name__)
T = TypeVar("T")
_REDRAW = 0.5
"""Seconds after which the time that has gone is shown anew."""
_FIRST, _LONGEST = 2.0, 60.0
"""Seconds before the first line, and most seconds between two lines: at first they double."""
_DAY = 86400.0


class Progress:
    """A piece of work: how much of it is done, how fast, for how long, and when it will be over.

    A clock of its own keeps it going, so that a sign of life comes before the first part is done.

    Args:
        what: the work, in a word or two.
        total: number of its parts; None or 0 if it is not known.
        done: parts that are done before.
        unit: name of the parts.
        quiet: show nothing.
    """

    def __init__(
        self, what: str, total: int | None = None, done: float = 0, *, unit: str = "", quiet: bool = False
    ) -> None:
        self.what, self.total, self.done, self.unit = what, total or None, done, unit
        self.detail = ""
        """Text behind the numbers."""
        self._before, self._started = done, time.monotonic()
        self._next_line, self._lines, self._last = _FIRST, 0, done
        self._bar: tqdm | None = None
        self._ended = threading.Event()
        is_shown = not quiet and cli.is_main_rank()
        if is_shown and sys.stderr.isatty():
            form = "{desc} {percentage:3.0f}%|{bar}|" if self.total else "{desc}"
            self._bar = tqdm(total=self.total, bar_format=form, leave=None, dynamic_ncols=True)
        self._has_lines = is_shown and self._bar is None and logger.isEnabledFor(logging.INFO)
        if self._bar is not None or self._has_lines:
            self.tick()
            threading.Thread(target=self._keep_ticking, name="progress", daemon=True).start()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def skip(self, count: float) -> None:
        """Count parts that were done before, which say nothing of the speed."""
        self._before += count
        self.done += count

    def update(self, count: float = 1) -> None:
        """Count parts that are done now."""
        self.done += count

    def say(self, text: str) -> None:
        """Show a line of its own; the next one about the progress comes later."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        elif self._has_lines:
            logger.info(text)
            self._put_off()

    def tick(self) -> None:
        """Show where the work stands: in the bar, or in a line if that is due."""
        if self._bar is not None or time.monotonic() - self._started >= self._next_line:
            self.log()

    def log(self) -> None:
        """Show where the work stands: in the bar, or in a line."""
        if self._bar is not None:
            self._bar.n = min(self.done, self.total) if self.total else self.done
            self._bar.set_description_str(str(self))
        elif self._has_lines:
            self._lines, self._last = self._lines + 1, self.done
            logger.info("%s", self)
            self._put_off()

    def close(self) -> None:
        """Show the end, unless that was shown, or the work was so short that nothing was."""
        if self._ended.is_set():
            return
        self._ended.set()
        if self._bar is not None:
            self.tick()
            self._bar.close()
        elif self._lines and self._last != self.done:
            logger.info("%s", self)

    def __str__(self) -> str:
        """Return done and total, speed, and the time that has gone and that is left."""
        gone = time.monotonic() - self._started
        total = f"/{self.total}" if self.total else ""
        parts = [f"{self.what} {int(self.done)}{total} {self.unit}".rstrip(), self.detail]
        new = self.done - self._before
        if new > 0 and gone > 0:
            rate = new / gone
            parts.append(f"{rate:.2f} {self.unit or 'parts'}/s" if rate >= 1 else f"{1 / rate:.1f} s each")
        parts.append(f"elapsed {_interval(gone)}")
        if new > 0 and self.total:
            parts.append(f"ETA {_interval(max(0.0, self.total - self.done) / new * gone)}")
        return "  ".join(filter(None, parts))

    def _put_off(self) -> None:
        gone = time.monotonic() - self._started
        self._next_line = gone + min(max(gone, _FIRST), _LONGEST)

    def _keep_ticking(self) -> None:
        while not self._ended.wait(_REDRAW):
            self.tick()


def _interval(seconds: float) -> str:
    return tqdm.format_interval(seconds) if seconds < 4 * _DAY else f"{seconds / _DAY:.0f} days"


def tracked(
    items: Iterable[T], what: str, total: int | None = None, *, unit: str = "", quiet: bool = False
) -> Iterator[T]:
    """Yield items and show the progress, of `total` or of as many as `items` says."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(what, total, unit=unit, quiet=quiet) as shown:
        for item in items:
            yield item
            shown.update()
