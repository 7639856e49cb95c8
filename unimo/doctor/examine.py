"""The checks in their order, each in a process of its own, so that one that hangs or dies costs one row.

As a program (`python -m unimo.doctor.examine NAME OPTIONS`) it is one of these processes.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from unimo import cli
from unimo.doctor.machine import count_cards
from unimo.doctor.report import Options, Row
from unimo.doctor.versions import CPU_BUILD, GPU_BUILD, INSTALL, ROOT
from unimo.errors import UnimoError

logger = logging.getLogger(__name__)
PATIENCE = 20
"""A check is ended after so many times the seconds that it should take, and never before two minutes."""
TICK = 30.0
"""Seconds between lines about a check that is still at work."""
PADDLE = "Paddle and its devices"


@dataclass(frozen=True)
class Check:
    """One check, a function that returns rows."""

    name: str
    place: str
    """`module:function`; the module is imported in the check's own process only."""
    seconds: int
    """How long it takes on two cores."""
    is_quick: bool = False
    """Whether `--quick` includes it."""
    needs_paddle: bool = True
    environ: dict[str, str] = field(default_factory=dict)
    """Environment of its process, over that of this one."""


CHECKS = (
    Check("versions", "unimo.doctor.versions:examine", 1, is_quick=True, needs_paddle=False),
    Check("machine", "unimo.doctor.machine:examine", 1, is_quick=True, needs_paddle=False),
    Check("disk", "unimo.doctor.storage:examine", 2, is_quick=True, needs_paddle=False),
    Check(PADDLE, "unimo.doctor.devices:examine", 6, is_quick=True),
    Check("all-reduce of two processes", "unimo.doctor.collectives:examine", 10),
    Check("fused attention against the plain path", "unimo.doctor.attention:examine", 5),
    Check("host reads in a step", "unimo.doctor.host_reads:examine", 8),
    Check(
        "resume bit-equal",
        "unimo.doctor.resume:examine",
        15,
        environ={"FLAGS_cudnn_deterministic": "1", "FLAGS_embedding_deterministic": "1"},
    ),
    Check("bf16 and fp16 against fp32", "unimo.doctor.number_formats:examine", 15),
    Check("sharding and recompute against data parallel", "unimo.doctor.parallel:examine", 60),
    Check("loader against steps", "unimo.doctor.speed:examine", 20),
    Check("speed of the base recipes", "unimo.doctor.speed:examine_recipes", 5),
)
RECIPE_SECONDS = 60
"""For each base recipe when they are measured on a CPU."""


def chosen(quick: bool) -> list[Check]:
    """Return the checks to run."""
    return [check for check in CHECKS if check.is_quick or not quick]


def announce(checks: Sequence[Check], options: Options) -> str:
    """Say what will be done and how long it takes."""
    seconds = sum(check.seconds for check in checks) + 5 * RECIPE_SECONDS * options.every_recipe
    duration = f"{round(seconds / 60)} min" if seconds > 90 else f"{seconds} s"
    return f"{len(checks)} checks, about {duration}: {', '.join(check.name for check in checks)}"


def examine(checks: Sequence[Check], options: Options) -> list[Row]:
    """Run the checks one after the other and log each before it starts, with its result afterwards."""
    rows: list[Row] = []
    started, paddle_works = time.monotonic(), True
    for number, check in enumerate(checks, 1):
        logger.info("[%d/%d] %s, about %d s", number, len(checks), check.name, check.seconds)
        if check.needs_paddle and not paddle_works:
            rows.append(Row(check.name, "not here", "needs Paddle, which does not import"))
            continue
        found = run_apart(check, options)
        if check.name == PADDLE:
            paddle_works = not (found[0].name == PADDLE and found[0].result != "ok")
        rows += found
        bad = [row.name for row in found if row.result == "wrong"]
        logger.info(
            "      %s, %.0f s so far",
            f"wrong: {', '.join(bad)}" if bad else "done",
            time.monotonic() - started,
        )
    return rows


