"""Compare models and seeds on `scenes` VQA, with and without pre-training, at one budget of time."""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli  # noqa: E402 - works from a clone that is not installed
from unimo.errors import UnimoError  # noqa: E402

TOOLS = Path(__file__).resolve().parent
MODELS = ("unimo3_tiny", "bridgetower_tiny", "meter_tiny")
SCRATCH = ("optim.lr=1e-3", "optim.lr_multipliers.heads=5")  # the recipe's rate spares pre-trained weights


def main() -> None:
    """Train and evaluate every variant, then print the table and write it as JSON."""
    parser = cli.arguments(__doc__, "python tools/scenes_table.py --seeds 0 1 2 --jobs 2")
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="pre-trained, then fine-tuned")
    parser.add_argument("--scratch", nargs="*", default=["unimo3_tiny"], help="fine-tuned only")
    parser.add_argument("--pretrain-steps", type=int, default=1500)
    parser.add_argument("--finetune-steps", type=int, default=1800)
    parser.add_argument("--scratch-steps", type=int, default=4600, help="that take as long as both trainings")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="variants at a time; the cores are shared out")
    parser.add_argument("--output", type=Path, default=Path("output/scenes_table"))
    args = parser.parse_args()
    threads = max(1, len(os.sched_getaffinity(0)) // args.jobs)
    variants = [(model, True) for model in args.models] + [(model, False) for model in args.scratch]
    jobs = [(*variant, seed) for seed in args.seeds for variant in variants]
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        futures = [pool.submit(train_and_score, args, *job, threads) for job in jobs]
        rows = []
        for future in concurrent.futures.as_completed(futures):
            rows.append(future.result())
            print(json.dumps(rows[-1]), flush=True)
    (args.output / "table.json").write_text(json.dumps(rows, indent=1), encoding="utf8")
    print(format_table(rows))


def train_and_score(
    args: argparse.Namespace, model: str, pretrain: bool, seed: int, threads: int
) -> dict[str, object]:
    """One row: train a model with a seed, evaluate it with and without seeing the images."""
    folder = args.output / f"{model}_{'pretrained' if pretrain else 'scratch'}_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    common, started = (f"seed={seed}", "data.num_workers=1"), time.monotonic()
    tuning = ["finetune.py", "--task", "vqa", "--model", model, f"output_dir={folder}/vqa", *common]
    if pretrain:
        words = (model, f"output_dir={folder}/pretrain", f"train.max_steps={args.pretrain_steps}", *common)
        call(folder, threads, "pretrain.py", *words)
        tuning += ["--init", f"{folder}/pretrain/model", f"train.max_steps={args.finetune_steps}"]
    else:
        tuning += ["--init", "none", f"train.max_steps={args.scratch_steps}", *SCRATCH]
    call(folder, threads, *tuning)
    minutes = (time.monotonic() - started) / 60
    evaluation = ("evaluate.py", "--task", "vqa", "--model", f"{folder}/vqa/model", "--split", "val")
    seeing = json.loads(call(folder, threads, *evaluation))
    blind = json.loads(call(folder, threads, *evaluation, "--blank-images"))
    return {
        "model": model,
        "pretrained": pretrain,
        "seed": seed,
        "minutes": round(minutes, 2),
        "questions": seeing["samples"],
        "blank": blind["metrics"]["overall"],
        **seeing["metrics"],
    }


def call(folder: Path, threads: int, tool: str, *words: str) -> str:
    """Standard output of a tool; what it logs goes to `FOLDER/log.txt`.

    Raises:
        UnimoError: the tool failed.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with (folder / "log.txt").open("a", encoding="utf8") as log:
        done = subprocess.run(
            [sys.executable, str(TOOLS / tool), *words],
            stdout=subprocess.PIPE, stderr=log, text=True, env=environment, check=False,
        )  # fmt: skip
    if done.returncode:
        raise UnimoError(f"tools/{tool} ended with code {done.returncode}; see {folder / 'log.txt'}")
    return done.stdout


def format_table(rows: Sequence[dict[str, object]]) -> str:
    """Markdown: mean over seeds of every score, and the single overall scores."""
    groups: dict[tuple[str, bool], list[dict[str, object]]] = {}
    for row in rows:
        groups.setdefault((str(row["model"]), bool(row["pretrained"])), []).append(row)
    skip = {"model", "pretrained", "seed", "questions", "overall", "blank", "minutes"}
    kinds = [name for name in rows[0] if name not in skip]
    head = ["model", "pre-trained", "overall (each seed)", "images blanked", "minutes", *kinds]
    lines = ["| " + " | ".join(head) + " |"]
    lines.append("|---" * len(head) + "|")
    for (model, pretrained), found in groups.items():
        found.sort(key=lambda row: int(row["seed"]))
        names = ("overall", "blank", "minutes", *kinds)
        mean = {name: statistics.mean(float(row[name]) for row in found) for name in names}
        each = ", ".join(f"{row['overall']:.1f}" for row in found)
        cells = [model, "yes" if pretrained else "no", f"**{mean['overall']:.1f}** ({each})"]
        cells += [f"{mean[name]:.1f}" for name in ("blank", "minutes", *kinds)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
