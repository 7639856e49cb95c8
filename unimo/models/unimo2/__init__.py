"""UNIMO-2 (Li et al., 2022, arXiv 2203.09067): images and texts that meet in grounded tokens.

README.md beside this file maps the paper to the code; docs/papers/unimo2.md says what differs from the
release.
"""

from __future__ import annotations

from typing import Any

from unimo.models.paper import Paper, PretrainConfig, Published
from unimo.models.unimo2.config import Config, FusionConfig, GroundingConfig, PretrainingConfig
from unimo.models.unimo2.convert import from_release
from unimo.nn.config import TextConfig, VitConfig

_LARGE = {"hidden_size": 1024, "num_layers": 24, "num_heads": 16, "intermediate_size": 4096}
# Learns `scenes` from scratch on two CPU cores in minutes; the scales of the start are those of unimo3_tiny.
_TINY = {"hidden_size": 64, "num_heads": 4, "intermediate_size": 256}
_FIRM = {"dropout": 0.0, "attention_dropout": 0.0, "init_std": 0.1}

SIZES: dict[str, Config] = {
    config.name: config
    for config in (
        Config(),
        Config(
            name="unimo2_large",
            text=TextConfig(**_LARGE),
            vision=VitConfig(**_LARGE),
            fusion=FusionConfig(**_LARGE),
        ),
        Config(
            name="unimo2_tiny",
            text=TextConfig(**_TINY, **_FIRM, num_layers=2, max_position=66),
            vision=VitConfig(
                **_TINY, num_layers=3, patch_size=16, image_size=64, init_std=0.1, position_init_std=0.7
            ),
            grounding=GroundingConfig(dictionary_size=128, num_tokens=8, temperature_init=20.0),
            fusion=FusionConfig(**_TINY, **_FIRM, num_layers=2),
        ),
    )
}

_CORPORA = "COCO, Visual Genome, Conceptual Captions, SBU; BookWiki, OpenWebText; OpenImages, ImageNet-21k"


def _network(config: Config) -> Any:
    from unimo.models.unimo2.model import Unimo2

    return Unimo2(config)


def _objective(config: Config, options: PretrainConfig) -> Any:
    from unimo.models.unimo2.pretrain import Objective

    return Objective(config)


def _batches(run: Any, processor: Any) -> Any:
    from unimo.models.unimo2.collate import open_pretraining

    return open_pretraining(run, processor)


PAPER = Paper(
    name="unimo2",
    citation="UNIMO-2 (Li et al., 2022, arXiv 2203.09067)",
    sizes=SIZES,
    capabilities=frozenset(
        {
            "pixels",
            "dual_encoder",
            "fusion",
            "generation",
            "text_only",
            "image_only",
            "text_alone",
            "image_alone",
        }
    ),
    network=_network,
    objective=_objective,
    batches=_batches,
    parameters={"unimo2_base": 297.7, "unimo2_large": 964.1, "unimo2_tiny": 3.6},
    # Section 4, of the base size; what it trained on the paper does not say. The large size is ours.
    published={
        "unimo2_base": Published(
            data=_CORPORA,
        ),
        "unimo2_large": Published(
            data=_CORPORA,
        ),
    },
    pretraining=PretrainingConfig,
    pair_separators=1,
    converters={"unimo2-release": from_release},
    marks={"unimo2-release": ("text.word_embedding", "vq_emb", "grounded.pre_encoder_layer_norm_scale")},
)
