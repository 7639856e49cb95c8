"""SemVLP (Li et al., 2021, arXiv 2103.07829): one encoder, pre-trained as a single stream and as two streams.

README.md beside this file maps the paper to the code and lists what the paper leaves open.
"""

from __future__ import annotations

from typing import Any

from unimo.models.paper import Paper, Published
from unimo.models.semvlp.config import MODES, Config, CrossConfig, PretrainingConfig, RegionConfig, TextConfig

# Learns `scenes` from scratch on two CPU cores in minutes; the scale of the start is that of unimo3_tiny.
_TINY = {"hidden_size": 64, "num_heads": 4, "intermediate_size": 256, "num_layers": 4, "max_position": 64}
_FIRM = {"dropout": 0.0, "attention_dropout": 0.0, "init_std": 0.1}

SIZES: dict[str, Config] = {
    config.name: config
    for config in (
        Config(),
        Config(
            name="semvlp_tiny",
            text=TextConfig(**_TINY, **_FIRM),
            regions=RegionConfig(feature_size=768, num_classes=0, num_attributes=0),
            cross=CrossConfig(start=2),
        ),
    )
}


def _network(config: Config) -> Any:
    from unimo.models.semvlp.model import SemVlp

    return SemVlp(config)


def _objective(config: Config, options: PretrainingConfig) -> Any:
    from unimo.models.semvlp.pretrain import Objective

    return Objective(config, options)


def _batches(run: Any, processor: Any) -> Any:
    from unimo.models.semvlp.collate import open_pretraining

    return open_pretraining(run, processor)


PAPER = Paper(
    name="semvlp",
    citation="SemVLP (Li et al., 2021, arXiv 2103.07829)",
    sizes=SIZES,
    capabilities=frozenset({"regions", "fusion"}),
    network=_network,
    objective=_objective,
    batches=_batches,
    pretraining=PretrainingConfig,
    parameters={"semvlp_base": 125.2, "semvlp_tiny": 2.2},
    # Section 4.1.
    published={
        "semvlp_base": Published(
            data=(
                "COCO, Visual Genome, VQA v2, GQA, VG-QA (9.18 million pairs on 180,000 images); "
                "Conceptual Captions, SBU"
            ),
            hardware="4 V100 GPUs",
        ),
    },
    pair_separators=1,
    modes=MODES,
)
