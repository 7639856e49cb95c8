"""VLMo (Bao et al., 2022, arXiv 2111.02358): a dual encoder and a fusion encoder in one Transformer.

README.md beside this file maps the paper to the code and lists what differs from the release.
"""

from __future__ import annotations

from typing import Any

from unimo.models.paper import Paper, Published
from unimo.models.vlmo.config import Config, PretrainingConfig, TransformerConfig, VisionConfig
from unimo.models.vlmo.convert import from_release
from unimo.models.vlmo.convert_images import from_hf, from_paddleclas, from_unilm, from_vit

_LARGE = {"hidden_size": 1024, "num_layers": 24, "num_heads": 16, "intermediate_size": 4096}
_PLUS = {"hidden_size": 544, "num_layers": 24, "num_heads": 16, "intermediate_size": 2176}
# Learns `scenes` from scratch on two CPU cores in minutes.
_TINY = {"hidden_size": 64, "num_layers": 4, "num_heads": 4, "intermediate_size": 256, "init_std": 0.1}

SIZES: dict[str, Config] = {
    config.name: config
    for config in (
        Config(),
        Config(
            name="vlmo_base_plus",
            transformer=TransformerConfig(**_PLUS, pair_layers=3, positions="absolute", layer_scale=None),
        ),
        Config(name="vlmo_large", transformer=TransformerConfig(**_LARGE, pair_layers=3)),
        Config(
            name="vlmo_tiny",
            vision=VisionConfig(image_size=64),
            transformer=TransformerConfig(**_TINY, pair_layers=1),
        ),
    )
}


def _network(config: Config) -> Any:
    from unimo.models.vlmo.model import Vlmo

    return Vlmo(config)


def _objective(config: Config, options: PretrainingConfig) -> Any:
    from unimo.models.vlmo.pretrain import Objective
    from unimo.models.vlmo.stages import LanguageStage
    from unimo.models.vlmo.vision_stage import VisionStage

    stages = {"vision": VisionStage, "language": LanguageStage, "vision_language": Objective}
    return stages[options.stage](config)


def _fit_start(model: Any, options: PretrainingConfig, tensors: Any) -> Any:
    from unimo.models.vlmo.stages import fit_start

    return fit_start(model, options, tensors)


def _batches(run: Any, processor: Any) -> Any:
    from unimo.models.vlmo.collate import open_pretraining

    return open_pretraining(run, processor)


PAPER = Paper(
    name="vlmo",
    citation="VLMo (Bao et al., 2022, arXiv 2111.02358)",
    sizes=SIZES,
    capabilities=frozenset(
        {
            "pixels",
            "dual_encoder",
            "fusion",
            "text_only",
            "image_only",
            "text_alone",
            "image_alone",
            "vector_retrieval",
        }
    ),
    network=_network,
    objective=_objective,
    batches=_batches,
    pretraining=PretrainingConfig,
    parameters={"vlmo_base": 176.0, "vlmo_base_plus": 166.9, "vlmo_large": 562.6, "vlmo_tiny": 2.4},
    published=dict.fromkeys(
        ("vlmo_base", "vlmo_base_plus", "vlmo_large"),
        Published(data="COCO, Visual Genome, Conceptual Captions, SBU (4 million images)"),
    ),
    pair_separators=1,
    stages={"vision": (), "language": ("vision",), "vision_language": ()},
    fit_start=_fit_start,
    converters={
        "vlmo": from_release,
        "unilm-beit": from_unilm,
        "hf-beit": from_hf,
        "hf-vit-vlmo": from_vit,
        "paddleclas-beit": from_paddleclas,
    },
    marks={
        "vlmo": (
            "transformer.cls_token",
            "transformer.blocks.0.mlp_imag.fc1.weight",
            "transformer.blocks.0.mlp_text.fc1.weight",
            "text_embeddings.word_embeddings.weight",
        ),
        "unilm-beit": ("blocks.0.gamma_1", "blocks.0.attn.q_bias", "patch_embed.proj.weight"),
        "hf-beit": ("encoder.layer.0.lambda_1", "encoder.layer.0.layernorm_before.weight"),
        "paddleclas-beit": (
            "blocks.0.gamma_1",
            "blocks.0.attn.qkv.bias",
            "patch_embed.proj.weight",
            "cls_token",
        ),
    },
)
