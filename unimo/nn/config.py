"""Configs of the towers. Needs no Paddle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from unimo.errors import ConfigError
from unimo.ranges import Count, Depth, Dropout, Heads, NonNegative, Pixels, Width, Words


@dataclass(frozen=True)
class TextConfig:
    """RoBERTa tower; the defaults are RoBERTa-base."""

    hidden_size: Width = 768
    num_layers: Depth = 12
    num_heads: Heads = 12
    intermediate_size: Width = 3072
    vocab_size: Words = 50265
    max_position: Words = 514
    """Rows of the position table; positions start at padding_id + 1, so 514 rows hold 512 tokens."""
    padding_id: Count = 1
    dropout: Dropout = 0.1
    """On embeddings and on both parts of each layer."""
    attention_dropout: Dropout = 0.1
    init_std: NonNegative = 0.02
    init: str = ""
    """Card (`roberta-base`), folder of Hugging Face or of tools/convert_checkpoint.py; empty: random. With
    `?` behind it, random with a warning where the weights cannot be had."""

    @property
    def longest(self) -> int:
        """Largest number of tokens of a text."""
        return self.max_position - self.padding_id - 1


@dataclass(frozen=True)
class VisionConfig:
    """Vision tower of either kind; the defaults are ViT-B/16 at 224."""

    hidden_size: Width = 768
    num_layers: Depth = 12
    num_heads: Heads = 12
    intermediate_size: Width = 3072
    patch_size: Pixels = 16
    image_size: Pixels = 224
    """Side of the square input, pixels; a multiple of patch_size."""
    dropout: Dropout = 0.0
    position_init_std: NonNegative | None = None
    """Standard deviation that position embeddings start with; None means the tower's own. Next to patches of
    unit scale the tower's own is faint: without pre-trained towers a model learns slowly where things are."""
    init: str = ""
    """Card, folder of Hugging Face or of tools/convert_checkpoint.py; else as of texts."""

    @property
    def num_patches(self) -> int:
        """Patches of an image."""
        return (self.image_size // self.patch_size) ** 2

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ConfigError(
                f"vision.image_size {self.image_size} is not a multiple of vision.patch_size "
                f"{self.patch_size}; try {self.image_size // self.patch_size * self.patch_size}"
            )


@dataclass(frozen=True)
class ClipVisionConfig(VisionConfig):
    """CLIP-ViT tower; its position embeddings start at hidden_size ** -0.5."""

    remove_last: Count = 0
    """Number of last blocks of the CLIP model that are not built; METER leaves out 1."""

    @property
    def used_layers(self) -> int:
        """Number of blocks that are built."""
        return self.num_layers - self.remove_last


@dataclass(frozen=True)
class VitConfig(VisionConfig):
    """ViT tower."""

    patch_padding: Count = 0
    """Zero padding of the patch convolution: 0 is a usual ViT, 7 that of UNIMO-2's release (patches start
    outside the image)."""
    init_std: NonNegative = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= 2 * self.patch_padding < self.patch_size:
            raise ConfigError(
                f"vision.patch_padding {self.patch_padding} is not between 0 and half of vision.patch_size "
                f"{self.patch_size}; use 0 (ViT) or {(self.patch_size - 1) // 2} (UNIMO-2's release)"
            )


def check_heads(**parts: Any) -> None:
    """Check that the width of each part of a model, a section of its config, divides into its heads.

    Raises:
        ConfigError: one does not.
    """
    for name, part in parts.items():
        if part.hidden_size % part.num_heads:
            raise ConfigError(
                f"{name}.hidden_size {part.hidden_size} does not divide into {part.num_heads} heads "
                f"({name}.num_heads)"
            )
