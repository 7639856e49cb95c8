"""The comparisons of tools/benchmark.py: each takes its arguments, measures and formats the figures."""

from __future__ import annotations

import argparse
from typing import Any

from unimo.benchmark import compare, fusion, machine
from unimo.errors import ConfigError
from unimo.registry import model_config


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
    if arguments.what == "index":
        from unimo.benchmark import index

        content = index.measure((arguments.model or ["vlmo_base"])[0], arguments.largest)
        return content, index.format_report(content)
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
