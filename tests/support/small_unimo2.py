"""Small UNIMO-2 networks with parameters that make every part matter."""

from __future__ import annotations

from typing import Any

import numpy as np
from small_models import IMAGE, VOCABULARY, set_parameters

import unimo
from unimo.config import merge_into
from unimo.models.unimo2 import SIZES
from unimo.models.unimo2.config import Config
from unimo.models.unimo2.model import Unimo2


def unimo2_config(**overrides: Any) -> Config:
    """Width 16, 2 heads, 2 + 2 + 3 layers, 16 patches and a class token, 4 of 20 dictionary rows."""
    layer = {"hidden_size": 16, "num_heads": 2, "intermediate_size": 32}
    parts: dict[str, dict[str, Any]] = {
        "text": {**layer, "num_layers": 2, "vocab_size": VOCABULARY, "max_position": 24},
        "vision": {**layer, "num_layers": 2, "patch_size": 8, "image_size": IMAGE},
        "grounding": {"dictionary_size": 20, "num_tokens": 4},
        "fusion": {**layer, "num_layers": 3},
    }
    for part, values in overrides.items():
        parts[part] = {**parts.get(part, {}), **values}
    return merge_into(SIZES["unimo2_tiny"], parts)


def small_unimo2(seed: int = 0, temperature: float = 1.5, **overrides: Any) -> Unimo2:
    """The network of `unimo2_config`, in evaluation mode, with parameters from NumPy."""
    model = unimo.registry.build_model(unimo2_config(**overrides))
    set_parameters(model, seed)
    if model.grounding is not None and model.grounding.temperature is not None:
        model.grounding.temperature.set_value(np.array([temperature], "float32"))
    model.eval()
    return model
