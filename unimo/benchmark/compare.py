"""Comparison of training steps that several sides take in turn."""

from __future__ import annotations

import contextlib
import functools
import logging
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

logger = logging.getLogger(__name__)
_SETTLE = 0.3
"""Pause between two sides in seconds: idle OpenMP threads spin for 0.2 s before they sleep."""
QUIET = 1.1
"""Largest ratio between the sides' rates of plain matrix products at which their times are trusted."""
PARTS = "forward backward update processor attention attention_processor masked masked_processor".split()
"""Times that a side may report besides `seconds`."""


class Runner(Protocol):
    """One side of a comparison, such as `Side`."""

    name: str
    parameters: int
    library: str

    def ask(self, word: str) -> dict[str, Any]:
        """Answer the request `step`, `matmul` or `memory`."""

    def close(self) -> None:
        """End the side."""


@dataclass
class Result:
    """Figures of one side; times are in seconds per step."""

    name: str
    library: str
    parameters: int
    flops: dict[str, int]
    """FLOPs of the matrix products of a step by part."""
    times: list[float]
    parts: dict[str, float]
    """Median seconds of those `PARTS` that the side reports."""
    matmul_rates: list[float]
    """FLOP/s of plain matrix products before each step."""
    peak_bytes: int
    resting_bytes: int
    """Memory of the process before its first step."""

    @property
    def total_flops(self) -> int:
        """FLOPs of one step."""
        return sum(self.flops.values())

    @property
    def share(self) -> float:
        """Share of the side's own matrix-product rate that its steps reach, median over the steps."""
        pairs = zip(self.times, self.matmul_rates, strict=True)
        return statistics.median(self.total_flops / seconds / rate for seconds, rate in pairs)

    def plain(self, batch: Mapping[str, int]) -> dict[str, Any]:
        """Convert to plain values, for JSON."""
        seconds = statistics.median(self.times)
        return {
            "name": self.name,
            "library": self.library,
            "parameters": self.parameters,
            "samples_per_second": batch["batch_size"] / seconds,
            "text_tokens_per_second": batch["batch_size"] * batch["text_len"] / seconds,
            "seconds_per_step": seconds,
            "seconds_of_parts": self.parts,
            "times": self.times,
            "peak_bytes": self.peak_bytes,
            "resting_bytes": self.resting_bytes,
            "flops_per_step": self.total_flops,
            "flops_by_part": self.flops,
            "matmul_flops_per_second": statistics.median(self.matmul_rates),
            "share_of_matmul_rate": self.share,
        }


def take_turns(opened: Iterable[tuple[Runner, dict[str, int]]], settings: Mapping[str, Any]) -> list[Result]:
    """Start the sides one after the other, let them `alternate`, and end them, whatever happens.

    Args:
        opened: yields runners, freshly started, and their FLOPs by part.
        settings: `steps` and `warmup`.
    """
    sides = []
    with contextlib.ExitStack() as stack:
        for runner, parts in opened:
            stack.callback(runner.close)
            sides.append((runner, parts))
        return alternate(sides, settings["steps"], settings["warmup"])


def alternate(
    sides: Sequence[tuple[Runner, dict[str, int]]], steps: int, warmup: int = 1, settle: float = _SETTLE
) -> list[Result]:
    """Let each side take `steps` steps in turn, reversing the order in every round.

    Args:
        sides: runners and their FLOPs by part.
        steps: number of measured rounds.
        warmup: number of rounds before them.
        settle: pause before each measurement in seconds.
    """
    answers: list[list[dict[str, float]]] = [[] for _ in sides]
    rates: list[list[float]] = [[] for _ in sides]
    for round_number in range(-warmup, steps):
        order = range(len(sides)) if round_number % 2 else reversed(range(len(sides)))
        for number in order:
            runner = sides[number][0]
            time.sleep(settle)
            rate = runner.ask("matmul")["flops_per_second"]
            answer = runner.ask("step")
            label = f"step {round_number + 1}/{steps}" if round_number >= 0 else "warm-up"
            logger.info(
                "%-9s %-16s %7.2f s  loss %.3f  products %.1f GFLOP/s",
                *(label, runner.name, answer["seconds"], answer["loss"], rate / 1e9),
            )
            if round_number >= 0:
                answers[number].append(answer)
                rates[number].append(rate)
    return [_result(*side, *found) for side, *found in zip(sides, answers, rates, strict=True)]


