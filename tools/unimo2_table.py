"""UNIMO-2 with and without its parts on `scenes`: zero-shot retrieval, captions, shapes; every seed."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli
from unimo.benchmark.study import (
    Bench,
    Row,
    add_study_arguments,
    markdown_table,
    mean_and_each,
    run_study,
    variant_jobs,
)

# Name -> config of pre-training; Tables 4 and 5 of the paper.
VARIANTS = {
    "full": (),
    "w/o GD": ("model.grounding.enabled=false", "model.fusion.visibility=full"),
    "1-to-1 map": ("model.grounding.method=one_to_one",),
    "w/o Grounded Transformer": ("model.fusion.visibility=full",),
}
ONE_CAPTION = "data.scenes.captions_per_image=1"
"""Retrieval scores every pair: with all four captions that takes four times as long."""
RECALLS = ("ir_r1", "ir_r5", "ir_r10", "tr_r1", "tr_r5", "tr_r10")
OTHERS = ("cider", "scenes_exact", "scenes_colors", "scenes_shapes", "shape_zero_shot", "shape_probe")


def main() -> None:
    """Train and evaluate every variant, then print the tables and write them as JSON."""
    parser = cli.arguments(__doc__, "python tools/unimo2_table.py --seeds 0 1 2 --jobs 2")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--pretrain-steps", type=int, default=1500)
    parser.add_argument("--caption-steps", type=int, default=1600)
    parser.add_argument("--probe-steps", type=int, default=600)
    add_study_arguments(parser, "output/unimo2_table")
    args = parser.parse_intermixed_args()
    print(format_tables(run_study(variant_jobs(args, pretrain_and_score), args.output, args.jobs)))


def pretrain_and_score(args: argparse.Namespace, variant: str, seed: int, bench: Bench) -> Row:
    """One row: pre-train a variant; the full model also writes captions and names shapes."""
    folder, common, started = (
        bench.folder,
        (f"seed={seed}", "data.num_workers=1", *args.overrides),
        time.monotonic(),
    )
    steps = f"train.max_steps={args.pretrain_steps}"
    bench.call(
        "pretrain.py", "unimo2_tiny", f"output_dir={folder}/pretrain", steps, *common, *VARIANTS[variant]
    )
    row: Row = {"variant": variant, "seed": seed, "minutes": round((time.monotonic() - started) / 60, 2)}
    model = f"{folder}/pretrain/model"
    retrieval = ("--task", "retrieval", "--zero-shot", "--model", model, "--split", "val", ONE_CAPTION)
    row |= bench.scores(*retrieval)
    if variant == "full":
        row |= describe(args, model, common, bench)
    return row


def describe(args: argparse.Namespace, model: str, common: tuple[str, ...], bench: Bench) -> Row:
    """Captions after fine-tuning; shapes without any, and by a linear probe."""
    folder, shapes = bench.folder, "image_classification"
    tune = ("finetune.py", "--init", model, *common)
    bench.call(
        *tune, "--task", "caption", f"output_dir={folder}/caption", f"train.max_steps={args.caption_steps}"
    )
    captions = bench.scores("--task", "caption", "--model", f"{folder}/caption/model", "--split", "val")
    words = ("task.linear_probe=true", f"output_dir={folder}/probe", f"train.max_steps={args.probe_steps}")
    bench.call(*tune, "--task", shapes, *words)
    zero_shot = ("--zero-shot", "--prompt", "a {} .", "--model", model)
    return captions | {
        "shape_zero_shot": bench.scores("--task", shapes, *zero_shot, "--split", "val")["accuracy"],
        "shape_probe": bench.scores("--task", shapes, "--model", f"{folder}/probe/model")["accuracy"],
    }


def format_tables(rows: list[Row]) -> str:
    """Markdown: zero-shot retrieval of every variant, and what the full model can do besides."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["variant"], []).append(row)
    lines = [[name, *(mean_and_each(found, key) for key in RECALLS)] for name, found in groups.items()]
    text = markdown_table(["zero-shot retrieval", *RECALLS], lines)
    if "full" not in groups:
        return text
    full = groups["full"]
    # Captions that name no colour or shape have no score for them.
    others = [[name, mean_and_each(full, name)] for name in OTHERS if all(name in row for row in full)]
    return f"{text}\n\n{markdown_table(['full model', 'mean (each seed)'], others)}"


if __name__ == "__main__":
    cli.run(main)
