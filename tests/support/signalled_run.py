"""Pre-train in steps of many rounds, and note when each round was over: OUTPUT CASE [KEY=VALUE ...]."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from unimo import cli, distributed

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from micro import make_run  # noqa: E402
from test_curriculum_resume import CHANGES, UNIMO  # noqa: E402

from unimo.config import merge_plain  # noqa: E402
from unimo.training import callbacks  # noqa: E402
from unimo.training import run as training  # noqa: E402
from unimo.training.state import TrainState  # noqa: E402

CASES: dict[str, dict[str, Any]] = {"curriculum": CHANGES, "regions": UNIMO}
STEPS: dict[str, Any] = {"max_steps": 3, "save_every": 0, "log_every": 1, "device": "cpu"}
LOG = "rounds.log"


class Note(callbacks.Callback):
    """Writes the time at which each round was over."""

    def on_round(self, state: TrainState, doing: str, done: int, count: int) -> None:
        if distributed.rank() == 0:
            with (state.output_dir / LOG).open("a") as file:
                file.write(f"{time.time()} {state.step} {doing} {done} {count}\n")


def main() -> int:
    """Train by the case, with 64 rounds of the words' size a step."""
    output, case, *words = sys.argv[1:]
    sizes = dict(word.split("=") for word in words if word.startswith(("batch", "micro")))
    train = {**STEPS, "batch_size": int(sizes["batch"]), "micro_batch_size": int(sizes["micro"])}
    build = training.build

    def noting(*arguments: Any, **options: Any) -> TrainState:
        state = build(*arguments, **options)
        state.callbacks.append(Note())
        return state

    training.build = noting
    run = make_run("pretrain", output, **merge_plain(CASES[case], {"train": train}))
    return cli.code_after(training.train(run)["stopped_by"])


if __name__ == "__main__":
    cli.run(main)
