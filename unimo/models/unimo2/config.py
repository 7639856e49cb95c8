"""Configuration of UNIMO-2. Needs no Paddle.

Where the paper and the released code differ, both are values here; docs/papers/unimo2.md lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from unimo.errors import ConfigError
from unimo.models.paper import PretrainConfig
from unimo.nn.config import TextConfig, VitConfig, check_heads
from unimo.ranges import Count, Depth, Dropout, Heads, NonNegative, Positive, Width, Words


@dataclass(frozen=True)
class GroundingConfig:
    """Grounded dictionary (section 3.1). C is `dictionary_size`, K `num_tokens`."""

    enabled: bool = True
    """False: no dictionary at all, "w/o GD (P)" of Table 4."""
    enabled_at_inference: bool = True
    """False: only pre-training, which passes `grounding` to `fuse`, uses the dictionary; where `fuse` has to
    choose the tokens, there are none. "w/o GD (I)" of Table 4."""
    method: Literal["topk", "one_to_one"] = "topk"
    """topk: the K rows with the largest accumulated scores. one_to_one: the nearest row of each patch and
    token (VQ), "1-to-1 Map" of Tables 4 and 5, without K."""
    dictionary_size: Words = 2048
    num_tokens: Count = 100
    """K; 0 switches grounding off, as enabled=false."""
    temperature_init: Positive = 100.0
    """Start of eta in Eq. (1). It is learned, and clipped to [1, 10000] where it is used."""
    mask_padding: bool = True
    """Padding takes no part. False as in the release: it counts in Eq. (2) and so changes the choice, and its
    rows, whose states this makes matter, read all rows of text encoder and Grounded Transformer alike
    (`unimo.nn.attention.outer_mask`)."""
    reduction: Literal["mean", "sum"] = "mean"
    """Eq. (3). sum: over positions (and K) and width, mean over samples, as printed; mean: over all
    elements of each term, as the release."""
    beta: NonNegative = 0.25
    """Weight of the second term of Eq. (3)."""
    alpha: NonNegative = 1.0
    """Weight of its first term; the paper has 1."""
    class_tokens: bool = False
    """Class tokens take part, besides patches and tokens. Section 4 and appendix A count them (709 is 197 +
    512), the 14 x 14 "visual tokens" of section 4 and the release do not."""
    project: bool = False
    """Bring patches and tokens to the dictionary by a linear layer with ReLU and L2 norm for each."""
    norm_tokens: bool = True
    """LayerNorm and dropout on grounded tokens before the Grounded Transformer, as the release does."""
    positions: bool = False
    """Add the text's position embeddings to the grounded tokens, the best first, except for captions: an
    option of the release (`with_grounding_pos`), which has it off."""

    @property
    def is_active(self) -> bool:
        """Whether the model has a dictionary."""
        return self.enabled and (self.method == "one_to_one" or self.num_tokens > 0)

    def __post_init__(self) -> None:
        if self.method == "topk" and not 0 <= self.num_tokens <= self.dictionary_size:
            raise ConfigError(
                f"grounding.num_tokens (K) {self.num_tokens} is not between 0 and "
                f"grounding.dictionary_size (C) {self.dictionary_size}; choose a smaller K or a larger C"
            )


@dataclass(frozen=True)
class FusionConfig:
    """Grounded Transformer; the defaults are RoBERTa-base's layers."""

    hidden_size: Width = 768
    num_layers: Depth = 12
    num_heads: Heads = 12
    intermediate_size: Width = 3072
    dropout: Dropout = 0.1
    attention_dropout: Dropout = 0.1
    init_std: NonNegative = 0.02
    init: str = ""
    """Card, or folder of tools/convert_checkpoint.py --from hf-roberta, whose layers are taken."""
    visibility: Literal["grounded", "full"] = "grounded"
    """grounded: image and text meet only in the grounded tokens (Fig. 2). full: everything reads
    everything, "w/o G.T." of Table 4 and, with grounding.enabled=false, the paper's baseline."""
    caption_sees_image: bool = False
    """Decoding: a caption token reads image rows too, as in the release, not only grounded tokens."""
    pooler: Literal["relu", "tanh", "none"] = "relu"
    """Linear layer and activation on a first token; none takes its state as it is."""
    itm_feature: Literal["concat", "product", "sum"] = "concat"
    """Pooled vector of a pair: both parts concatenated [B, 2 H] as in the paper, or their product or sum
    [B, H] as in the release."""
    itm_dropout: Dropout = 0.0
    """Dropout of the pooled vector of a pair; the release has 0.1."""
    contrastive_weight: NonNegative = 0.0
    """Weight of the contrastive score of a pair in its matching score, in fine-tuned retrieval and zero-shot.
    0.3 in the release, which compares class tokens of the encoders without heads; the paper has none."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """Pre-training objective (section 3.2)."""

    itm_negatives: Literal["random", "hard"] = "random"
    """Mismatched images. random: as the batch names them; hard: drawn by contrastive similarity (ALBEF)."""
    contrastive: bool = False
    """Add a contrastive loss of the class tokens of image and text, which the paper does not have. It is the
    release's (CMCL) only without heads."""
    contrastive_heads: bool = True
    """Contrast class tokens through linear heads and with unit length. False as in the release: as they are,
    and only that of the image with unit length."""
    contrastive_size: Width = 256
    """Width of the contrastive space of image and text, of heads."""
    vcl_size: Width = 128
    """Width of the space of visual contrastive learning (SimCLR has 128)."""
    vcl_temperature: Positive = 0.1
    """Temperature of visual contrastive learning (SimCLR has 0.1)."""


