"""UNIMO (Li et al., 2021, arXiv 2012.15409): one Transformer for texts, images and pairs.

README.md beside this file maps the paper to the code; docs/papers/unimo.md says what differs from the
release.
"""

from __future__ import annotations

from typing import Any

from unimo.models.paper import Paper, PretrainConfig, Published
from unimo.models.unimo.config import Config, PretrainingConfig, RegionConfig
from unimo.models.unimo.convert import from_release
from unimo.nn.config import TextConfig

_LARGE = {"hidden_size": 1024, "num_layers": 24, "num_heads": 16, "intermediate_size": 4096}
# Learns `scenes` from scratch on two CPU cores in minutes; the scale of the start is that of unimo3_tiny.
_TINY = {"hidden_size": 64, "num_heads": 4, "intermediate_size": 256, "num_layers": 3, "max_position": 258}
_FIRM = {"dropout": 0.0, "attention_dropout": 0.0, "init_std": 0.1}

SIZES: dict[str, Config] = {
    config.name: config
    for config in (
        Config(),
        Config(name="unimo_large", text=TextConfig(**_LARGE)),
        Config(
            name="unimo_tiny",
            text=TextConfig(**_TINY, **_FIRM),
            regions=RegionConfig(feature_size=768, num_classes=0),
        ),
    )
}


def _network(config: Config) -> Any:
    from unimo.models.unimo.model import Unimo

    return Unimo(config)


def _objective(config: Config, options: PretrainConfig) -> Any:
    from unimo.models.unimo.pretrain import Objective

    return Objective(config)


def _batches(run: Any, processor: Any) -> Any:
    from unimo.models.unimo.collate import open_pretraining

    return open_pretraining(run, processor)


PAPER = Paper(
    name="unimo",
    citation="UNIMO (Li et al., 2021, arXiv 2012.15409)",
    sizes=SIZES,
    capabilities=frozenset(
        {
            "regions",
            "dual_encoder",
            "fusion",
            "generation",
            "text_generation",
            "text_only",
            "image_only",
            "text_alone",
            "image_alone",
        }
    ),
    network=_network,
    objective=_objective,
    batches=_batches,
    parameters={"unimo_base": 126.8, "unimo_large": 358.5, "unimo_tiny": 3.4},
    # Sections 3.1 and 3.2.
    published={
        "unimo_base": Published(
            data="COCO, Visual Genome, Conceptual Captions, SBU; BookWiki, OpenWebText; OpenImages, COCO",
            hardware="32 V100 GPUs, 7 days",
        ),
        "unimo_large": Published(
            data="COCO, Visual Genome, Conceptual Captions, SBU; BookWiki, OpenWebText; OpenImages, COCO",
            hardware="64 V100 GPUs, 10 days",
        ),
    },
    pretraining=PretrainingConfig,
    pair_separators=1,
    converters={"unimo-release": from_release},
    marks={"unimo-release": ("word_embedding", "encoder_layer_0_multi_head_att_query_fc.w_0")},
)
