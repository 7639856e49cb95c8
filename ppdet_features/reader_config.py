"""Section `TestReader` of a detector's YAML file: the preprocessing of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from unimo.config import merge_into
from unimo.errors import ConfigError


@dataclass(frozen=True)
class DecodeConfig:
    """Order of the colours."""

    to_rgb: bool = True
    """False for BGR, as Caffe networks read it (ours)."""


@dataclass(frozen=True)
class ResizeConfig:
    """Size of the network's input, in pixels."""

    target_size: list[int] = field(default_factory=lambda: [800, 1333])
    """Length of the shorter side, and the largest length of the longer side, which wins."""
    keep_ratio: bool = True
    interp: Literal[1, 2] = 1
    """1 linear, 2 cubic; both by Pillow, which smooths when it scales down."""

    def __post_init__(self) -> None:
        if len(self.target_size) != 2 or min(self.target_size) < 1 or not self.keep_ratio:
            raise ConfigError(f"Resize: expected two sides and keep_ratio: true, found {self.target_size}")


@dataclass(frozen=True)
class NormalizeConfig:
    """Normalisation of colours: (value - mean) / std, where values are first divided by 255 if `is_scale`."""

    is_scale: bool = True
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])


@dataclass(frozen=True)
class TransformsConfig:
    """The steps of `sample_transforms`, a list in YAML, in this order."""

    Decode: DecodeConfig = field(default_factory=DecodeConfig)
    Resize: ResizeConfig = field(default_factory=ResizeConfig)
    NormalizeImage: NormalizeConfig = field(default_factory=NormalizeConfig)
    Permute: dict[str, int] = field(default_factory=dict)


def _read_transforms(value: Any, where: str, current: TransformsConfig) -> TransformsConfig:
    if isinstance(value, Mapping):
        return merge_into(current, value, where)
    if not isinstance(value, list) or not all(isinstance(step, Mapping) and len(step) == 1 for step in value):
        raise ConfigError(
            f"{where}: expected a list such as [Decode: {{}}, Resize: {{...}}], found {value!r}"
        )
    return merge_into(current, {name: keys or {} for step in value for name, keys in step.items()}, where)


@dataclass(frozen=True)
class ReaderConfig:
    """Section `TestReader`: preprocessing of images, in training as well."""

    RESOLVE = {"sample_transforms": _read_transforms}

    sample_transforms: TransformsConfig = field(default_factory=TransformsConfig)
    batch_size: int = 1
    """Batch size of evaluation; extraction has its own."""
    shuffle: bool = False
    drop_last: bool = False