RELEASE: Mapping[str, Mapping[str, Any]] = {
    "vision": {"patch_padding": 7},
    "grounding": {
        "mask_padding": False,
        "class_tokens": False,
        "project": False,
        "positions": False,
        "norm_tokens": True,
        "reduction": "mean",
    },
    "fusion": {
        "caption_sees_image": True,
        "pooler": "relu",
        "itm_feature": "product",
        "itm_dropout": 0.1,
        "contrastive_weight": 0.3,
    },
    "objective": {"contrastive_heads": False},
}
"""Meaning of `behaviour=release`: the settings of the released code and its scripts."""
_KINDS = {
    "vision": VitConfig,
    "grounding": GroundingConfig,
    "fusion": FusionConfig,
    "objective": ObjectiveConfig,
}
PAPER: Mapping[str, Mapping[str, Any]] = {
    part: {name: getattr(_KINDS[part], name) for name in fields} for part, fields in RELEASE.items()
}
"""Meaning of `behaviour=paper`: the defaults of the same fields."""


@dataclass(frozen=True)
class Config:
    """A whole model. One width H everywhere, because encoder outputs enter the fusion as they are."""

    SWITCHES: ClassVar[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
        "behaviour": {"paper": PAPER, "release": RELEASE}
    }
    """Fields that stand for others where a config is read (`unimo.config.spell_out`)."""

    name: str = "unimo2_base"
    behaviour: Literal["paper", "release"] = "paper"
    """Where paper and release differ: short for all fields of `PAPER` or `RELEASE`, in this file. Fields that
    are given beside it win, and so does what comes later, such as the command line after a recipe."""
    text: TextConfig = field(default_factory=TextConfig)
    vision: VitConfig = field(default_factory=VitConfig)
    grounding: GroundingConfig = field(default_factory=GroundingConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)

    @property
    def hidden_size(self) -> int:
        """H, the width of everything."""
        return self.fusion.hidden_size

    def __post_init__(self) -> None:
        widths = [part.hidden_size for part in (self.text, self.vision, self.fusion)]
        if len(set(widths)) > 1:
            raise ConfigError(
                f"text, vision and fusion share one hidden_size, found {widths}; set all three to one value"
            )
        check_heads(text=self.text, vision=self.vision, fusion=self.fusion)
        grounding, longest = self.grounding, self.text.longest
        if grounding.positions and (grounding.method == "one_to_one" or grounding.num_tokens > longest):
            raise ConfigError(
                f"grounding.positions=true with method {grounding.method} and num_tokens (K) "
                f"{grounding.num_tokens}: expected topk and at most {longest} tokens, for which "
                f"text.max_position {self.text.max_position} has rows; set it to false, or a smaller K"
            )


@dataclass(frozen=True)
class PretrainingConfig(PretrainConfig):
    """Task section of UNIMO-2's pre-training."""

    view_transform: str = "clip_views"
    """Transform that makes the two views of an unpaired image for contrastive learning."""
