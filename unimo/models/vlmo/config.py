"""Configuration of VLMo. Needs no Paddle. The defaults are those of the released base model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from unimo.errors import ConfigError
from unimo.models.paper import PretrainConfig
from unimo.nn.config import check_heads
from unimo.ranges import Count, Depth, Dropout, Heads, NonNegative, Pixels, Width, Words


@dataclass(frozen=True)
class TextConfig:
    """Inputs of texts (section 3.1): BERT's embeddings."""

    vocab_size: Words = 30522
    """bert-base-uncased."""
    max_position: Words = 40
    """Rows of the position table, and longest text in tokens; the language stage has 196."""

    @property
    def longest(self) -> int:
        """Largest number of tokens of a text."""
        return self.max_position


@dataclass(frozen=True)
class VisionConfig:
    """Inputs of images (section 3.1): patches."""

    image_size: Pixels = 224
    """Side of the square input, pixels; a multiple of patch_size."""
    patch_size: Pixels = 16
    types: Literal[1, 2] = 1
    """Type embeddings of images: 2 tell the pictures of a pair apart (NLVR2)."""

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        """Patches of an image."""
        return self.grid**2

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size or not self.image_size:
            raise ConfigError(
                f"vision.image_size {self.image_size} is not a multiple of vision.patch_size "
                f"{self.patch_size}; try {max(1, self.image_size // self.patch_size) * self.patch_size}"
            )


@dataclass(frozen=True)
class TransformerConfig:
    """Multiway Transformer (section 3.2)."""

    hidden_size: Width = 768
    num_layers: Depth = 12
    num_heads: Heads = 12
    intermediate_size: Width = 3072
    experts: Literal["modality", "shared"] = "modality"
    """modality: a feed-forward network for each kind of input; shared: one for all, which is a standard
    Transformer (Table 5)."""
    pair_layers: Count = 2
    """Top layers with a vision-language expert; 0: none, as in row "Multiway" of Table 5 and in the release's
    language stage."""
    positions: Literal["relative", "absolute"] = "relative"
    """relative: biases of attention, as released for base and large; absolute: embeddings of tokens and
    patches (section 3.1), as released for base_plus."""
    layer_scale: NonNegative | None = 0.1
    """Start of the learned factors of each branch; None: no such factors."""
    drop_path: Dropout = 0.0
    """Rate of the top layer at which samples skip a branch; it rises linearly from 0 at the bottom. Text
    embeddings are dropped at that rate too, as in the release."""
    init_std: NonNegative = 0.02

    @property
    def first_pair_layer(self) -> int:
        """Index, from 0, of the first layer with a vision-language expert; `num_layers` if there is none."""
        return self.num_layers - (self.pair_layers if self.experts == "modality" else 0)

    @property
    def has_pair_experts(self) -> bool:
        """Whether some layer has a vision-language expert."""
        return self.first_pair_layer < self.num_layers

    def __post_init__(self) -> None:
        if self.pair_layers > self.num_layers:
            raise ConfigError(
                f"transformer.pair_layers {self.pair_layers} is more than transformer.num_layers "
                f"{self.num_layers}; the base model has 2 of 12"
            )


_TEACHERS = {
    "dvae": "a safetensors file of the encoder of DALL-E's dVAE (OpenAI's encoder.pkl, converted)",
    "features": "a folder written by tools/convert_checkpoint.py --from hf-clip or hf-vit",
}
"""Value of `ObjectiveConfig.image_targets` -> the weights that it needs."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """Tasks of the vision-language stage (section 3.3), and targets of the vision stage (section 3.4)."""

    tasks: tuple[Literal["itc", "itm", "mlm"], ...] = ("itc", "itm", "mlm")
    """Tasks that are learned; subsets are rows of Table 5. Without `itc`, mismatched pairs are drawn at
    random."""
    pair_contrast: bool = True
    """Contrast also vectors that went through the vision-language experts, as the release does."""
    detach_gathered: bool = False
    """Give vectors of other ranks no gradient, as the release does; it makes that of ITC 1/ranks of the true
    one."""
    candidates: Count = 0
    """Number of pairs among which a hard negative is drawn (Table 6); 0: all of this round, on all ranks."""
    mlm_weight: NonNegative = 0.25
    """Of the release; the paper gives no weights."""
    image_targets: Literal["pixels", "dvae", "features"] = "pixels"
    """Targets of masked patches in the vision stage. pixels: their pixels, normalised (MAE), which needs
    no other weights; dvae: codes of DALL-E's discrete VAE (BEiT, as the paper); features: states of a frozen
    tower (EVA)."""
    image_teacher: str = ""
    """Weights of what gives these targets. dvae: a safetensors file of the encoder, under OpenAI's names;
    features: a card, or a folder of tools/convert_checkpoint.py --from hf-vit or hf-clip."""

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ConfigError("objective.tasks is empty, so nothing is learned; try [itc,itm,mlm]")
        wanted = _TEACHERS.get(self.image_targets)
        if wanted and not self.image_teacher:
            raise ConfigError(
                f"objective.image_targets={self.image_targets} needs weights, and objective.image_teacher is "
                f"empty; give {wanted}, or set objective.image_targets=pixels"
            )
        if self.image_teacher and not wanted:
            raise ConfigError(
                f"objective.image_teacher={self.image_teacher} is not read with "
                f"objective.image_targets=pixels; set that to {' or '.join(_TEACHERS)}, or leave out the file"
            )


@dataclass(frozen=True)
class PretrainingConfig(PretrainConfig):
    """Task section of pre-training."""

    stage: Literal["vision", "language", "vision_language"] = "vision_language"
    """Stage of pre-training (section 3.4): masked patches of images alone, masked words of texts alone,
    or the tasks on pairs."""
    init_experts: Literal["own", "image"] = "own"
    """Start of the experts in `init_from`. own: those for the same inputs, and where it has none, as of
    pairs, they start at random; image: all from those for images (Table 3, "Image-Only Pre-Training")."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The one kind of corpora that the stage learns from; so one section `data` serves all stages."""
        return ({"vision": "images", "language": "texts", "vision_language": "pairs"}[self.stage],)


@dataclass(frozen=True)
class Config:
    """A whole model."""

    name: str = "vlmo_base"
    text: TextConfig = field(default_factory=TextConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)

    @property
    def hidden_size(self) -> int:
        """D, the width of everything."""
        return self.transformer.hidden_size

    def __post_init__(self) -> None:
        check_heads(transformer=self.transformer)
