"""Arguments, logging and errors of all command-line tools. Imports no Paddle."""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from unimo._runtime import end_with_parent
from unimo.config import coerce
from unimo.errors import ConfigError, UnimoError, visible

USER_ERROR, LOST_CONTACT, INTERRUPTED = 2, 3, 130
_LONGEST = 4000
"""Characters of a message."""
DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM, errno.EIO)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are those of a user: one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError with what is wrong with the command line."""
        message = re.sub(r"^argument (\S+): (?=\S+: expected)", r"\1 ", message)
        raise ConfigError(f"{message}; see {self.prog} --help")


def arguments(description: str, example: str) -> argparse.ArgumentParser:
    """Return a parser that prints an example at the end of its help."""
    return Parser(
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of tools that carry out a run: dotted overrides, `--dry-run`, `--plan`."""
    change = "change a config value, e.g. train.max_steps=200 output_dir=output/try"
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=change)
    parser.add_argument("--dry-run", action="store_true", help="print the resolved config and stop")
    parser.add_argument("--plan", action="store_true", help="print what the run would do and cost, and stop")


def add_command(commands: Any, name: str, what: str, examples: str) -> argparse.ArgumentParser:
    """Add a command to a tool; its help ends with the line of `examples` that has its name."""
    example = next(line for line in examples.splitlines() if f" {name} " in line)
    return commands.add_parser(name, help=what, description=what, epilog=f"example: {example.strip()}")


def number(kind: Any) -> Callable[[str], Any]:
    """Return the `type=` of an option: a number with its range, such as `unimo.ranges.Size`."""

    def read(text: str) -> Any:
        try:
            return coerce(text, kind, "")
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error).lstrip(" :")) from error

    return read


def run(main: Callable[[], int | None]) -> None:
    """Call `main` and exit with 0, or with 2 and a message of one line for an error that a user can fix.

    Other errors are bugs and keep their traceback.
    """
    _start_logging()
    if is_one_of_many():
        end_with_parent(os.getppid())()  # ranks do not outlive a killed launcher
    message = ""
    try:
        code = main() or 0
        sys.stdout.flush()
    except (UnimoError, MemoryError) as error:
        lack = "not enough memory for these batches, images or files: " * isinstance(error, MemoryError)
        message, code = f"error: {lack}{' '.join(str(error).split())}"[:_LONGEST], USER_ERROR
    except KeyboardInterrupt:
        message, code = "interrupted", INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except RuntimeError as error:
        # A collective fails in these ways when another rank has ended.
        signs = ("gloo/transport", "Connection reset by peer")
        if not (is_one_of_many() and any(sign in str(error) for sign in signs)):
            raise
        message, code = "lost contact with another rank; its log says why", LOST_CONTACT
    except OSError as error:
        if error.filename is None and error.errno not in DISK_TROUBLE:
            raise
        place = str(error.filename or "the output folder")
        message = (
            f"error: {visible(place[:300])}: {error.strerror}; fix that, or choose another file or folder"
        )
        code = USER_ERROR
    if message:
        print(message, file=sys.stderr, flush=True)
    _leave(code)


def is_main_rank() -> bool:
    """Return whether this process prints results: rank 0, or a process that runs alone."""
    return os.environ.get("PADDLE_TRAINER_ID", "0") == "0"


def is_one_of_many() -> bool:
    """Return whether `paddle.distributed.launch` started this process as one of several ranks."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1


def _leave(code: int) -> None:
    """End the process; a failed rank does not wait for the others in Paddle's clean-up."""
    if code and is_one_of_many():
        logging.shutdown()
        os._exit(code)
    sys.exit(code)


def _start_logging() -> None:
    """Log progress of rank 0 and warnings of all ranks, on standard error; let all names be printed."""
    rank = os.environ.get("PADDLE_TRAINER_ID", "0")
    prefix = "" if rank == "0" else f"[rank {rank}] "
    level = logging.INFO if rank == "0" else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format=f"{prefix}%(message)s", stream=sys.stderr)
    logging.getLogger("unimo").setLevel(level)
    # Paddle looks for a C++ compiler cache on import and warns that there is none.
    warnings.filterwarnings("ignore", message="No ccache found")
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may hold bytes that are not UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
