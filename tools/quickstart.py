"""Pre-train, fine-tune, evaluate and ask: the whole way in minutes, on the built-in `scenes` corpus.

    python tools/quickstart.py --minutes 5

Each step is one of the public commands, printed before it runs, so that it can be repeated by hand.
"""

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli  # noqa: E402 - works from a clone that is not installed
from unimo.ranges import Positive  # noqa: E402
from unimo.studies.quickstart import Quickstart  # noqa: E402


def main() -> None:
    """Read the command line and go the whole way."""
    parser = cli.arguments(
        "Pre-train, fine-tune, evaluate and ask, with the public commands, in minutes.",
        "python tools/quickstart.py --minutes 5 --output output/short",
    )
    parser.add_argument("--output", type=Path, default=Path("output/quickstart"), help="where to write")
    limit = "cut the trainings so that everything takes about so long; default: the steps of the recipes"
    parser.add_argument("--minutes", type=cli.number(Positive), help=limit)
    parser.add_argument("--question", action="append", default=[], help="ask this instead; may be repeated")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for both trainings")
    args = parser.parse_intermixed_args()
    show = functools.partial(print, flush=True)
    Quickstart(args.output, show, args.minutes, args.question, args.overrides).run()


if __name__ == "__main__":
    cli.run(main)