def run_apart(check: Check, options: Options, patience: float = PATIENCE) -> list[Row]:
    """Run one check in a process of its own; if it hangs, dies or prints no rows, that is a wrong row."""
    limit = max(120.0, patience * check.seconds) if patience >= 1 else patience
    limit += RECIPE_SECONDS * PATIENCE * options.every_recipe
    command = [
        sys.executable,
        "-m",
        "unimo.doctor.examine",
        check.name,
        check.place,
        json.dumps(asdict(options)),
    ]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environ = {**os.environ, **check.environ, "PYTHONPATH": path}
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=words, env=environ, start_new_session=True
        )
        try:
            text = _wait(process, check, limit).decode(errors="replace")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return [
                Row(
                    check.name,
                    "wrong",
                    f"no answer in {limit:.0f} s",
                    "a rank or a disk hangs: see the row before it",
                )
            ]
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        words.seek(0)
        last = words.read().decode(errors="replace").strip().splitlines()[-3:]
    try:
        return [Row(**row) for row in json.loads(text.splitlines()[-1])]
    except (IndexError, ValueError, TypeError):
        code = process.returncode
        end = signal.Signals(-code).name if code < 0 else f"code {code}"
        return [
            Row(check.name, "wrong", f"its process ended with {end}: {' '.join(last)}", "report this table")
        ]


def _wait(process: subprocess.Popen[bytes], check: Check, limit: float) -> bytes:
    """Wait for a process and return what it printed; say now and then that it is still at work.

    Raises:
        subprocess.TimeoutExpired: it takes longer than `limit` seconds.
    """
    started = time.monotonic()
    while True:
        taken = time.monotonic() - started
        try:
            return process.communicate(timeout=max(0.0, min(TICK, limit - taken)))[0]
        except subprocess.TimeoutExpired:
            taken = time.monotonic() - started
            if taken >= limit:
                raise
            logger.info("      %s: %.0f s", check.name, taken)


def guarded(name: str, place: str, options: Options) -> list[Row]:
    """Run a check in this process; errors become rows with their reason."""
    module, _, function = place.partition(":")
    try:
        return function_of(module, function)(options)
    except ImportError as error:
        return [import_row(name, error)]
    except UnimoError as error:
        return [Row(name, "wrong", str(error), "change what it names")]
    except Exception as error:  # a check that fails must not cost the others
        reason = str(error).strip().splitlines()[-1:] or [""]
        return [Row(name, "wrong", f"{type(error).__name__}: {reason[0]}", "report this table")]


def function_of(module: str, function: str) -> Callable[[Options], list[Row]]:
    """Return the function that a check names.

    Raises:
        ImportError: something that it needs is not installed, or does not import.
    """
    return getattr(importlib.import_module(module), function)


def import_row(name: str, error: ImportError) -> Row:
    """Return the row of a check that could not be imported: without Paddle it is not here, else wrong."""
    if isinstance(error, ModuleNotFoundError) and error.name == "paddle":
        build = GPU_BUILD if count_cards() else CPU_BUILD
        return Row(name, "not here", "Paddle is not installed", INSTALL[build])
    reason = " ".join(str(error).split())
    return Row(name, "wrong", f"does not import: {reason}", "see the rows of the packages above")


def main() -> None:
    """Run the named check and print its rows as one line of JSON, after whatever libraries print."""
    name, place, given = sys.argv[1:]
    values: dict[str, Any] = json.loads(given)
    rows: Iterable[Row] = guarded(name, place, Options(**{**values, "overrides": tuple(values["overrides"])}))
    sys.stdout.write("\n" + json.dumps([asdict(row) for row in rows]) + "\n")
    sys.stdout.flush()
    os._exit(0)  # threads and clean-up of libraries have nothing to add


if __name__ == "__main__":
    cli.run(main)
