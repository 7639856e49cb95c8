"""Configuration of SemVLP. Needs no Paddle. The defaults are those of the paper's base model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from unimo.errors import ConfigError
from unimo.models.paper import PretrainConfig
from unimo.nn.config import check_heads
from unimo.ranges import Classes, Count, Depth, Dropout, Heads, NonNegative, Share, Width, Words

Mode = Literal["single", "two"]
"""single: text and image in one sequence (section 3.2.1); two: in a sequence each (section 3.2.2)."""
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class TextConfig:
    """The Transformer that reads texts and images, and the embeddings of texts: BERT-base."""

    hidden_size: Width = 768
    num_layers: Depth = 12
    num_heads: Heads = 12
    intermediate_size: Width = 3072
    vocab_size: Words = 30522
    """bert-base-uncased."""
    max_position: Words = 512
    """Rows of the position table, and longest text in tokens."""
    dropout: Dropout = 0.1
    """On embeddings and on each part of a layer."""
    attention_dropout: Dropout = 0.1
    init_std: NonNegative = 0.02
    init: str = ""
    """Card (`bert-base-uncased`), or folder of tools/convert_checkpoint.py --from hf-bert, of BERT or
    StructBERT; empty: random."""

    @property
    def longest(self) -> int:
        """Largest number of tokens of a text."""
        return self.max_position


@dataclass(frozen=True)
class RegionConfig:
    """Objects of images (section 3.1.1)."""

    feature_size: Width = 2048
    """F, width of an object's feature; a run takes that of `data.regions`."""
    num_classes: Classes = 1600
    """C, classes of the detector; 0 where the features come without labels."""
    num_attributes: Classes = 400
    """A, attributes of the detector; 0 where the features come without any."""


@dataclass(frozen=True)
class CrossConfig:
    """Pluggable cross-attention from image to text (section 3.2.2)."""

    start: Count = 6
    """L_s: image rows read the text in the layers above this one, counted from 1. 0: in all layers; the
    number of layers: in none, so that an image never meets its text in two-stream mode."""
    modules: Literal["above", "all"] = "above"
    """Layers that own a cross-attention: those above L_s, or all, of which only those are used. The paper
    counts 140M parameters, which is `all`."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """Pre-training tasks (section 3.3.1)."""

    object_features: bool = True
    """Regress the features of masked objects."""
    object_labels: bool | None = None
    """Predict the detector's labels of masked objects; None: if `data.regions` has them."""
    object_attributes: bool = False
    """Predict the detector's attributes of masked objects too, as LXMERT does; the paper has two tasks."""
    answers: Count = 0
    """Number of answers that questions about images are classified into; a run takes that of
    `task.answers`. 0: no such task."""


@dataclass(frozen=True)
class Config:
    """A whole model; the defaults are SemVLP-base."""

    name: str = "semvlp_base"
    mode: Mode = "single"
    """Mode in which pairs are read (section 3.3.3), `task.mode` of fine-tuning. Pre-training has `task.modes`
    instead."""
    text: TextConfig = field(default_factory=TextConfig)
    regions: RegionConfig = field(default_factory=RegionConfig)
    cross: CrossConfig = field(default_factory=CrossConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)

    @property
    def hidden_size(self) -> int:
        """H, the width of everything."""
        return self.text.hidden_size

    def __post_init__(self) -> None:
        check_heads(text=self.text)
        if self.cross.start > self.text.num_layers:
            raise ConfigError(
                f"model.cross.start (L_s) {self.cross.start}: expected 0 to {self.text.num_layers}, which is "
                f"no cross-attention at all; try {self.text.num_layers // 2}, half of them as in the paper"
            )


@dataclass(frozen=True)
class PretrainingConfig(PretrainConfig):
    """Task section of pre-training."""

    modes: Literal["both", "single", "two"] = "both"
    """Modes of the steps: each step draws one of both with equal chance (section 3.3.2), or all have the same
    one (Table 4)."""
    object_mask_probability: Share = 0.15
    """Share of the objects to mask (section 3.3.1)."""
    answers: str = "auto"
    """Answers that are learned (`unimo/data/readers/answer_table.py`): a JSON list, or `auto` for all of the
    corpora that are questions."""
    mask_overlapping: bool = False
    """Mask with an object all that overlap it by more than 0.3 (UNIMO, section 2.2), which show parts of it,
    and predict only masked objects that no visible one overlaps so."""
