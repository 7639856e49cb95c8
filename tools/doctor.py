"""Examine this machine before a long run: python tools/doctor.py"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli  # noqa: E402 - works from a clone that is not installed

EXAMPLE = """python tools/doctor.py --quick
  python tools/doctor.py > table.md
  python tools/doctor.py --recipe unimo3_base data.pairs=DIR output_dir=/scratch/run
  python tools/doctor.py --recipes --json"""
DESCRIPTION = """Examine what is installed, this machine, its devices and disk, and check training itself:
bf16 and fp16 against fp32, sharding and recomputation against data parallel, fused attention against the
plain path, resume bit for bit, no reads by the host within a step, the loader against the speed of a step.
Prints one Markdown table; exit code 2 if something is wrong. Works without a GPU, without data (on the
built-in corpus) and without Paddle, and says what it could not run."""


def main() -> int:
    """Run the checks and print the table."""
    parser = cli.arguments(DESCRIPTION, EXAMPLE)
    parser.add_argument(
        "--recipe", default="unimo3_tiny", help="recipe of pre-training to examine [unimo3_tiny]"
    )
    parser.add_argument(
        "--recipes", action="store_true", help="speed of every base recipe, on a CPU too: minutes each"
    )
    parser.add_argument("--quick", action="store_true", help="versions, machine, disk and devices: seconds")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    change = "change the recipe, e.g. data.pairs=DIR; output_dir=DIR names the disk"
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=change)
    arguments = parser.parse_intermixed_args()

    from unimo.doctor import examine, machine, report
    from unimo.settings import load_run_config

    run = load_run_config(arguments.recipe, "pretrain", arguments.overrides)
    named = any(word.startswith("output_dir=") for word in arguments.overrides)
    options = report.Options(
        recipe=arguments.recipe,
        overrides=tuple(arguments.overrides),
        folder=run.output_dir if named else "output",
        every_recipe=arguments.recipes,
    )
    checks = examine.chosen(arguments.quick)
    print(examine.announce(checks, options), file=sys.stderr, flush=True)
    rows = examine.examine(checks, options)
    form = report.format_json if arguments.json else report.format_markdown
    print(form(rows, machine.heading()))
    return report.exit_code(rows)


if __name__ == "__main__":
    cli.run(main)
