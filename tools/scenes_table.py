"""Compare models and seeds on `scenes` VQA, with and without pre-training, at one budget of time."""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli
from unimo.benchmark.study import Bench, Row, add_study_arguments, markdown_table, mean_and_each, run_study

MODELS = ("unimo3_tiny", "bridgetower_tiny", "meter_tiny")
SCRATCH = ("optim.lr=1e-3", "optim.lr_multipliers.heads=5")  # the recipe's rate spares pre-trained weights
NOT_KINDS = {"model", "pretrained", "seed", "questions", "overall", "blank", "minutes"}


def main() -> None:
    """Train and evaluate every variant, then print the table and write it as JSON."""
    parser = cli.arguments(__doc__, "python tools/scenes_table.py --seeds 0 1 2 --jobs 2")
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="pre-trained, then fine-tuned")
    parser.add_argument("--scratch", nargs="*", default=["unimo3_tiny"], help="fine-tuned only")
    parser.add_argument("--pretrain-steps", type=int, default=1500)
    parser.add_argument("--finetune-steps", type=int, default=1800)
    parser.add_argument("--scratch-steps", type=int, default=4600, help="that take as long as both trainings")
    add_study_arguments(parser, "output/scenes_table")
    args = parser.parse_intermixed_args()
    variants = [(model, True) for model in args.models] + [(model, False) for model in args.scratch]
    jobs = {
        f"{model}_{'pretrained' if pretrain else 'scratch'}_{seed}": functools.partial(
            train_and_score, args, model, pretrain, seed
        )
        for seed in args.seeds
        for model, pretrain in variants
    }
    print(format_table(run_study(jobs, args.output, args.jobs)))


def train_and_score(args: argparse.Namespace, model: str, pretrain: bool, seed: int, bench: Bench) -> Row:
    """One row: train a model with a seed, evaluate it with and without seeing the images."""
    folder, common, started = (
        bench.folder,
        (f"seed={seed}", "data.num_workers=1", *args.overrides),
        time.monotonic(),
    )
    tuning = ["finetune.py", "--task", "vqa", "--model", model, f"output_dir={folder}/vqa", *common]
    if pretrain:
        steps = f"train.max_steps={args.pretrain_steps}"
        bench.call("pretrain.py", model, f"output_dir={folder}/pretrain", steps, *common)
        tuning += ["--init", f"{folder}/pretrain/model", f"train.max_steps={args.finetune_steps}"]
    else:
        tuning += ["--init", "none", f"train.max_steps={args.scratch_steps}", *SCRATCH]
    bench.call(*tuning)
    minutes = (time.monotonic() - started) / 60
    evaluation = ("--task", "vqa", "--model", f"{folder}/vqa/model", "--split", "val")
    blind = bench.scores(*evaluation, "--blank-images")["overall"]
    about = {"model": model, "pretrained": pretrain, "seed": seed, "minutes": round(minutes, 2)}
    return about | {"blank": blind} | bench.scores(*evaluation)


def format_table(rows: list[Row]) -> str:
    """Markdown: mean over seeds of every score, and the single overall scores."""
    groups: dict[tuple[str, bool], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["model"], row["pretrained"]), []).append(row)
    kinds = [name for name in rows[0] if name not in NOT_KINDS]
    lines = []
    for (model, pretrained), found in groups.items():
        means = [statistics.mean(row[name] for row in found) for name in ("blank", "minutes", *kinds)]
        cells = [model, "yes" if pretrained else "no", mean_and_each(found, "overall")]
        lines.append(cells + [f"{mean:.1f}" for mean in means])
    head = ["model", "pre-trained", "overall (each seed)", "images blanked", "minutes", *kinds]
    return markdown_table(head, lines)


if __name__ == "__main__":
    cli.run(main)
