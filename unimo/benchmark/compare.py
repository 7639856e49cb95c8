"""Comparison of training steps that several sides take in turn, and that of whole models.

A side is a process that takes a step on request and is idle otherwise.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimo.benchmark import flops
from unimo.benchmark.learners import learners
from unimo.errors import ConfigError, UnimoError

logger = logging.getLogger(__name__)
SETTLE = 0.3
"""Pause before each step in seconds: idle OpenMP threads of other sides spin for 0.2 s before they sleep."""
QUIET = 1.1
"""Largest ratio between the sides' rates of plain matrix products at which their times are trusted."""
PARTS = "forward backward update processor attention attention_processor masked masked_processor".split()
"""Times that a side may report besides `seconds`."""
_TOWER = ("hidden_size", "num_layers", "num_heads")


@dataclass(frozen=True)
class Peer:
    """A model of another library, which is given the sizes of one of ours."""

    program: str
    """File in `peers`."""
    like: str
    """Our model that it is compared with unless another is named."""
    sizes: Mapping[str, Sequence[str]]
    """Section of our model config -> fields that the peer reads."""
    step: Callable[[Any, int, int], flops.Parts]
    """Counts its FLOPs from our config, batch size and length of texts."""


PEERS = {
    "hf-bridgetower": Peer(
        "hf_bridgetower.py",
        "unimo3_base",
        {
            "text": (*_TOWER, "vocab_size", "intermediate_size", "max_position"),
            "vision": (*_TOWER, "patch_size", "image_size"),
            "fusion": _TOWER,
        },
        flops.bridgetower_step,
    ),
    "hf-vilt": Peer(
        "hf_vilt.py",
        "vlmo_base",
        {
            "text": ("vocab_size", "max_position"),
            "vision": ("patch_size", "image_size"),
            "transformer": (*_TOWER, "intermediate_size"),
        },
        flops.vilt_step,
    ),
    "hf-visualbert": Peer(
        "hf_visualbert.py",
        "semvlp_base",
        {"text": (*_TOWER, "vocab_size", "intermediate_size", "max_position"), "regions": ("feature_size",)},
        flops.visualbert_step,
    ),
}
_ROOT = Path(__file__).resolve().parents[2]


