"""Configuration of UNIMO-3 and of METER and BridgeTower, which are settings of it. Needs no Paddle.

Fusion layers, and the layers of each tower, are counted from 1 as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from unimo.errors import ConfigError
from unimo.nn import config as nn_config
from unimo.nn.config import ClipVisionConfig, check_heads
from unimo.ranges import Count, Depth, Dropout, Heads, NonNegative, Positive, Width

LinkRange = Literal["causal", "relative", "all", "bridge", "none"]


@dataclass(frozen=True)
class TextConfig(nn_config.TextConfig):
    """RoBERTa tower."""

    pooler: bool = True
    """Carry RoBERTa's own pooler, unused and frozen, so that released weights load without leftovers."""


@dataclass(frozen=True)
class VisionConfig(ClipVisionConfig):
    """CLIP-ViT tower, and what tells its pictures apart in fusion."""

    types: Literal[1, 2] = 1
    """Type embeddings of images: 2 tell the pictures of a pair apart (NLVR2; METER and BridgeTower code)."""
    vector: Literal["tower", "projected"] = "tower"
    """Vector of an image in contrast: its class token after the tower (BridgeTower's code), or what fusion
    reads of it (its port at Hugging Face)."""


@dataclass(frozen=True)
class FusionConfig:
    """Fusion encoder and cross-layer links. The defaults are the recommended reading of Eqs (6) to (11).

    n is the number of tower layers, m of internal (linked) fusion layers, S the start layer, and
    d(l) = S - 2 + l the highest tower layer that internal layer l may read: fusion starts from tower layer
    S - 1 (Eqs 6 and 7), and each fusion layer goes one tower layer up.
    """

    REMOVED: ClassVar[Mapping[str, str]] = {
        "link_feature": "links read projected states; delete the key",
        "link_reduce": "links are averaged; delete the key",
        "gate_share": "each fusion layer has gates of its own; delete the key",
        "gate_detach": "gates pass their gradient on to the fusion state; delete the key",
        "gate_bias_init": "gates start with bias 0; delete the key",
    }
    """Keys of version 0.1 that are gone, and what now always holds."""

    hidden_size: Width = 768
    num_layers: Depth = 6
    """All fusion layers, internal and external."""
    num_internal: Count | None = None
    """m: number of linked layers, at the bottom; the others are plain layers on top. None means all."""
    num_heads: Heads = 12
    intermediate_size: Width = 3072
    dropout: Dropout = 0.1
    attention_dropout: Dropout = 0.1
    init_std: NonNegative = 0.02
    epsilon: Positive = 1e-12
    """Epsilon of the norms in co-attention layers and in the MLM head: 1e-12 in the code of METER and
    BridgeTower, 1e-5 in their Hugging Face port."""
    text_start: Count = 0
    """S of the text tower; 0 means n - m + 2, so that the last internal layer reads the top of the tower."""
    image_start: Count = 0
    """S of the vision tower; 0 means n - m + 2."""
    link_range: LinkRange = "causal"
    """Tower layers that internal layer l reads: causal 1..d(l), relative 1..l-1 (the sum's literal bound),
    all 1..n, bridge d(l) alone (BridgeTower), none: no links (METER)."""
    gate_dim: Literal["vector", "none"] = "vector"
    """vector: a gate for each token and channel, as in Eqs (8) and (10); none: links are always open."""
    first_layer_gate: bool = True
    """False: fusion layer 1 starts from LN(Z_0) without links, as BridgeTower does."""

    @property
    def internal_layers(self) -> int:
        """m, 0 without links."""
        if self.link_range == "none":
            return 0
        return self.num_layers if self.num_internal is None else self.num_internal

    def start(self, num_tower_layers: int, given: int) -> int:
        """Return the start layer S of a tower; Z_0 is the state of layer S - 1 (Eqs 6 and 7).

        Args:
            num_tower_layers: n.
            given: `text_start` or `image_start`.
        """
        return given or num_tower_layers - max(self.internal_layers, 1) + 2

    def __post_init__(self) -> None:
        if not 0 <= self.internal_layers <= self.num_layers:
            raise ConfigError(
                f"fusion.num_internal {self.num_internal} is not between 0 and fusion.num_layers "
                f"{self.num_layers}"
            )


@dataclass(frozen=True)
class ObjectiveConfig:
    """Pre-training objective."""

    itm_negatives: Literal["random", "hard"] = "random"
    """Mismatched images. random: as the batch names them; hard: drawn by contrastive similarity (ALBEF)."""
    contrastive_size: Width = 256
    """Width of the contrastive space, with hard negatives."""


@dataclass(frozen=True)
class Config:
    """A whole model."""

    name: str = "unimo3_base"
    text: TextConfig = field(default_factory=TextConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)

    @property
    def vector_sizes(self) -> tuple[int, int]:
        """Widths of the vectors of texts and images that are contrasted."""
        image = self.fusion if self.vision.vector == "projected" else self.vision
        return self.text.hidden_size, image.hidden_size

    def __post_init__(self) -> None:
        linked_layers(self.fusion, self.text.num_layers, self.fusion.text_start, "text")
        linked_layers(self.fusion, self.vision.used_layers, self.fusion.image_start, "image")
        check_heads(text=self.text, vision=self.vision, fusion=self.fusion)


def linked_layers(
    fusion: FusionConfig, num_tower_layers: int, given_start: int, tower: str = "text"
) -> list[range]:
    """Return the tower layers that each internal fusion layer 1..m reads: the index sets of Eqs (9) and (11).

    Args:
        fusion: says m, and which layers are linked.
        num_tower_layers: n.
        given_start: S, 0 for the usual one.
        tower: name of the tower in messages.

    Raises:
        ConfigError: a link would read a layer that the tower does not have.
    """
    start, m, n = fusion.start(num_tower_layers, given_start), fusion.internal_layers, num_tower_layers
    depth = [start - 2 + layer for layer in range(1, m + 1)]  # d(1) .. d(m)
    table = {
        "causal": [range(1, d + 1) for d in depth],
        "relative": [range(1, layer) for layer in range(1, m + 1)],
        "all": [range(1, n + 1)] * m,
        "bridge": [range(d, d + 1) for d in depth],
        "none": [],
    }[fusion.link_range]
    highest = max([start - 1, *(numbers[-1] for numbers in table if numbers)])
    if start < 2 or highest > n:
        raise ConfigError(
            f"fusion.{tower}_start {start} with {m} linked fusion layers reads {tower} layer "
            f"{highest if start >= 2 else start - 1}, but layers 1 to {n} exist; use 0 for the usual start, "
            "fewer linked layers (fusion.num_internal), or a deeper tower"
        )
    if table and not fusion.first_layer_gate:
        table[0] = range(1, 1)
    return table
