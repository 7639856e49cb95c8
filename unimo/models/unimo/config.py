"""Config of UNIMO: one Transformer, region embeddings, and the pre-training objective. Needs no Paddle."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from unimo.models.paper import PretrainConfig
from unimo.nn.config import TextConfig, check_heads
from unimo.ranges import Classes, Count, Positive, Share, Width


@dataclass(frozen=True)
class RegionConfig:
    """Region features of images (section 2, appendix A)."""

    feature_size: Width = 2048
    """F, width of a region feature; a run takes that of `data.regions`."""
    num_classes: Classes = 1600
    """C, classes of the detector; 0 where the features come without class probabilities."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """Pre-training objective (sections 2.1 to 2.3)."""

    contrast: Literal["cmcl", "itm"] = "cmcl"
    """cmcl: cross-modal contrastive learning, Eqs (6) and (7). itm: image-text matching in its place, which
    with `data.texts=[] data.images=[]` is "w/o single-modal" of Table 2."""
    temperature: Positive = 1.0
    """tau of Eq. (7), whose value the paper does not give; the scale of d is learned too."""
    region_regression: bool = True
    """Regress the features of masked regions (section 2.2)."""
    region_classification: bool = True
    """Predict the classes of masked regions, if the source of the features has classes."""
    regression_reduction: Literal["mean", "sum"] = "mean"
    """Over the F numbers of a feature: sum as printed, or mean, which is F times smaller."""


@dataclass(frozen=True)
class Config:
    """A whole model; the defaults are UNIMO-base (Table 6)."""

    name: str = "unimo_base"
    text: TextConfig = field(default_factory=TextConfig)
    """The Transformer that reads everything, and its token embeddings; `text.init` is RoBERTa."""
    regions: RegionConfig = field(default_factory=RegionConfig)
    pair_feature: Literal["product", "sum"] = "product"
    """Pooled vector of a pair, made of pooled image and text: the release multiplies them for retrieval and
    adds them for SNLI-VE."""
    role_types: Count = 0
    """Rows of a role embedding (who speaks) for dialogues; the release has 3 for CoQA. 0: none."""
    turn_types: Count = 0
    """Rows of a turn embedding for dialogues; the release has 16 for CoQA. 0: none."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)

    @property
    def hidden_size(self) -> int:
        """H, the width of everything."""
        return self.text.hidden_size

    def __post_init__(self) -> None:
        check_heads(text=self.text)


@dataclass(frozen=True)
class AugmentConfig:
    """Positive and negative texts and images of each pair besides its own (section 2.1 and appendix A)."""

    rewrites: str = ""
    """jsonl of `augment_corpus.py rewrite`, or `scenes`; empty: none."""
    texts: str = ""
    """jsonl of `augment_corpus.py retrieve-text`, or `scenes`; empty: none."""
    images: str = ""
    """jsonl of `augment_corpus.py retrieve-images`, or `scenes`; empty: none."""
    positives: Count = 1
    """Largest number of rewritten captions of a pair in a step: a of Algorithm 1, which gives no values."""
    negatives: Count = 4
    """Largest number of hard negative captions: b."""
    mismatched: Count = 2
    """Captions of other images of the batch that are fused with each image as further negatives."""
    related_images: Count = 1
    """Largest number of related images: c (Algorithm 1 and its comments give c and d in different order)."""
    related_texts: Count = 1
    """Largest number of related texts: d."""


@dataclass(frozen=True)
class PretrainingConfig(PretrainConfig):
    """Task section of UNIMO's pre-training."""

    seq2seq_probability: Share = 0.0
    """Share of the texts that are generated in fragments instead of masked (section 2.3)."""
    fragment_share: Share = 0.25
    """Share of the tokens of such a text that lie in its fragments."""
    region_mask_probability: Share = 0.15
    """Share of the regions to hide; those that overlap a hidden one by more than 0.3 go with it."""
    phrases: str = ""
    """Parser of the phrases that span masking and fragments treat as one word: `textblob`, or
    `spacy:PIPELINE`; empty: words are not joined."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Rewritten captions, related texts and images."""
