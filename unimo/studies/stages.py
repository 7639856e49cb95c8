"""Stages of a row: each is one public command of `tools/`, built from what the row and the study say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Context:
    """What the stages of one row with one seed share."""

    model: str
    """Registered name of the model."""
    folder: Path
    """Folder that holds one folder for each training."""
    steps: Mapping[str, int]
    """Number of steps by the name that stages refer to."""
    overrides: tuple[str, ...]
    """`KEY=VALUE` words of every training."""
    variant: tuple[str, ...]
    """`KEY=VALUE` words of the row, for pre-training alone."""
    pretrained: bool
    """Whether the row has a pre-training, from which fine-tuning starts."""

    def training(self, name: str, steps: str) -> list[str]:
        """Return the words that every training has: where it writes, how long it is, what is overridden."""
        output = f"output_dir={self.folder / name}"
        return [output, f"train.max_steps={self.steps[steps]}", *self.overrides]


@dataclass(frozen=True)
class Pretrain:
    """Pre-training with the overrides of the row."""

    name: str = "pretrain"
    steps: str = "pretrain"
    """Name of the number of steps."""

    def command(self, context: Context) -> list[str]:
        """Return the tool and its arguments. What the row overrides wins over the command line."""
        return ["pretrain.py", context.model, *context.training(self.name, self.steps), *context.variant]


@dataclass(frozen=True)
class Finetune:
    """Fine-tuning on a task, or a linear probe, from the row's pre-training or from scratch."""

    name: str
    steps: str
    """Name of the number of steps."""
    task: str
    overrides: tuple[str, ...] = ()

    def command(self, context: Context) -> list[str]:
        """Return the tool and its arguments. What the stage overrides wins over the command line."""
        init = str(context.folder / "pretrain" / "model") if context.pretrained else "none"
        start = ["--task", self.task, "--model", context.model, "--init", init]
        return ["finetune.py", *start, *context.training(self.name, self.steps), *self.overrides]


@dataclass(frozen=True)
class Evaluate:
    """Evaluation of the model of an earlier stage on held-out data."""

    name: str
    """Prefix of the scores: `vqa` gives `vqa.overall`."""
    of: str
    """Name of the training whose model is evaluated."""
    task: str
    options: tuple[str, ...] = ()
    """Options of `tools/evaluate.py`, such as `--zero-shot`."""
    overrides: tuple[str, ...] = ()

    def command(self, context: Context) -> list[str]:
        """Return the tool and its arguments."""
        model = str(context.folder / self.of / "model")
        start = ["evaluate.py", "--task", self.task, "--model", model, "--split", "val"]
        return [*start, *self.options, *self.overrides]


Stage = Pretrain | Finetune | Evaluate
