"""UNIMO with and without its parts on `scenes`: questions, retrieval, captions, texts and images alone."""

from __future__ import annotations

import argparse
import functools
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

# Name -> config of pre-training; Tables 2 to 4 of the paper, and CMCL without either augmentation.
VARIANTS = {
    "full": (),
    "w/o single-modal": ("model.objective.contrast=itm", "data.texts=[]", "data.images=[]"),
    "w/o texts": ("data.texts=[]",),
    "w/o pairs & images": ("data.pairs=[]", "data.images=[]"),
    "CMCL w/o rewriting": ("task.augment.rewrites=",),
    "CMCL w/o retrieval": ("task.augment.texts=", "task.augment.images="),
    "not pre-trained": (),
}
SCORES = {
    "vqa": "VQA",
    "vqa_blank": "VQA, images blanked",
    "zero_shot_rsum": "zero-shot retrieval, R@1+5+10, both",
    "ir_r1": "retrieval, IR R@1",
    "tr_r1": "TR R@1",
    "cider": "caption CIDEr",
    "scenes_exact": "captions all right",
    "text": "texts alone, correlation",
    "image": "images alone (probe)",
    "minutes": "minutes",
}
FEW = ("data.scenes.val_images=25",)
"""What fine-tuning evaluates retrieval on when it ends, instead of all 500 scenes: a million pairs."""
GALLERY = ("data.scenes.val_images=200", "data.scenes.captions_per_image=1")
"""Retrieval among 200 held-out scenes, each pair of which is scored."""
SIMILARITY = ("task.dataset=stsb", "train.select_metric=correlation")
"""How alike two descriptions are; a few steps exhaust the other forms of the texts of `scenes`."""


def main() -> None:
    """Train and evaluate every variant, then print the table and write it as JSON."""
    parser = cli.arguments(__doc__, "python tools/unimo_table.py --seeds 0 1 2 --jobs 2 data.regions=DIR")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--pretrain-steps", type=int, default=1000)
    parser.add_argument("--vqa-steps", type=int, default=1000)
    parser.add_argument("--retrieval-steps", type=int, default=400, help="0: zero-shot only")
    parser.add_argument("--caption-steps", type=int, default=600)
    parser.add_argument("--probe-steps", type=int, default=300, help="of texts alone, and of images alone")
    add_study_arguments(parser, "output/unimo_table")
    args = parser.parse_intermixed_args()
    print(format_table(run_study(variant_jobs(args, pretrain_and_score), args.output, args.jobs)))


def pretrain_and_score(args: argparse.Namespace, variant: str, seed: int, bench: Bench) -> Row:
    """One row: pre-train a variant, then every task from it."""
    folder, started = bench.folder, time.monotonic()
    common = (f"seed={seed}", "data.num_workers=1", *args.overrides)
    model, row = "none", {"variant": variant, "seed": seed}
    if variant != "not pre-trained":
        steps = f"train.max_steps={args.pretrain_steps}"
        words = (f"output_dir={folder}/pretrain", steps, *common, *VARIANTS[variant])
        bench.call("pretrain.py", "unimo_tiny", *words)
        model = f"{folder}/pretrain/model"
        # Without pairs nothing was compared, and the score is the one that the model was born with.
        zero_shot = ("--task", "retrieval", "--zero-shot", "--model", model, "--split", "val")
        row["zero_shot_rsum"] = bench.scores(*zero_shot, "data.path=scenes", *GALLERY)["rsum"]
    trained = functools.partial(tune, bench, model, common)
    vqa = trained("vqa", args.vqa_steps)
    row["vqa"] = bench.scores("--task", "vqa", "--model", vqa, "--split", "val")["overall"]
    blank = bench.scores("--task", "vqa", "--model", vqa, "--split", "val", "--blank-images")
    row["vqa_blank"] = blank["overall"]
    if args.retrieval_steps:
        found = trained("retrieval", args.retrieval_steps, *FEW)
        row |= bench.scores("--task", "retrieval", "--model", found, "--split", "val", *GALLERY)
    row |= bench.scores("--task", "caption", "--model", trained("caption", args.caption_steps))
    text = trained("text_classification", args.probe_steps, *SIMILARITY)
    row["text"] = bench.scores("--task", "text_classification", "--model", text)["correlation"]
    image = trained("image_classification", args.probe_steps, "task.linear_probe=true")
    row["image"] = bench.scores("--task", "image_classification", "--model", image)["accuracy"]
    return row | {"minutes": round((time.monotonic() - started) / 60, 2)}


def tune(bench: Bench, model: str, common: tuple[str, ...], task: str, steps: int, *words: str) -> str:
    """Fine-tune on a task, and give back the model directory."""
    output = f"{bench.folder}/{task}"
    start = ("--model", "unimo_tiny", "--init", model)
    lengths = (f"output_dir={output}", f"train.max_steps={steps}")
    bench.call("finetune.py", "--task", task, *start, *lengths, *common, *words)
    return f"{output}/model"


def format_table(rows: list[Row]) -> str:
    """Markdown: the mean and each seed of every score, a line a variant."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["variant"], []).append(row)
    lines = [
        [name, *(mean_and_each(found, key) if key in found[0] else "" for key in SCORES)]
        for name, found in groups.items()
    ]
    return markdown_table(["pre-training", *SCORES.values()], lines)


if __name__ == "__main__":
    cli.run(main)