class Side:
    """A worker process that answers requests with lines of JSON; `name` stands in tables."""

    def __init__(self, name: str, command: list[str], request: Mapping[str, Any], threads: int) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile("w+", encoding="utf8")
        self._process = subprocess.Popen(
            [*command, json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(_ROOT)},
        )
        ready = self._read()
        self.parameters: int = ready["parameters"]
        self.library: str = ready["library"]

    def ask(self, word: str) -> dict[str, Any]:
        """Send the request `step`, `matmul` or `memory` and read the answer; the other sides must be idle.

        Raises:
            UnimoError: the process died; the message has the end of its standard error.
        """
        try:
            self._process.stdin.write(word + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # `_read` reports why it died
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        tail = "".join(self._errors.readlines()[-8:]).strip()
        raise UnimoError(f"the process of {self.name} ended with code {code}; its last words:\n{tail}")

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._errors.close()


def own_side(
    model: Mapping[str, Any], request: Mapping[str, Any], threads: int, name: str | None = None
) -> Side:
    """Start our model, `{"name": ..., further config fields}`, in its own process; `name` is for tables."""
    command = [sys.executable, "-m", "unimo.benchmark.worker"]
    return Side(name or model["name"], command, {"model": dict(model), **request}, threads)


def peer_side(peer: str, python: str, config: Any, request: Mapping[str, Any], threads: int) -> Side:
    """Start a model of another library, of the sizes of `config`, in the interpreter `python`.

    Raises:
        ConfigError: `config` is of a model that is built otherwise.
    """
    known = PEERS[peer]
    if not all(hasattr(config, section) for section in known.sizes):
        raise ConfigError(f"{peer} is not built like {config.name}; try --model {known.like}")
    sizes = {
        part: {name: getattr(getattr(config, part), name) for name in names}
        for part, names in known.sizes.items()
    }
    program = Path(__file__).parent / "peers" / known.program
    return Side(peer, [python, str(program)], {**sizes, **request, "threads": threads}, threads)


def find_peer_python(given: str | None) -> str:
    """Return the interpreter for a peer: the given one, or this one.

    Raises:
        ConfigError: it lacks torch or transformers, or does not start; the message tells how to make one.
    """
    python = given or sys.executable
    try:
        check = subprocess.run([python, "-c", "import torch, transformers"], capture_output=True, text=True)
        problem = check.stderr.strip().splitlines()[-1:] if check.returncode else []
    except OSError as error:
        problem = [error.strerror or str(error)]
    if problem:
        raise ConfigError(
            f"the peer needs an interpreter with torch and transformers, and {python} is not one "
            f"({problem[0]}). Make one anywhere: python3 -m venv peer && peer/bin/pip install torch "
            f"'transformers<5' --extra-index-url https://download.pytorch.org/whl/cpu; then pass "
            f"--peer-python peer/bin/python"
        )
    return python


def batch_of(configs: Sequence[Any], batch_size: int, text_len: int | None) -> dict[str, int]:
    """Return the sizes of a batch for models; `text_len` of None is 50, or as many tokens as fit.

    Raises:
        ConfigError: texts are longer than a model can read.
    """
    longest = min(config.text.longest for config in configs)
    length = text_len or min(50, longest)
    if length > longest:
        raise ConfigError(f"--text-len is {length}; the text tower has positions for {longest}")
    return {
        "batch_size": batch_size,
        "text_len": length,
        "image_tokens": flops.image_tokens(configs[0]),
        "targets": max(1, round(0.15 * (length - 2))),
    }


def compare_models(
    configs: Sequence[Any], settings: Mapping[str, Any], against: str | None = None, peer_python: str = ""
) -> dict[str, Any]:
    """Measure training steps of our models and of a peer of the sizes of the first one.

    Args:
        configs: configs of our models, each of which takes part in all its ways of learning (`learners`).
        settings: `batch` (`batch_size`, `text_len`, `targets` of a sample), `matmul`, `threads`, `steps`,
            `warmup`.
        against, peer_python: name of a peer, and the interpreter that runs it.

    Returns:
        Plain data: `settings`, figures of the `sides`, `ratios` of samples per second.

    Raises:
        ConfigError: a model has other losses than MLM and ITM, or the peer is built otherwise.
    """
    batch, threads = settings["batch"], settings["threads"]
    request = {key: settings[key] for key in ("batch", "matmul")}
    size = (batch["batch_size"], batch["text_len"])
    ours = [(config, learner) for config in configs for learner in learners(config)]

    def opened() -> Iterator[tuple[Side, flops.Parts]]:
        for config, learner in ours:
            model, asked = {"name": config.name, **learner.model}, {**request, "task": learner.task}
            side = own_side(model, asked, threads, learner.name)
            yield side, learner.step(*size, batch["targets"] * size[0])
        if against:
            side = peer_side(against, peer_python, configs[0], request, threads)
            yield side, PEERS[against].step(configs[0], *size)

    figures = take_turns(opened(), settings, batch)
    return {"settings": dict(settings), "sides": figures, "ratios": ratios(figures)}


def take_turns(
    opened: Iterable[tuple[Side, flops.Parts]], settings: Mapping[str, Any], batch: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Start the sides one after the other, let them take steps in turn, and end them, whatever happens.

    The order is reversed in every round.

    Args:
        opened: yields sides, freshly started, and their FLOPs by part.
        settings: `steps` and `warmup`, the numbers of measured rounds and of rounds before them.
        batch: `batch_size`, and `text_len` if all texts are of one length.

    Returns:
        Figures of each side as plain data; times are in seconds per step.
    """
    steps = settings["steps"]
    sides: list[tuple[Side, flops.Parts]] = []
    with contextlib.ExitStack() as stack:
        for side, parts in opened:
            stack.callback(side.close)
            sides.append((side, parts))
        answers: list[list[dict[str, float]]] = [[] for _ in sides]
        rates: list[list[float]] = [[] for _ in sides]
        for round_number in range(-settings["warmup"], steps):
            order = range(len(sides)) if round_number % 2 else reversed(range(len(sides)))
            for number in order:
                side = sides[number][0]
                time.sleep(SETTLE)
                rate = side.ask("matmul")["flops_per_second"]
                answer = side.ask("step")
                label = f"step {round_number + 1}/{steps}" if round_number >= 0 else "warm-up"
                logger.info(
                    "%-9s %-16s %7.2f s  loss %.3f  products %.1f GFLOP/s",
                    *(label, side.name, answer["seconds"], answer["loss"], rate / 1e9),
                )
                if round_number >= 0:
                    answers[number].append(answer)
                    rates[number].append(rate)
        measured = zip(sides, answers, rates, strict=True)
        return [_figures(*side, batch, *found) for side, *found in measured]


def _figures(
    side: Side,
    parts: flops.Parts,
    batch: Mapping[str, int],
    answers: Sequence[Mapping[str, float]],
    rates: Sequence[float],
) -> dict[str, Any]:
    times, memory = [answer["seconds"] for answer in answers], side.ask("memory")
    seconds, total = statistics.median(times), sum(parts.values())
    speed = {"samples_per_second": batch["batch_size"] / seconds}
    if "text_len" in batch:
        speed["text_tokens_per_second"] = batch["batch_size"] * batch["text_len"] / seconds
    reported = [name for name in PARTS if name in answers[0]]
    return {
        "name": side.name,
        "library": side.library,
        "parameters": side.parameters,
        **speed,
        "seconds_per_step": seconds,
        "seconds_of_parts": {
            name: statistics.median(answer[name] for answer in answers) for name in reported
        },
        "times": times,
        "peak_bytes": memory["peak_bytes"],
        # Memory of the process before its first step.
        "resting_bytes": memory.get("resting_bytes", 0),
        "flops_per_step": total,
        "flops_by_part": parts,
        "matmul_flops_per_second": statistics.median(rates),
        # Of the rate of plain products just before each step.
        "share_of_matmul_rate": statistics.median(
            total / taken / rate for taken, rate in zip(times, rates, strict=True)
        ),
    }


def ratios(figures: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Compute the speed of the first side over each other one: median, lowest and highest of the rounds, and
    `processor`, the ratio of the medians of processor time."""
    first, table = figures[0], {}
    for other in figures[1:]:
        each = [b / a for a, b in zip(first["times"], other["times"], strict=True)]
        spent = [side["seconds_of_parts"]["processor"] for side in (first, other)]
        table[other["name"]] = {
            "median": statistics.median(each),
            "lowest": min(each),
            "highest": max(each),
            "processor": spent[1] / spent[0],
        }
    return table


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
        ("processor seconds a step", [f"{side['seconds_of_parts']['processor']:.2f}" for side in sides]),
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
    processor = f"in processor time {ratio['processor']:.2f}"
    return f"{ratio['median']:.2f} times the samples/s of {name} {rounds}; {processor}"
