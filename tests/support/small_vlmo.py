"""Small VLMo networks and inputs for them, with parameters that make every part matter."""

from __future__ import annotations

from typing import Any

from small_models import IMAGE, TEXT, VOCABULARY, set_parameters

from unimo import registry
from unimo.config import merge_into
from unimo.models.vlmo.config import Config
from unimo.models.vlmo.model import Vlmo


def small_config(name: str = "vlmo_tiny", **overrides: Any) -> Config:
    """A size with 2-head width-16 layers, 4 of them, the top one for pairs; patch 8, 32-pixel images."""
    parts: dict[str, dict[str, Any]] = {
        "text": {"vocab_size": VOCABULARY, "max_position": TEXT + 5},
        "vision": {"patch_size": 8, "image_size": IMAGE},
        "transformer": {
            "hidden_size": 16,
            "num_heads": 2,
            "intermediate_size": 32,
            "num_layers": 4,
            "pair_layers": 1,
        },
    }
    for part, values in overrides.items():
        parts[part] = {**parts.get(part, {}), **values}
    return merge_into(registry.model_config(name), parts)


def small_vlmo(name: str = "vlmo_tiny", seed: int = 0, **overrides: Any) -> Vlmo:
    """The network of `small_config`, parameters N(0, 0.3)."""
    model = registry.build_model(small_config(name, **overrides))
    set_parameters(model, seed)
    model.eval()
    return model
