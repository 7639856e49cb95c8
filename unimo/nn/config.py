"""What the configs of all towers share. Needs no Paddle."""

from __future__ import annotations

from dataclasses import dataclass

from unimo.errors import ConfigError


@dataclass(frozen=True)
class TextConfig:
    """RoBERTa tower; the defaults are RoBERTa-base."""

    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    vocab_size: int = 50265
    max_position: int = 514
    """Rows of the position table; positions start at padding_id + 1, so 514 rows hold 512 tokens."""
    padding_id: int = 1
    dropout: float = 0.1
    """On embeddings and on both parts of each layer."""
    attention_dropout: float = 0.1
    init_std: float = 0.02
    init: str = ""
    """Directory written by tools/convert_checkpoint.py --from hf-roberta; empty means random."""


@dataclass(frozen=True)
class VisionConfig:
    """ViT tower; the defaults are ViT-B/16 at 224."""

    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    patch_size: int = 16
    image_size: int = 224
    """Side of the square input, pixels; a multiple of patch_size."""
    dropout: float = 0.0
    position_init_std: float | None = None
    """Start of the position embeddings; None means as the tower has it. Next to patches of unit scale that is
    faint: a model without pre-trained towers is slow to learn where things are."""
    init: str = ""
    """Directory written by tools/convert_checkpoint.py --from hf-vit or hf-clip-vit; empty means random."""

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ConfigError(
                f"vision.image_size {self.image_size} is not a multiple of vision.patch_size "
                f"{self.patch_size}; try {self.image_size // self.patch_size * self.patch_size}"
            )
