"""Whether a run that was stopped half way gives the losses and weights of an unbroken one, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unimo.doctor import trial
from unimo.doctor.report import Options, Row
from unimo.training import checkpoint
from unimo.training.run import train
from unimo.training.state import Callback, TrainState
from unimo.weights.files import read_safetensors

STEPS = 6
NAME = "resume bit-equal"
Outcome = tuple[list[float], dict[str, np.ndarray]]


class StopAt(Callback):
    """Asks a run to stop after a step, as a signal does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, state: TrainState, report: object) -> None:
        if state.step == self.step:
            state.stop_wanted = "SIGTERM"


def examine(options: Options) -> list[Row]:
    """Carry out a run twice, and once more with a stop in the middle."""
    with trial.scratch(options.folder) as folder:
        for name, stops in {"first": (), "second": (), "stopped": (StopAt(STEPS // 2),)}.items():
            train(trial.small_run(options, folder / name, STEPS), stops)
        half = trial.logged(folder / "stopped")
        train(trial.small_run(options, folder / "stopped", STEPS))
        outcomes = [outcome(folder / name) for name in ("first", "second", "stopped")]
    if len(half) != STEPS // 2:
        return [Row(NAME, "wrong", f"the run that was to stop after {STEPS // 2} steps took {len(half)}",
                    "report this table")]  # fmt: skip
    return [judge(*outcomes)]


def outcome(output: Path) -> Outcome:
    """Return the losses of a run, and the tensors of its last checkpoint, optimizer included."""
    tensors: dict[str, np.ndarray] = {}
    for path in sorted(checkpoint.find_last(output).glob("*.safetensors")):
        tensors |= read_safetensors(path)
    return trial.logged(output), tensors


def judge(first: Outcome, second: Outcome, resumed: Outcome) -> Row:
    """Compare a resumed run with two unbroken ones, which tell whether the machine repeats itself."""
    repeats, differs = difference(second, first), difference(resumed, first)
    if repeats:
        return Row(NAME, "wrong", f"two unbroken runs differ already: {repeats}",
                   "kernels add up in varying order here: FLAGS_cudnn_deterministic=1 "
                   "FLAGS_embedding_deterministic=1, or OMP_NUM_THREADS=1 on a CPU")  # fmt: skip
    figure = f"{len(first[0])} losses and {len(first[1])} tensors; {differs or 'all equal bit for bit'}"
    return Row(NAME, "wrong", figure, "report this table") if differs else Row(NAME, "ok", figure)


def difference(found: Outcome, expected: Outcome) -> str:
    """Name the first thing in which two runs differ; empty if they are equal bit for bit."""
    if found[0] != expected[0]:
        pairs = zip(found[0], expected[0], strict=False)
        step = next((number for number, pair in enumerate(pairs, 1) if pair[0] != pair[1]), len(found[0]))
        return f"the loss of step {step} differs"
    if found[1].keys() != expected[1].keys():
        return "one has other tensors"
    wrong = [name for name, value in expected[1].items() if not np.array_equal(found[1][name], value)]
    return f"{len(wrong)} tensors differ, the first is {wrong[0]}" if wrong else ""
