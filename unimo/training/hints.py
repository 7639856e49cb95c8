"""Hints before a run goes on: a random start, too little memory or disk, too much time."""

from __future__ import annotations

import difflib

from unimo import registry
from unimo.models.paper import Published
from unimo.training.pace import DAY, duration
from unimo.training.plan import Plan
from unimo.training.plan_table import size

TOO_LONG_DAYS = 7
"""Days from which a run is said to be too large for a machine."""


def hints_of(plan: Plan) -> list[str]:
    """Return what is unusual about a run, and for each what to do."""
    return [*_random_start(plan), *_too_little_memory(plan), *_too_little_disk(plan), *too_long(plan)]


def _random_start(plan: Plan) -> list[str]:
    if plan.start != "scratch" or plan.task == "pretrain" or _published(plan.model) is None:
        return []
    return [
        f"fine-tuning of {plan.model} starts from random weights, not from pre-trained ones as in its "
        "paper: --init DIR takes those that tools/pretrain.py or tools/convert_checkpoint.py wrote"
    ]


def _published(model: str) -> Published | None:
    """Return how a model was trained in its paper; None for other sizes, and for detectors."""
    return registry.paper_of(model).published.get(model) if model in registry.list_models() else None


def _too_little_memory(plan: Plan) -> list[str]:
    memory, step = plan.memory, plan.step
    if memory is None or memory.peak_bytes <= memory.machine_bytes:
        return []
    smaller = max(1, step.micro_batch_samples // 2)
    return [
        f"a micro-batch of {step.micro_batch_samples} needs {size(memory.peak_bytes)}, and there are "
        f"{size(memory.machine_bytes)}: try train.micro_batch_size={smaller}, or train.recompute=true"
    ]


def _too_little_disk(plan: Plan) -> list[str]:
    needed, free = plan.disk.needed_bytes, plan.disk.free_bytes
    if needed <= free:
        return []
    return [
        f"checkpoints need {size(needed)}, and {size(free)} are free: choose another output_dir=, or "
        "train.keep_checkpoints=1"
    ]


def too_long(plan: Plan) -> list[str]:
    """Return a hint if a run takes weeks on this machine."""
    if plan.time is None or plan.time.run_seconds < TOO_LONG_DAYS * DAY:
        return []
    published, smaller = _published(plan.model), ""
    if published is not None:
        sizes = registry.paper_of(plan.model).sizes
        small = [name for name in sizes if name not in registry.paper_of(plan.model).published]
        smaller = f"{difflib.get_close_matches(plan.model, small, 1, 0.0)[0]}, or "
    hardware = f": the paper had {published.hardware}" if published and published.hardware else ""
    # As many samples as a minute allows, and as many steps as a day.
    sample = plan.time.step_seconds / plan.step.samples
    least = plan.step.ranks
    batch = least
    while 2 * batch <= plan.step.samples and 2 * batch * sample < 60:
        batch *= 2
    steps = max(1, round(DAY / (sample * batch)))
    return [
        f"{duration(plan.time.step_seconds)} a step, {duration(plan.time.run_seconds)} in all on this "
        f"machine{hardware}; here try {smaller}train.batch_size={batch} train.max_steps={steps} (a day)"
    ]
