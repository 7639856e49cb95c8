"""Learning-rate schedules: pure functions of the step, so that resuming needs no state."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unimo.errors import ConfigError
from unimo.settings import OptimConfig


def warmup_steps(warmup: float, max_steps: int) -> int:
    """Return the number of warm-up steps; `warmup` below 1 is a share of all steps, else their number.

    Raises:
        ConfigError: negative, or longer than the run.
    """
    steps = _warmup_steps(warmup, max_steps)
    if not 0 <= steps <= max_steps:
        raise ConfigError(
            f"optim.warmup={warmup:g} is {steps} steps of a run of train.max_steps={max_steps}; "
            f"expected 0 to {max_steps}, or a share below 1 such as 0.1"
        )
    return steps


def _warmup_steps(warmup: float, max_steps: int) -> int:
    return round(warmup * max_steps) if warmup < 1 else round(warmup)


def factor(
    step: int, max_steps: int, warmup: int, kind: str, milestones: Sequence[Sequence[float]] = ()
) -> float:
    """Return the share of the peak rate at an optimizer step.

    Args:
        step: optimizer steps already done, 0 for the first one.
        max_steps: steps of the whole run.
        warmup: steps of the linear rise; step `warmup - 1` is the first at the peak. A run shorter than its
            warm-up ends below the peak.
        kind: `linear` and `cosine` fall to 0 at `max_steps`; `constant` stays; `piecewise` follows
            `milestones`.
        milestones: rising pairs of a share of `max_steps`, rounded to a step, and the factor from there on.
    """
    if step < warmup:
        return (step + 1) / warmup
    if kind == "constant":
        return 1.0
    if kind == "piecewise":
        passed = [value for share, value in milestones if step >= round(share * max_steps)]
        return passed[-1] if passed else 1.0
    progress = min(1.0, (step - warmup) / max(1, max_steps - warmup))
    return 1.0 - progress if kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))


def learning_rate(step: int, max_steps: int, optim: OptimConfig) -> float:
    """Return the rate of a group with multiplier 1 at an optimizer step, for a run of `max_steps`."""
    warmup = _warmup_steps(optim.warmup, max_steps)
    return optim.lr * factor(step, max_steps, warmup, optim.schedule, optim.milestones)
