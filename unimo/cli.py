"""Arguments, logging and errors of all command-line tools. Imports no Paddle."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import errno
import io
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from unimo import signals
from unimo._runtime import end_with_parent
from unimo.config import coerce, list_keys
from unimo.errors import ConfigError, UnimoError, visible

USER_ERROR, LOST_CONTACT, STOPPED, INTERRUPTED = 2, 3, 75, 130
"""Exit codes beside 0: an error that a user can fix; another rank has ended; a signal ended the work, and the
same command goes on (EX_TEMPFAIL of sysexits.h); a second Ctrl-C ended it at once."""
STOP_NOTE = "UNIMO_STOP_NOTE"
"""Environment variable: file that a rank leaves when all ranks have stopped together, for their launcher."""
_GRACE = 45.0
"""Seconds that a rank has to end by itself when its launcher is gone."""
_LONGEST = 4000
"""Characters of a message."""
DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM, errno.EIO)


_SPELLINGS = {
    "amp": "train.precision",
    "batch": "train.batch_size",
    "bf16": "train.precision",
    "bs": "train.batch_size",
    "checkpoint": "resume",
    "data_dir": "data.path",
    "dataset": "data.path",
    "eval_steps": "train.eval_every",
    "fp16": "train.precision",
    "gradient_accumulation_steps": "train.micro_batch_size",
    "img_size": "data.image_size",
    "learning_rate": "optim.lr",
    "logging_steps": "train.log_every",
    "max_length": "data.max_text_len",
    "max_seq_length": "data.max_text_len",
    "model_name_or_path": "init_from",
    "num_warmup_steps": "optim.warmup",
    "out": "output_dir",
    "output": "output_dir",
    "per_device_train_batch_size": "train.micro_batch_size",
    "pretrained": "init_from",
    "resume_from_checkpoint": "resume",
    "save_steps": "train.save_every",
    "steps": "train.max_steps",
    "tokenizer_name": "data.tokenizer",
    "warmup_steps": "optim.warmup",
    "workers": "data.num_workers",
}
"""Names of settings in other programs."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are those of a user: one line, without the usage.

    Attributes:
        settings: type of each setting that `KEY=VALUE` may change, by its key; empty for tools without.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.settings: Mapping[str, Any] = {}
        self._words: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as the base does, and remember the words for hints."""
        self._words = self._words or list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError with what is wrong with the command line, and what was probably meant."""
        message = re.sub(r"^argument (\S+): (?=\S+: expected)", r"\1 ", message)
        places = [place for place, word in enumerate(self._words) if self._is_unknown(word)]
        if self.settings and (hints := [self._hint(place) for place in places]):
            wrong = ", ".join(self._words[place].partition("=")[0] for place in places)
            raise ConfigError(f"no option {wrong}; write {' '.join(hints)}; see {self.prog} --help")
        raise ConfigError(f"{message}; see {self.prog} --help")

    def _is_unknown(self, word: str) -> bool:
        name = word.partition("=")[0]
        return _is_option(word) and not any(option.startswith(name) for option in self._option_string_actions)

    def _hint(self, place: int) -> str:
        """Return what to write in place of an unknown option."""
        option, has_value, value = self._words[place].partition("=")
        following = [*self._words[place + 1 : place + 2], ""][0]
        if not has_value and following and "=" not in following and not _is_option(following):
            value = following
        name = option.strip("-").replace("-", "_").lower()
        if name in ("epochs", "epoch", "num_epochs", "num_train_epochs", "max_epochs"):
            return "train.max_steps=STEPS (epochs x samples / train.batch_size)"
        if name in ("gpus", "num_gpus", "ngpus", "nproc_per_node"):
            return f"NPROC_PER_NODE={value or 'GPUS'} before bash scripts/run_....sh"
        key = self._key(name)
        if key is None:
            ends = {key.rpartition(".")[2]: key for key in reversed(self.settings)}
            options = {known.lstrip("-"): known for known in self._option_string_actions}
            close = difflib.get_close_matches(name, {**ends, **options}, n=3, cutoff=0.6)
            near = [options.get(end) or f"{ends[end]}={value or 'VALUE'}" for end in close]
            return " or ".join(near) or "settings as KEY=VALUE, e.g. train.max_steps=200"
        if key == "train.precision" and name != "precision":
            value = "bf16" if name == "amp" else name
        return f"{key}={value or ('true' if self.settings[key] is bool else 'VALUE')}"

    def _key(self, name: str) -> str | None:
        """Return the setting that an option of another program means; None if there is none."""
        for wanted in (name, _SPELLINGS.get(name, name)):
            found = [key for key in self.settings if key.lower() == wanted or key.endswith(f".{wanted}")]
            if found:
                return found[0]
        return None


def _is_option(word: str) -> bool:
    return bool(re.match("--?[a-zA-Z]", word))


