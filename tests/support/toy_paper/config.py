"""Sizes of the toy paper."""

from __future__ import annotations

from dataclasses import dataclass, field

from unimo.nn.config import TextConfig, VisionConfig

CAPABILITIES = frozenset({"pixels", "dual_encoder", "fusion"})


@dataclass(frozen=True)
class Config:
    """A whole model."""

    name: str = "toy_tiny"
    text: TextConfig = field(default_factory=lambda: TextConfig(hidden_size=16))
    vision: VisionConfig = field(default_factory=lambda: VisionConfig(hidden_size=16, image_size=32))


SIZES = {"toy_tiny": Config()}
