"""Our models with MLM and ITM as their only losses, so that their steps compare. Imports no Paddle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from unimo.benchmark import flops
from unimo.errors import ConfigError
from unimo.models.semvlp.config import MODES
from unimo.models.semvlp.config import Config as SemVlpConfig
from unimo.models.unimo3.config import Config as Unimo3Config
from unimo.models.vlmo.config import Config as VlmoConfig


@dataclass(frozen=True)
class Learner:
    """A model in one way of learning."""

    name: str
    """Name in tables."""
    step: Callable[[int, int, int], flops.Parts]
    """Counts its FLOPs from batch size, length of texts and number of MLM targets."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Fields of its config that differ."""
    task: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the task section of pre-training."""


def learners(config: Any) -> list[Learner]:
    """List the ways of a model: VLMo does without ITC, and SemVLP without objects, in either mode.

    Raises:
        ConfigError: a model that has other losses.
    """
    name = config.name
    if isinstance(config, Unimo3Config):
        return [Learner(name, partial(flops.own_step, config))]
    if isinstance(config, VlmoConfig):
        return [Learner(name, partial(flops.vlmo_step, config), {"objective": {"tasks": ["itm", "mlm"]}})]
    if isinstance(config, SemVlpConfig):
        words = {"objective": {"object_features": False, "object_labels": False}}
        return [
            Learner(f"{name}, {mode}", partial(flops.semvlp_step, config, mode), words, {"modes": mode})
            for mode in MODES
        ]
    raise ConfigError(
        f"{name} does not learn MLM and ITM by themselves; try --model unimo3_base, vlmo_base or "
        "semvlp_base, or for a UNIMO `sequences` in place of `train`"
    )
