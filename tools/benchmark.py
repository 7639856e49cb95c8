"""Measure training steps, retrieval and search: python tools/benchmark.py train --against hf-bridgetower"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli  # noqa: E402 - works from a clone that is not installed
from unimo.benchmark import commands, compare  # noqa: E402
from unimo.errors import CheckpointError  # noqa: E402
from unimo.files import make_place, write_text  # noqa: E402
from unimo.ranges import Count, Depth, NonNegative, Size, at_least  # noqa: E402

EXAMPLE = """python tools/benchmark.py train --against hf-bridgetower --peer-python peer/bin/python
  python tools/benchmark.py train --model vlmo_base --against hf-vilt --peer-python peer/bin/python
  python tools/benchmark.py train --model semvlp_base --against hf-visualbert --text-len 20
  python tools/benchmark.py train --model unimo3_base --model meter_base --steps 5
  python tools/benchmark.py train --model unimo2_base --layers 3
  python tools/benchmark.py sequences --model unimo_base --batch-size 7 --layers 2 data.texts=[]
  python tools/benchmark.py retrieval --model output/vlmo_tiny_pretrain
  python tools/benchmark.py index --model vlmo_base --largest 200000"""
DESCRIPTION = """Training steps (MLM and ITM, forward, backward, AdamW) of models in turn, each in its own
process. With a UNIMO-2 as --model: its Grounded Transformer alone, forward and backward, with grounded
attention, full pairwise attention and the 1-to-1 map, at 224 and 384 pixels.
sequences: pre-training of a UNIMO on its data, grouped by kind against naive padding to full length.
retrieval: processor time of a VLMo by vectors and by fusing all pairs; if it is trained, also R@1.
index: an index of --largest vectors of the width of --model beside plain FAISS."""


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.arguments(DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("what", choices=["train", "sequences", "retrieval", "index"], help="comparison to run")
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
        "largest": (Size, 4000, "retrieval: most pictures, an eighth fused; index: vectors [4000]"),
    }
    for name, (kind, default, about) in numbers.items():
        add(f"--{name}", type=cli.number(kind), default=default, help=about)
    add("--matmul-seconds", type=cli.number(NonNegative), default=0.5, help="length of each rate measurement")
    add("--out", type=Path, default=Path("output/benchmark.json"), metavar="FILE.json")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="for the data of sequences and retrieval")
    return parser.parse_intermixed_args()


def main() -> None:
    """Measure, print and save the figures."""
    arguments = parse_arguments()
    make_place(arguments.out, "--out")
    content, text = commands.measure(arguments)
    print(text)
    try:
        write_text(arguments.out, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise CheckpointError(f"cannot write {arguments.out}: {error}; give another --out") from error
    print(f"figures: {arguments.out}")


if __name__ == "__main__":
    cli.run(main)
