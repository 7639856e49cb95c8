"""A small UNIMO, and batches for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
from small_models import set_parameters

from unimo.config import merge_into
from unimo.models.unimo import SIZES
from unimo.models.unimo.config import Config
from unimo.models.unimo.model import Unimo
from unimo.registry import build_model

VOCABULARY, FEATURE, CLASSES, REGIONS, TEXT = 60, 12, 5, 6, 9


def small_config(**overrides: Any) -> Config:
    """2 layers of width 16 with 2 heads, 60 tokens, features of 12 numbers, 5 classes."""
    parts: dict[str, Any] = {
        "text": {
            "hidden_size": 16,
            "num_layers": 2,
            "num_heads": 2,
            "intermediate_size": 32,
            "vocab_size": VOCABULARY,
            "max_position": 40,
        },
        "regions": {"feature_size": FEATURE, "num_classes": CLASSES},
    }
    for name, value in overrides.items():
        parts[name] = {**parts.get(name, {}), **value} if isinstance(value, dict) else value
    return merge_into(SIZES["unimo_tiny"], parts)


def small_model(seed: int = 0, **overrides: Any) -> Unimo:
    """The network of `small_config` with parameters from NumPy, N(0, 0.3), norm scales around 1."""
    model = build_model(small_config(**overrides))
    set_parameters(model, seed)
    model.eval()
    return model


def regions(batch: int = 3, seed: int = 1, count: int = REGIONS) -> dict[str, paddle.Tensor]:
    """Regions of which the first picture has two fewer than the others."""
    rng = np.random.default_rng(seed)
    mask = np.ones((batch, count), np.int64)
    mask[0, count - 2 :] = 0
    arrays = {
        "features": rng.standard_normal((batch, count, FEATURE)).astype("float32"),
        "locations": rng.random((batch, count, 5)).astype("float32"),
        "mask": mask,
    }
    arrays["features"] *= mask[:, :, None]
    arrays["locations"] *= mask[:, :, None]
    return {name: paddle.to_tensor(array) for name, array in arrays.items()}


def texts(batch: int = 3, seed: int = 2, length: int = TEXT) -> dict[str, paddle.Tensor]:
    """Token ids and mask; the first text is shorter than the others."""
    rng = np.random.default_rng(seed)
    mask = np.ones((batch, length), np.int64)
    mask[0, length - 3 :] = 0
    ids = np.where(mask == 1, rng.integers(4, VOCABULARY, (batch, length)), 1)
    return {"input_ids": paddle.to_tensor(ids), "attention_mask": paddle.to_tensor(mask)}
