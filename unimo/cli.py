"""What all command-line tools share: arguments, logging, and errors as one line. Imports no Paddle."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import sys
import warnings
from collections.abc import Callable

from unimo.errors import UnimoError

USER_ERROR, LOST_CONTACT, INTERRUPTED = 2, 3, 130


def arguments(description: str, example: str) -> argparse.ArgumentParser:
    """A parser with an example at the end of its help."""
    return argparse.ArgumentParser(
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of tools that carry out a run: dotted overrides and `--dry-run`."""
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="change a config value, e.g. train.max_steps=200 output_dir=output/try",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the resolved config and stop")


def run(main: Callable[[], int | None]) -> None:
    """Call `main` and exit: 0 done, 2 for what a person can mend (one message, no traceback).

    Anything else keeps its traceback: it is a bug.
    """
    _start_logging()
    try:
        code = main() or 0
        sys.stdout.flush()
    except UnimoError as error:
        code = _say(f"error: {error}", USER_ERROR)
    except KeyboardInterrupt:
        code = _say("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except RuntimeError as error:
        if not _lost_contact(error):
            raise
        code = _say("lost contact with another rank; its log says why", LOST_CONTACT)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM):
            raise
        place = error.filename or "the output folder"
        code = _say(
            f"error: {place}: {error.strerror}; mend that or choose another output folder", USER_ERROR
        )
    _leave(code)


def is_main_rank() -> bool:
    """Whether this process should print results: always when it runs alone."""
    return os.environ.get("PADDLE_TRAINER_ID", "0") == "0"


def _say(message: str, code: int) -> int:
    print(message, file=sys.stderr, flush=True)
    return code


def _lost_contact(error: RuntimeError) -> bool:
    """Whether a collective failed because another rank has ended."""
    text = str(error)
    return is_one_of_many() and ("gloo/transport" in text or "Connection reset by peer" in text)


def is_one_of_many() -> bool:
    """Whether `paddle.distributed.launch` started this process as one of several ranks."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1


def _leave(code: int) -> None:
    """End the process. A failed rank must not wait for the others in Paddle's clean-up."""
    if code and is_one_of_many():
        logging.shutdown()
        os._exit(code)
    sys.exit(code)


def _start_logging() -> None:
    """Progress of rank 0 and warnings of all ranks, on standard error."""
    rank = os.environ.get("PADDLE_TRAINER_ID", "0")
    prefix = "" if rank == "0" else f"[rank {rank}] "
    level = logging.INFO if rank == "0" else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format=f"{prefix}%(message)s", stream=sys.stderr)
    logging.getLogger("unimo").setLevel(level)
    # Paddle looks for a C++ compiler cache on import and warns that there is none.
    warnings.filterwarnings("ignore", message="No ccache found")
