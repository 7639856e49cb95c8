"""Pre-train, fine-tune, evaluate and ask: the whole way in minutes, on the built-in `scenes` corpus.

    python tools/quickstart.py

Each step is one of the public commands, printed before it runs, so that it can be repeated by hand.
"""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli  # noqa: E402 - works from a clone that is not installed
from unimo.errors import UnimoError  # noqa: E402
from unimo.files import make_folder  # noqa: E402

TOOLS = Path(__file__).resolve().parent
MODEL = "unimo3_tiny"
NEXT = """next:
  bash scripts/run_pretrain.sh unimo3_base --dry-run     # the recipe of the paper, resolved
  python tools/finetune.py --task retrieval --init {output}/pretrain/model
  python tools/prepare_data.py jsonl --help              # your own pictures and texts
  visualdl --logdir {output}                             # the curves
  (python is that of .venv: source .venv/bin/activate)"""


def main() -> None:
    """Run every step, then print what was reached and what to type next."""
    parser = cli.arguments(
        "Pre-train, fine-tune, evaluate and ask, with the public commands, in minutes.",
        "python tools/quickstart.py --output output/quickstart",
    )
    parser.add_argument("--output", type=Path, default=Path("output/quickstart"), help="where to write")
    parser.add_argument("--question", action="append", help="ask this instead; may be repeated")
    parser.add_argument("overrides", nargs="*", help="for both trainings, e.g. train.max_steps=20")
    args = parser.parse_args()

    make_folder(args.output, "--output")
    pretrained, tuned = args.output / "pretrain", args.output / "vqa"
    started = time.monotonic()
    command("pretrain.py", MODEL, f"output_dir={pretrained}", *args.overrides)
    pretrained_at = time.monotonic()
    command(
        "finetune.py", "--task", "vqa", "--model", MODEL, "--init", pretrained / "model",
        f"output_dir={tuned}", *args.overrides,
    )  # fmt: skip
    tuned_at = time.monotonic()

    model = tuned / "model"
    evaluation = ("evaluate.py", "--task", "vqa", "--model", model)
    seen = json.loads(command(*evaluation, capture=True))
    blind = json.loads(command(*evaluation, "--blank-images", capture=True))["metrics"]
    picture, questions = save_picture(args.output / "picture.png")
    asked = [word for question in args.question or questions for word in ("--question", question)]
    answered = args.output / "answers.png"
    command("predict.py", "--model", model, "--image", picture, *asked, "--top-k", "3", "--save", answered)

    rows = [(name, f"{score:.1f}", f"{blind[name]:.1f}") for name, score in seen["metrics"].items()]
    title = f"VQA %, {seen['split']}, {seen['selection']} selection"
    print()
    for name, first, second in [(title, "with images", "images blanked"), *rows]:
        print(f"{name:<28}{first:>14}{second:>16}")
    spans = (pretrained_at - started, tuned_at - pretrained_at, time.monotonic() - started)
    pretrain, finetune, total = (f"{seconds / 60:.1f}" for seconds in spans)
    print(f"\nminutes: pre-training {pretrain}, fine-tuning {finetune}, everything {total}")
    print(f"the picture {picture}, with the answers {answered}\n\n{NEXT.format(output=args.output)}")


def command(tool: str, *words: object, capture: bool = False) -> str:
    """Run a tool of this folder and show its command line.

    Raises:
        UnimoError: the tool failed, with its own message on standard error.
    """
    line = [sys.executable, str(TOOLS / tool), *map(str, words)]
    print(f"\n$ python tools/{tool} {shlex.join(map(str, words))}", flush=True)
    done = subprocess.run(line, stdout=subprocess.PIPE if capture else None, text=True, check=False)
    if done.returncode:
        raise UnimoError(f"tools/{tool} ended with code {done.returncode}; see its message above")
    return done.stdout or ""


def save_picture(path: Path) -> tuple[Path, list[str]]:
    """Save a picture of the test split; three questions of different kinds about it."""
    from PIL import Image

    from unimo.data.scenes.dataset import ScenesDataset

    dataset = ScenesDataset("vqa", "test")
    records = [dataset[i] for i in range(dataset.texts_per_image)]
    Image.open(io.BytesIO(records[0].image)).save(path)
    return path, list({record.question_type: record.text for record in records}.values())[:3]


if __name__ == "__main__":
    cli.run(main)
