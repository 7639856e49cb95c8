"""Turn data sets into Arrow tables; `python tools/prepare_data.py --help` lists the commands."""

import argparse
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo.cli import add_command, arguments, run  # noqa: E402 - works from a clone that is not installed
from unimo.data.prepare.commands import COMMANDS  # noqa: E402
from unimo.progress import tracked  # noqa: E402

EXAMPLES = "\n  ".join(f"python tools/prepare_data.py {one.name} {one.example}" for one in COMMANDS)


def main(words: list[str] | None = None) -> None:
    """Prepare one data set and print its counts as JSON."""
    args = vars(_parser().parse_args(words))
    prepare: Callable[..., dict] = args.pop("prepare")
    progress = functools.partial(tracked, unit="images")
    print(json.dumps(prepare(**args, progress=progress), indent=2, ensure_ascii=False))


def _parser() -> argparse.ArgumentParser:
    about = "Turn data sets into Arrow tables in the column layout of ViLT, METER and VLMo."
    parser = arguments(about, EXAMPLES)
    names = "|".join(command.name for command in COMMANDS)
    commands = parser.add_subparsers(required=True, metavar=names)
    for command in COMMANDS:
        options = add_command(commands, command.name, command.what, EXAMPLES)
        options.set_defaults(prepare=command.prepare)
        for name, option in command.options.items():
            options.add_argument(name, **option)
    return parser


if __name__ == "__main__":
    run(main)
