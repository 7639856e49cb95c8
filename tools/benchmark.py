"""Measure training steps: python tools/benchmark.py train --against hf-bridgetower"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli  # noqa: E402 - works from a clone that is not installed
from unimo.benchmark import compare, flops, fusion, machine, models, sides  # noqa: E402
from unimo.errors import CheckpointError, ConfigError  # noqa: E402
from unimo.registry import model_config  # noqa: E402

EXAMPLE = """python tools/benchmark.py train --against hf-bridgetower --peer-python peer/bin/python
  python tools/benchmark.py train --model unimo3_base --model meter_base --steps 5
  python tools/benchmark.py train --model unimo2_base --layers 3"""
DESCRIPTION = """Training steps (MLM and ITM, forward, backward, AdamW) of models in turn, each in its own
process. With a UNIMO-2 as --model: its Grounded Transformer alone, forward and backward, with grounded
attention, full pairwise attention and the 1-to-1 map, at 224 and 384 pixels."""


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = cli.arguments(DESCRIPTION, EXAMPLE)
    parser.add_argument("what", choices=["train"], help="what is measured")
    parser.add_argument(
        "--model", action="append", metavar="NAME", help="our model, may be repeated [unimo3_base]"
    )
    parser.add_argument(
        "--against", choices=sorted(sides.PEERS), help="model of another library, of the same sizes"
    )
    parser.add_argument(
        "--peer-python", metavar="PATH", help="interpreter with torch and transformers [this one]"
    )
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--text-len", type=int, default=50, help="tokens of each text, no padding")
    parser.add_argument("--steps", type=int, default=5, help="measured steps of each side")
    parser.add_argument(
        "--warmup", type=int, default=4, help="steps before them: an allocator settles within four [4]"
    )
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="of each side [all cores]"
    )
    parser.add_argument("--layers", type=int, default=3, help="of UNIMO-2's Grounded Transformer [3]")
    parser.add_argument("--matmul-seconds", type=float, default=0.5, help="length of each rate measurement")
    parser.add_argument("--out", type=Path, default=Path("output/benchmark.json"), metavar="FILE.json")
    return parser.parse_args()


def check(arguments: argparse.Namespace, longest: int) -> None:
    """Stop before minutes are spent.

    Raises:
        ConfigError: a size that makes no sense.
    """
    for name, least in (("batch_size", 2), ("text_len", 4), ("steps", 1), ("warmup", 0), ("threads", 1)):
        if getattr(arguments, name) < least:
            raise ConfigError(
                f"--{name.replace('_', '-')} is {getattr(arguments, name)}, expected {least} or more"
            )
    if arguments.text_len > longest:
        raise ConfigError(f"--text-len is {arguments.text_len}; the text tower has positions for {longest}")


def settings_of(arguments: argparse.Namespace, config: Any) -> dict[str, Any]:
    """What all sides have in common."""
    batch = {
        "batch_size": arguments.batch_size,
        "text_len": arguments.text_len,
        "image_tokens": flops.image_tokens(config),
        "targets": max(1, round(0.15 * (arguments.text_len - 2))),
    }
    matmul = {"shape": list(machine.MATMUL_SHAPE), "seconds": arguments.matmul_seconds}
    counts = {"steps": arguments.steps, "warmup": arguments.warmup}
    return {"batch": batch, "matmul": matmul, **counts, "threads": arguments.threads}


def main() -> None:
    """Start the sides, let them take turns, print and save the figures."""
    arguments = parse_arguments()
    configs = [model_config(name) for name in arguments.model or ["unimo3_base"]]
    check(arguments, min(config.text.max_position - 2 for config in configs))
    settings = settings_of(arguments, configs[0])
    if any(map(fusion.is_grounded, configs)):
        if len(configs) > 1 or arguments.against:
            raise ConfigError("a UNIMO-2 is measured against itself: give it as the only --model")
        content = fusion.measure(configs[0], settings, layers=arguments.layers)
        text = fusion.format_report(content)
    else:
        peer_python = sides.find_peer_python(arguments.peer_python) if arguments.against else ""
        content = models.compare_models(configs, settings, arguments.against, peer_python)
        text = compare.format_report(content)
    print(text)
    try:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf8")
    except OSError as error:
        raise CheckpointError(
            f"cannot write {arguments.out}: {error.strerror}; give another --out"
        ) from error
    print(f"figures: {arguments.out}")


if __name__ == "__main__":
    cli.run(main)
