"""Measure training steps and retrieval: python tools/benchmark.py train --against hf-bridgetower"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli  # noqa: E402 - works from a clone that is not installed
from unimo.benchmark import compare, fusion, machine  # noqa: E402
from unimo.errors import CheckpointError, ConfigError  # noqa: E402
from unimo.files import make_place, write_text  # noqa: E402
from unimo.ranges import Count, Depth, NonNegative, Size, at_least  # noqa: E402
from unimo.registry import model_config  # noqa: E402

EXAMPLE = """python tools/benchmark.py train --against hf-bridgetower --peer-python peer/bin/python
  python tools/benchmark.py train --model vlmo_base --against hf-vilt --peer-python peer/bin/python
  python tools/benchmark.py train --model semvlp_base --against hf-visualbert --text-len 20
  python tools/benchmark.py train --model unimo3_base --model meter_base --steps 5
  python tools/benchmark.py train --model unimo2_base --layers 3
  python tools/benchmark.py sequences --model unimo_base --batch-size 7 --layers 2 data.texts=[]
  python tools/benchmark.py retrieval --model output/vlmo_tiny_pretrain"""
DESCRIPTION = """Training steps (MLM and ITM, forward, backward, AdamW) of models in turn, each in its own
process. With a UNIMO-2 as --model: its Grounded Transformer alone, forward and backward, with grounded
attention, full pairwise attention and the 1-to-1 map, at 224 and 384 pixels.
sequences: pre-training of a UNIMO on its data, grouped by kind against naive padding to full length.
retrieval: processor time of a VLMo by vectors and by fusing all pairs; if it is trained, also R@1."""


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.arguments(DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("what", choices=["train", "sequences", "retrieval"], help="comparison to run")
    add("--model", action="append", metavar="NAME", help="our model, may be repeated; retrieval: or DIR")
    add("--against", choices=sorted(compare.PEERS), help="peer of the same sizes")
    add("--peer-python", metavar="PATH", help="interpreter with torch and transformers [this one]")
    numbers = {
        "batch-size": (at_least(2), 2, "samples of a step [2]"),
        "text-len": (at_least(4), None, "tokens of each text, no padding [50, or as many as fit]"),
        "steps": (Size, 5, "measured steps of each side [5]"),
        "warmup": (Count, 4, "steps before them: an allocator settles within four [4]"),
        "threads": (Size, len(os.sched_getaffinity(0)), "threads of each side [all cores]"),
        "layers": (Depth, 3, "layers of UNIMO-2's Grounded Transformer, or of UNIMO [3]"),
        "largest": (Size, 4000, "retrieval: most pictures; all pairs of an eighth are fused [4000]"),
    }
    for name, (kind, default, about) in numbers.items():
        add(f"--{name}", type=cli.number(kind), default=default, help=about)
    add("--matmul-seconds", type=cli.number(NonNegative), default=0.5, help="length of each rate measurement")
    add("--out", type=Path, default=Path("output/benchmark.json"), metavar="FILE.json")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="for the data of sequences and retrieval")
    return parser.parse_intermixed_args()


def check(arguments: argparse.Namespace) -> None:
    """Check the combination of arguments before minutes are spent; raises ConfigError."""
    if arguments.what != "train":
        if arguments.against or len(arguments.model or []) > 1:
            raise ConfigError(
                f"{arguments.what}: a model is measured against itself; give it as the only --model"
            )
    elif arguments.overrides:
        word = arguments.overrides[0]
        raise ConfigError(f"{word}: only `sequences` reads data, and `retrieval` with a trained model")


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Run the comparison; return the figures and their printed form."""
    check(arguments)
    matmul = {"shape": list(machine.MATMUL_SHAPE), "seconds": arguments.matmul_seconds}
    counts = {name: getattr(arguments, name) for name in ("steps", "warmup", "threads")}
    if arguments.what == "sequences":
        from unimo.benchmark import sequences  # imports Paddle, and --help does not need it

        settings = {"batch_size": arguments.batch_size, "matmul": matmul, **counts}
        recipe = (arguments.model or ["unimo_base"])[0]
        content = sequences.measure(recipe, settings, arguments.overrides, layers=arguments.layers)
        return content, sequences.format_report(content)
    if arguments.what == "retrieval":
        from unimo.benchmark import retrieval

        model = (arguments.model or ["vlmo_tiny"])[0]
        sizes = {"largest": arguments.largest, "text_len": arguments.text_len}
        content = retrieval.measure(model, arguments.overrides, **sizes)
        return content, retrieval.format_report(content)
    like = compare.PEERS[arguments.against or "hf-bridgetower"].like
    configs = [model_config(name) for name in arguments.model or [like]]
    batch = compare.batch_of(configs, arguments.batch_size, arguments.text_len)
    settings = {"batch": batch, "matmul": matmul, **counts}
    if any(hasattr(config, "grounding") for config in configs):
        if len(configs) > 1 or arguments.against:
            raise ConfigError("a UNIMO-2 is measured against itself: give it as the only --model")
        content = fusion.measure(configs[0], settings, layers=arguments.layers)
        return content, fusion.format_report(content)
    peer_python = compare.find_peer_python(arguments.peer_python) if arguments.against else ""
    content = compare.compare_models(configs, settings, arguments.against, peer_python)
    return content, compare.format_report(content)


def main() -> None:
    """Measure, print and save the figures."""
    arguments = parse_arguments()
    make_place(arguments.out, "--out")
    content, text = measure(arguments)
    print(text)
    try:
        write_text(arguments.out, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise CheckpointError(f"cannot write {arguments.out}: {error}; give another --out") from error
    print(f"figures: {arguments.out}")


if __name__ == "__main__":
    cli.run(main)