def arguments(description: str, example: str) -> Parser:
    """Return a parser that prints an example at the end of its help."""
    return Parser(
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_overrides(parser: Parser, schema: type, example: str) -> None:
    """Add `KEY=VALUE` words, which change the config `schema`; an option of such a name is hinted at."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=f"change a setting, e.g. {example}")
    parser.settings = list_keys(schema)


def add_list(parser: Parser, show: Callable[[], str], what: str) -> None:
    """Add `--list`, which prints what `show` returns and needs no other argument."""

    class Show(argparse.Action):
        def __call__(self, *arguments: Any) -> NoReturn:
            print(show())
            parser.exit()

    parser.add_argument("--list", action=Show, nargs=0, help=f"list {what} and stop")


def add_run_arguments(parser: Parser, schema: type) -> None:
    """Add the arguments of tools that carry out a run: dotted overrides, `--dry-run`, `--plan`."""
    add_overrides(parser, schema, "train.max_steps=200 output_dir=output/try")
    about = "print the resolved config, check what it names, and stop"
    parser.add_argument("--dry-run", action="store_true", help=about)
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
    """Call `main` and exit with its code, or with 2 and a line of message for an error that a user can fix.

    A signal ends the process with `STOPPED` wherever it is, unless a listener within `main` hears it first
    (`unimo/signals.py`). Other errors are bugs and keep their traceback.
    """
    _start_logging()
    if is_one_of_many():
        end_with_parent(os.getppid())()  # ranks do not outlive a killed launcher
        threading.Thread(target=_end_without, args=(os.getppid(),), daemon=True).start()
    try:
        with signals.heard_by(signals.interrupt):
            code, message = _call(main)
    except signals.Interrupted as asked:
        code, message = STOPPED, f"stopped by {asked}; to go on, run the same command again"
    except KeyboardInterrupt:
        code, message = INTERRUPTED, "interrupted"
    if message:
        with contextlib.suppress(OSError):
            print(message, file=sys.stderr, flush=True)
    _leave(code, together=code == STOPPED and not message)


def _call(main: Callable[[], int | None]) -> tuple[int, str]:
    """Return the exit code of `main` and what is to be said."""
    message = ""
    try:
        code = main() or 0
        sys.stdout.flush()
    except (UnimoError, MemoryError) as error:
        lack = "not enough memory for these batches, images or files: " * isinstance(error, MemoryError)
        message, code = f"error: {lack}{' '.join(str(error).split())}"[:_LONGEST], USER_ERROR
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
    return code, message


def is_main_rank() -> bool:
    """Return whether this process prints results: rank 0, or a process that runs alone."""
    return os.environ.get("PADDLE_TRAINER_ID", "0") == "0"


def is_one_of_many() -> bool:
    """Return whether `paddle.distributed.launch` started this process as one of several ranks."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1


def code_after(stopped_by: str) -> int:
    """Return the exit code of a run that ended by itself (no name), at its time limit, or by a signal."""
    return STOPPED if stopped_by in signals.NAMES else 0


def run_child(command: Sequence[str], capture: bool = False) -> tuple[int, str]:
    """Run a command that gets the signals that ask this process to end, and return its code and output.

    It has a session of its own, so that it hears of a Ctrl-C once, and it ends with this process.

    Raises:
        Interrupted: it was stopped.
    """
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE if capture else None,
        text=True,
        start_new_session=True,
        preexec_fn=end_with_parent(os.getpid()),
    )
    asked: list[str] = []

    def pass_on(name: str) -> None:
        asked.append(name)
        child.send_signal(getattr(signal, name))

    try:
        with signals.heard_by(pass_on):
            printed = child.communicate()[0] or ""
    except BaseException:
        child.kill()
        raise
    if child.returncode == STOPPED or asked:
        raise signals.Interrupted(asked[-1] if asked else "a signal to its child")
    return child.returncode, printed


def _end_without(parent: int) -> None:
    """End this process some time after its parent, even if it hangs in a message to another rank."""
    while os.getppid() == parent:
        time.sleep(1)
    time.sleep(_GRACE)
    os._exit(LOST_CONTACT)


def _leave(code: int, together: bool = False) -> None:
    """End the process; a failed or stopped one waits neither for other ranks nor for threads that read.

    Paddle's launcher kills all ranks a few seconds after one has ended with another code than 0, so ranks
    that were stopped together end with 0 and leave a note.
    """
    if together and is_one_of_many() and STOP_NOTE in os.environ:
        Path(os.environ[STOP_NOTE]).touch()
        code = 0
    if not (together or code == STOPPED or code and is_one_of_many()):
        sys.exit(code)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _start_logging() -> None:
    """Log progress of rank 0 and warnings of all ranks, on standard error; let all names be printed."""
    rank = os.environ.get("PADDLE_TRAINER_ID", "0")
    prefix = "" if rank == "0" else f"[rank {rank}] "
    level = logging.INFO if rank == "0" else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format=f"{prefix}%(message)s", stream=sys.stderr)
    logging.getLogger("unimo").setLevel(level)
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may hold bytes that are not UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
