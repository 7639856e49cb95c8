"""Configuration of UNIMO-3 and of METER and BridgeTower, which are settings of it. Needs no Paddle.

Fusion layers, and the layers of each tower, are counted from 1 as in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from unimo.errors import ConfigError
from unimo.nn import config as nn_config

CAPABILITIES = frozenset({"pixels", "dual_encoder", "fusion"})

LinkRange = Literal["causal", "relative", "all", "window", "bridge", "none"]


@dataclass(frozen=True)
class TextConfig(nn_config.TextConfig):
    """RoBERTa tower."""

    pooler: bool = True
    """Carry RoBERTa's own pooler, unused and frozen, so that released weights load without leftovers."""


@dataclass(frozen=True)
class VisionConfig(nn_config.VisionConfig):
    """CLIP-ViT tower; its position embeddings start at hidden_size ** -0.5."""

    remove_last: int = 0
    """How many of the last blocks of the CLIP model are not built; METER leaves out 1."""

    @property
    def used_layers(self) -> int:
        """Blocks that are built."""
        return self.num_layers - self.remove_last


@dataclass(frozen=True)
class FusionConfig:
    """Fusion encoder and cross-layer links. The defaults are the recommended reading of Eqs (6) to (11).

    n is the number of tower layers, m of internal (linked) fusion layers, S the start layer, and
    d(l) = S - 2 + l the highest tower layer that the internal layer l may read.
    """

    hidden_size: int = 768
    num_layers: int = 6
    """All fusion layers, internal and external."""
    num_internal: int | None = None
    """m: the first so many layers are linked; the others are plain layers on top. None means all."""
    num_heads: int = 12
    intermediate_size: int = 3072
    dropout: float = 0.1
    attention_dropout: float = 0.1
    init_std: float = 0.02
    text_start: int = 0
    """S of the text tower; 0 means n - m + 2."""
    image_start: int = 0
    """S of the vision tower; 0 means n - m + 2."""
    link_range: LinkRange = "causal"
    """Tower layers that internal layer l reads: causal 1..d(l), relative 1..l-1 (the sum's literal bound),
    all 1..n, window S-1..d(l), bridge d(l) alone (BridgeTower), none: no links (METER)."""
    link_feature: Literal["projected", "raw", "raw_ln"] = "projected"
    """T_k of Eqs (8), (9): W T_k + type; the bare state; the state after the tower's last norm."""
    link_reduce: Literal["mean", "literal", "sum", "ln_each", "learned"] = "mean"
    """mean LN(Z + mean g T); literal LN(K Z + sum g T), the same up to epsilon; sum LN(Z + sum g T);
    ln_each mean of LN(Z + g T); learned LN(Z + sum a_k g T) with a_k starting at 1 / K."""
    gate_dim: Literal["vector", "scalar", "layer_softmax", "none"] = "vector"
    """vector sigmoid(W T + b + Z); scalar sigmoid(w T + u Z + b), one number a token; layer_softmax
    softmax over layers of W T, times K; none: always open."""
    gate_share: Literal["fusion_layer", "modality", "uni_layer", "pair"] = "fusion_layer"
    """What owns a gate's W and b: each fusion layer, each modality, each tower layer, each pair."""
    gate_detach: bool = False
    """Stop the gradient from the gate to Z."""
    gate_bias_init: float = 0.0
    """Start of b; +2 starts with open gates."""
    first_layer_gate: bool = True
    """False: fusion layer 1 starts from LN(Z_0) without links, as BridgeTower does."""

    @property
    def internal_layers(self) -> int:
        """m, 0 without links."""
        if self.link_range == "none":
            return 0
        return self.num_layers if self.num_internal is None else self.num_internal

    def start(self, num_tower_layers: int, given: int) -> int:
        """The start layer S of a tower; Z_0 is the state of layer S - 1 (Eqs 6 and 7)."""
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
    """random: the images that the batch names; hard: images drawn by contrastive similarity (ALBEF)."""
    contrastive_size: int = 256
    """Width of the contrastive space, with hard negatives."""


@dataclass(frozen=True)
class Config:
    """A whole model."""

    name: str = "unimo3_base"
    text: TextConfig = field(default_factory=TextConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)

    def __post_init__(self) -> None:
        towers = (
            ("text", self.text.num_layers, self.fusion.text_start),
            ("image", self.vision.used_layers, self.fusion.image_start),
        )
        for tower, layers, given in towers:
            linked_layers(self.fusion, layers, given, tower)
        widths = {self.text.hidden_size, self.vision.hidden_size, self.fusion.hidden_size}
        if self.fusion.link_feature != "projected" and len(widths) > 1:
            raise ConfigError(
                f"fusion.link_feature={self.fusion.link_feature} adds tower states to fusion states and "
                f"needs equal widths, found {sorted(widths)}; use projected"
            )
        for part in (self.text, self.vision, self.fusion):
            if part.hidden_size % part.num_heads:
                raise ConfigError(
                    f"{type(part).__name__}: hidden_size {part.hidden_size} does not divide into "
                    f"{part.num_heads} heads"
                )


def linked_layers(
    fusion: FusionConfig, num_tower_layers: int, given_start: int, tower: str = "text"
) -> list[range]:
    """Tower layers that each internal fusion layer 1..m reads (the index sets of Eqs 9 and 11).

    Raises:
        ConfigError: a link would read a layer that the tower does not have.
    """
    start, m, n = fusion.start(num_tower_layers, given_start), fusion.internal_layers, num_tower_layers
    by_depth = fusion.link_range in ("causal", "window", "bridge")
    highest = start - 2 + m if by_depth else max(start - 1, m - 1 if fusion.link_range == "relative" else 0)
    if start < 2 or start - 1 > n or highest > n:
        raise ConfigError(
            f"fusion.{tower}_start {start} with {m} linked fusion layers reads {tower} layer "
            f"{max(highest, start - 1)}, but layers 1 to {n} exist; use 0 for the usual start, "
            "fewer linked layers (fusion.num_internal), or a deeper tower"
        )
    table = [_reach(fusion.link_range, layer, start, n) for layer in range(1, m + 1)]
    if table and not fusion.first_layer_gate:
        table[0] = range(1, 1)
    return table


def _reach(link_range: LinkRange, layer: int, start: int, num_tower_layers: int) -> range:
    depth = start - 2 + layer
    return {
        "causal": range(1, depth + 1),
        "relative": range(1, layer),
        "all": range(1, num_tower_layers + 1),
        "window": range(start - 1, depth + 1),
        "bridge": range(depth, depth + 1),
    }[link_range]
