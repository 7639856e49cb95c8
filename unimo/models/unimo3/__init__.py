"""UNIMO-3 (Yang et al., 2023, arXiv 2305.13697): two towers, read by a fusion encoder through gates.

METER (links off) and BridgeTower (one open link a layer) are sizes of the same code. README.md beside
this file maps the paper to the code; docs/papers/unimo3.md lists what differs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from unimo.models.paper import Paper, PretrainConfig, Published
from unimo.models.unimo3.config import Config, FusionConfig, TextConfig, VisionConfig
from unimo.models.unimo3.convert import BRIDGETOWER, HF_BRIDGETOWER, METER, converter
from unimo.models.unimo3.port import to_bridgetower

_WIDE = {"hidden_size": 1024, "num_heads": 16, "intermediate_size": 4096}
_NARROW = {"hidden_size": 64, "num_heads": 4, "intermediate_size": 256}
# Scales of the start are larger than those of the published sizes: 0.02 suits a width of 768, and nothing
# here starts from pre-trained towers.
_FIRM = {"dropout": 0.0, "attention_dropout": 0.0, "init_std": 0.1}

_BASE = Config()
_LARGE = Config(
    name="unimo3_large",
    text=TextConfig(**_WIDE, num_layers=24),
    vision=VisionConfig(**_WIDE, num_layers=24, patch_size=14, image_size=294),
    fusion=FusionConfig(**_WIDE),
)
# Learns `scenes` from scratch on two CPU cores in minutes.
_TINY = Config(
    name="unimo3_tiny",
    text=TextConfig(**_NARROW, **_FIRM, num_layers=2, max_position=66, pooler=False),
    vision=VisionConfig(**_NARROW, num_layers=3, patch_size=16, image_size=64, position_init_std=0.7),
    fusion=FusionConfig(**_NARROW, **_FIRM, num_layers=2),
)


def _meter(config: Config, name: str) -> Config:
    """Fig. 2(a): no links, and CLIP without its last block."""
    return replace(
        config,
        name=name,
        vision=replace(config.vision, remove_last=1),
        fusion=replace(config.fusion, link_range="none"),
    )


def _bridgetower(config: Config, name: str) -> Config:
    """Fig. 2(b): fusion layer l reads tower layer d(l) alone, without a gate; layer 1 is LN(Z_0)."""
    fusion = replace(config.fusion, link_range="bridge", gate_dim="none", first_layer_gate=False)
    return replace(config, name=name, fusion=fusion)


def _internal(config: Config, name: str, num_internal: int) -> Config:
    """Fig. 2(d): linked layers at the bottom, plain layers above."""
    return replace(config, name=name, fusion=replace(config.fusion, num_internal=num_internal))


SIZES: dict[str, Config] = {
    config.name: config
    for config in (
        _BASE,
        _LARGE,
        _TINY,
        _internal(_BASE, "unimo3_base_d", 3),
        _internal(_BASE, "unimo3_base_d1", 1),
        _internal(_TINY, "unimo3_tiny_d", 1),
        _meter(_BASE, "meter_base"),
        _meter(_TINY, "meter_tiny"),
        _bridgetower(_BASE, "bridgetower_base"),
        _bridgetower(_LARGE, "bridgetower_large"),
        _bridgetower(_TINY, "bridgetower_tiny"),
    )
}

_CORPORA = "COCO, Visual Genome, Conceptual Captions, SBU (4 million images)"
# UNIMO-3, sections 4.1 and 4.2.4; METER and BridgeTower start from the same.
_PUBLISHED = Published(data=_CORPORA, hardware="8 A100 GPUs")
_PARAMETERS = {
    "unimo3_base": 333.3,
    "unimo3_base_d": 329.8,
    "unimo3_base_d1": 327.4,
    "bridgetower_base": 326.2,
    "meter_base": 319.1,
    "unimo3_large": 877.1,
    "bridgetower_large": 864.5,
    "unimo3_tiny": 3.8,
    "unimo3_tiny_d": 3.8,
    "bridgetower_tiny": 3.8,
    "meter_tiny": 3.8,
}


_MARKS = (
    "cross_modal_text_transform.weight",
    "text_transformer.embeddings.word_embeddings.weight",
    "vit_model.visual.class_embedding",
    "vit_model.visual.conv1.weight",
)


def _network(config: Config) -> Any:
    from unimo.models.unimo3.model import Unimo3

    return Unimo3(config)


def _objective(config: Config, options: PretrainConfig) -> Any:
    from unimo.models.unimo3.pretrain import Objective

    return Objective(config)


def _batches(run: Any, processor: Any) -> Any:
    from unimo.models.collate import pretraining_data

    return pretraining_data(run, processor)


PAPER = Paper(
    name="unimo3",
    citation="UNIMO-3 (Yang et al., 2023, arXiv 2305.13697)",
    sizes=SIZES,
    capabilities=frozenset({"pixels", "dual_encoder", "fusion", "text_alone", "image_alone"}),
    network=_network,
    objective=_objective,
    batches=_batches,
    parameters=_PARAMETERS,
    published={
        name: _PUBLISHED for name, config in SIZES.items() if config.fusion.hidden_size in (768, 1024)
    },
    converters={
        "meter": converter(METER),
        "bridgetower": converter(BRIDGETOWER),
        "hf-bridgetower": converter(HF_BRIDGETOWER),
    },
    exporters={"hf-bridgetower": to_bridgetower},
    marks={
        "meter": _MARKS,
        "bridgetower": (*_MARKS, "cross_modal_text_layernorm.weight"),
        "hf-bridgetower": (
            "cross_modal_text_layernorm.weight",
            "cross_modal_text_transform.weight",
            "text_model.embeddings.word_embeddings.weight",
            "vision_model.visual.embeddings.class_embedding",
            "vision_model.visual.ln_pre.weight",
        ),
    },
)
