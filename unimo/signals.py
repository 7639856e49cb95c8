"""Signals that ask a process to end: SIGTERM of schedulers and `kill`, SIGINT of Ctrl-C, SIGHUP of a closed
terminal, and SIGUSR1, which SLURM sends with `--signal=USR1@120`.

Work that can be taken up again hears of them through a listener; the innermost one is told. The tools listen
with `interrupt`, training notes the request and ends between two rounds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")
Listener = Callable[[str], None]
"""Is told the name of a signal, in the main thread, between any two lines."""
_listeners: list[Listener] = []
_interrupts = 0
_terminals: list[int] = []
"""File descriptors of our output that are terminals."""


class Interrupted(BaseException):
    """A signal asked this process to end; the text is its name. What has been done is on the disk.

    Like KeyboardInterrupt, it is no Exception: what handles errors of samples or files lets it through.
    """


def interrupt(name: str) -> None:
    """Raise Interrupted, wherever the main thread is; a listener."""
    raise Interrupted(name)


@contextlib.contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Tell a listener of the signals that come inside a `with` block; a second SIGINT is KeyboardInterrupt.

    Python handles signals in the main thread only; in others nothing changes. SIGHUP stays ignored if it was,
    which is what `nohup` asks for.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = _take_over() if not _listeners else {}
    depth = len(_listeners)
    try:
        _listeners.append(listener)
        yield
    finally:
        del _listeners[depth:]
        for number, handler in previous.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _take_over() -> dict[int, object]:
    global _interrupts
    _interrupts, _terminals[:] = 0, filter(os.isatty, (1, 2))
    wanted = [signal.Signals[name] for name in NAMES]
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        wanted.remove(signal.SIGHUP)
    return {number: signal.signal(number, _tell) for number in wanted}


def _tell(number: int, frame: FrameType | None) -> None:
    global _interrupts
    _interrupts += number == signal.SIGINT
    if _interrupts > 1:
        _interrupts = 0
        raise KeyboardInterrupt
    for output in _terminals:
        if number == signal.SIGHUP and not os.isatty(output):  # it has gone: writing would be an error
            os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    if _listeners:
        _listeners[-1](signal.Signals(number).name)


def say(text: str) -> None:
    """Write a line to standard error from a listener, where what `print` and loggers use may be locked."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.write(sys.stderr.fileno(), f"{text}\n".encode())
