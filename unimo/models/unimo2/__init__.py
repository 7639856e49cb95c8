"""UNIMO-2 (Li et al., 2022, arXiv 2203.09067): images and texts that meet in grounded tokens.

README.md beside this file maps the paper to the code and lists what differs from the release.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unimo.models.unimo2.config import Config, FusionConfig, GroundingConfig, TextConfig, VisionConfig

if TYPE_CHECKING:
    from unimo.models.unimo2.model import Unimo2

CAPABILITIES = frozenset({"pixels", "dual_encoder", "fusion", "generation", "text_only", "image_only"})

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
            vision=VisionConfig(**_LARGE),
            fusion=FusionConfig(**_LARGE),
        ),
        Config(
            name="unimo2_tiny",
            text=TextConfig(**_TINY, **_FIRM, num_layers=2, max_position=66),
            vision=VisionConfig(
                **_TINY, num_layers=3, patch_size=16, image_size=64, init_std=0.1, position_init_std=0.7
            ),
            grounding=GroundingConfig(dictionary_size=128, num_tokens=8, temperature_init=20.0),
            fusion=FusionConfig(**_TINY, **_FIRM, num_layers=2),
        ),
    )
}


def build(config: Config) -> Unimo2:
    """A model with random weights; its parts from `text.init`, `vision.init`, `fusion.init` where set.

    Raises:
        CheckpointError: the files there do not fit.
    """
    from unimo.models.unimo2.model import Unimo2

    model = Unimo2(config)
    parts = (
        (model.text, config.text.init, ()),
        (model.vision, config.vision.init, ()),
        (model.fusion, config.fusion.init, ("embeddings.", "grounded_norm.")),
    )
    for part, directory, ignore in parts:
        if directory:
            from unimo.weights.files import load_tower

            load_tower(part, directory, ignore=ignore)
    return model