def _result(
    runner: Runner, flops: dict[str, int], answers: list[dict[str, float]], rates: list[float]
) -> Result:
    names = [name for name in PARTS if name in answers[0]]
    memory = runner.ask("memory")
    return Result(
        name=runner.name,
        library=runner.library,
        parameters=runner.parameters,
        flops=flops,
        times=[answer["seconds"] for answer in answers],
        parts={name: statistics.median(answer[name] for answer in answers) for name in names},
        matmul_rates=rates,
        peak_bytes=memory["peak_bytes"],
        resting_bytes=memory.get("resting_bytes", 0),
    )


def ratios(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Compute the speed of the first side over each other one: median, lowest and highest of the rounds."""
    first, table = results[0], {}
    for other in results[1:]:
        each = [b / a for a, b in zip(first.times, other.times, strict=True)]
        table[other.name] = {"median": statistics.median(each), "lowest": min(each), "highest": max(each)}
    return table


def report(results: Sequence[Result], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Convert to plain values: settings, sides, ratios of samples per second."""
    return {
        "settings": dict(settings),
        "sides": [result.plain(settings["batch"]) for result in results],
        "ratios": ratios(results),
    }


def doubts(sides: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a warning if the speed of the machine differed between the sides, so that times mean little."""
    rates = [side["matmul_flops_per_second"] / 1e9 for side in sides]
    if max(rates) <= QUIET * min(rates):
        return []
    return [
        f"NOT QUIET: products alone ran at {min(rates):.0f} to {max(rates):.0f} GFLOP/s between steps; "
        "measure again with nothing else running"
    ]


def format_report(content: Mapping[str, Any]) -> str:
    """Format a table of the sides and a line for each ratio."""
    batch, sides = content["settings"]["batch"], content["sides"]
    shown = functools.partial(column, sides)
    rows = [
        ("", [side["name"] for side in sides]),
        ("library", [side["library"].split(",")[0] for side in sides]),
        ("parameters, M", shown("parameters", ".1f", 1e6)),
        ("samples/s", shown("samples_per_second", ".3f")),
        ("seconds a step", shown("seconds_per_step", ".2f")),
        ("text tokens/s", shown("text_tokens_per_second", ".1f")),
        ("peak memory, GB", shown("peak_bytes", ".2f", 1e9)),
        ("GFLOP a step", shown("flops_per_step", ".0f", 1e9)),
        ("matrix products alone, GFLOP/s", shown("matmul_flops_per_second", ".1f", 1e9)),
        ("share of that reached", shown("share_of_matmul_rate", ".0%")),
    ]
    width = max(16, *(len(text) + 2 for _, texts in rows for text in texts))
    heading = "batch {batch_size}, {image_tokens} image tokens, {text_len} text tokens, fp32".format(**batch)
    times = [f"{sides[0]['name']} makes {format_ratio(name, at)}" for name, at in content["ratios"].items()]
    return "\n".join([heading, *format_table(rows, 32, width), *times])


def column(sides: Sequence[Mapping[str, Any]], field: str, form: str, unit: float = 1.0) -> list[str]:
    """Format a number of each side, in units of `unit`."""
    return [format(side[field] / unit, form) for side in sides]


def format_table(rows: Sequence[tuple[str, list[str]]], label_width: int, width: int) -> list[str]:
    """Format the lines of a table from the label and the texts of each row."""
    return [
        f"{label:<{label_width}}" + "".join(f"{text:>{width}}" for text in texts) for label, texts in rows
    ]


def format_ratio(name: str, ratio: Mapping[str, float]) -> str:
    """Format how many times the speed of the side `name` is reached."""
    rounds = f"(rounds: {ratio['lowest']:.2f} to {ratio['highest']:.2f})"
    return f"{ratio['median']:.2f} times the samples/s of {name} {rounds}"
