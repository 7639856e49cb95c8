"""The whole way in minutes, by the public commands: pre-train, fine-tune, evaluate, ask."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from unimo import cli
from unimo.data.scenes.dataset import ScenesDataset
from unimo.errors import ConfigError, UnimoError
from unimo.files import make_folder
from unimo.settings import load_run_config
from unimo.studies.budget import TIMED_STEPS, fit, keep_choice, kept_choice, read_pace
from unimo.studies.runner import TOOLS

MODEL = "unimo3_tiny"
NEXT = """next:
{activate}  python {tools}/predict.py --model {output}/vqa --image {output}/picture.png --question "how many?"
  python {tools}/finetune.py --task retrieval --init {output}/pretrain
  python {tools}/prepare_data.py scenes --out pictures     # a folder of the kind that yours may be
  visualdl --logdir {output}     # the curves"""
_EVALUATIONS = 3
"""Processes that follow the trainings; each takes about what fine-tuning takes beside its steps."""


@dataclass(frozen=True)
class Quickstart:
    """The whole way, and what it is asked to do."""

    output: Path
    """Folder of all that is made."""
    show: Callable[[str], None]
    """What prints a line for the user."""
    minutes: float | None = None
    """Cut the trainings so that everything takes about so long on this machine."""
    questions: Sequence[str] = ()
    """Asked in place of three questions about the saved picture."""
    overrides: Sequence[str] = ()
    """Settings of both trainings."""

    def run(self) -> None:
        """Run every step, then show what was reached and what to type next.

        Raises:
            ConfigError: `minutes` beside `train.max_steps`, or the folder was begun with other ones.
            UnimoError: a command failed.
        """
        if self.minutes and any(word.startswith("train.max_steps=") for word in self.overrides):
            raise ConfigError("--minutes chooses train.max_steps; give one of the two")
        make_folder(self.output, "--output")
        started, spans = time.monotonic(), {}
        steps = self.choose_steps() if self.minutes else {}
        if self.minutes:
            spans["measuring"] = time.monotonic() - started
        for name, label in (("pretrain", "pre-training"), ("vqa", "fine-tuning")):
            chosen = [f"train.max_steps={steps[name]}"] if steps else []
            spans[label] = self.train(name, self.output, [*self.overrides, *chosen])

        model, picture = self.output / "vqa" / "model", self.output / "picture.png"
        evaluation = ("evaluate.py", "--task", "vqa", "--model", model)
        seen = json.loads(self.command(*evaluation, capture=True))
        blind = json.loads(self.command(*evaluation, "--blank-images", capture=True))["metrics"]
        found = save_picture(picture)
        asked = [word for each in self.questions or found for word in ("--question", each)]
        asked += ["--top-k", "3", "--save", answered := str(self.output / "answers.png")]
        self.command("predict.py", "--model", model, "--image", picture, *asked)

        rows = [(name, f"{score:.1f}", f"{blind[name]:.1f}") for name, score in seen["metrics"].items()]
        title = f"\nVQA %, {seen['split']}, {seen['selection']} selection"
        for row in [(title, "with images", "images blanked"), *rows]:
            self.show("{:<29}{:>14}{:>16}".format(*row))
        spans["everything"] = time.monotonic() - started
        self.show("\nminutes: " + ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in spans.items()))
        self.show(f"the picture {picture}, with the answers {answered}\n")
        active = os.environ.get("VIRTUAL_ENV") == sys.prefix or sys.prefix == sys.base_prefix
        activate = "" if active else f"  source {os.path.relpath(sys.prefix)}/bin/activate\n"
        self.show(NEXT.format(activate=activate, tools=os.path.relpath(TOOLS), output=self.output))

    def choose_steps(self) -> dict[str, int]:
        """Time a few steps of both trainings; return how many of each fit into the limit, and keep them."""
        if steps := kept_choice(self.output, self.minutes):
            return steps
        self.show(
            f"timing {TIMED_STEPS} steps of each training, to see how many fit into {self.minutes:g} minutes"
        )
        started, timed, paces = time.monotonic(), self.output / "measured", {}
        shutil.rmtree(timed, ignore_errors=True)  # of a call that was stopped
        few = [*self.overrides, f"train.max_steps={TIMED_STEPS}", "train.log_every=1"]
        for name in ("pretrain", "vqa"):
            paces[name] = read_pace(self.train(name, timed, few), timed / name)
        shutil.rmtree(timed)
        recipe = {name: load_run_config(MODEL, name, self.overrides).train.max_steps for name in paces}
        later = time.monotonic() - started + _EVALUATIONS * paces["vqa"].rest
        steps = fit(paces, recipe, 60 * self.minutes - later)
        keep_choice(self.output, self.minutes, steps)
        for name, pace in paces.items():
            self.show(f"{name}: {pace.step:.2f} s a step; {steps[name]} of the recipe's {recipe[name]} steps")
        seconds = later + sum(pace.rest + pace.step * steps[name] for name, pace in paces.items())
        if seconds > 66 * self.minutes:
            self.show(f"the shortest trainings take about {seconds / 60:.1f} minutes in all")
        return steps

    def train(self, name: str, folder: Path, overrides: Sequence[str]) -> float:
        """Pre-train or fine-tune into `folder / name`; return the seconds by the clock."""
        started = time.monotonic()
        start: tuple[object, ...] = ("pretrain.py", MODEL)
        if name != "pretrain":
            start = ("finetune.py", "--task", name, "--model", MODEL, "--init", folder / "pretrain" / "model")
        self.command(*start, f"output_dir={folder / name}", *overrides)
        return time.monotonic() - started

    def command(self, tool: str, *words: object, capture: bool = False) -> str:
        """Run a tool, show its command line, and return what it printed if that is captured.

        Raises:
            UnimoError: the tool failed, with its own message on standard error.
        """
        self.show(f"\n$ python {os.path.relpath(TOOLS)}/{tool} {shlex.join(map(str, words))}")
        code, printed = cli.run_child([sys.executable, str(TOOLS / tool), *map(str, words)], capture)
        if code:
            raise UnimoError(f"tools/{tool} ended with code {code}; see its message above")
        return printed


def save_picture(path: Path) -> list[str]:
    """Save a picture of the test split; return three questions of different kinds about it."""
    dataset = ScenesDataset("vqa", "test")
    records = [dataset[i] for i in range(dataset.texts_per_image)]
    Image.open(io.BytesIO(records[0].image)).save(path)
    return list({record.question_type: record.text for record in records}.values())[:3]
