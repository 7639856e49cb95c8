"""Pre-train a model: python tools/pretrain.py unimo3_tiny train.max_steps=200

Papers with stages: task.stage=NAME, or task.stages=all for one after the other.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli  # noqa: E402 - works from a clone that is not installed
from unimo.run_series import load_stages  # noqa: E402
from unimo.settings import RunConfig  # noqa: E402
from unimo.training.listing import list_pretraining  # noqa: E402


def main() -> int:
    """Read the recipe, show it or run it, print the summary."""
    parser = cli.arguments(
        "Pre-train a model by a recipe of configs/*/pretrain.yaml, or by a YAML file.",
        "python tools/pretrain.py unimo3_tiny train.max_steps=200 output_dir=output/try",
    )
    parser.add_argument("recipe", help="name such as unimo3_base, unimo3_tiny, meter_base, or a YAML file")
    cli.add_run_arguments(parser, RunConfig)
    cli.add_list(parser, list_pretraining, "recipes")
    args = parser.parse_intermixed_args()

    runs = load_stages(args.recipe, "pretrain", args.overrides)
    from unimo.training.command import carry_out  # Paddle, not for --help and --list

    return carry_out(*runs, dry_run=args.dry_run, plan=args.plan)


if __name__ == "__main__":
    cli.run(main)
