"""Small UNIMO-3 networks, inputs for them, and parameters that make every part matter."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle

import unimo
from unimo.config import merge_into
from unimo.models.batches import PretrainBatch
from unimo.models.unimo3 import SIZES
from unimo.models.unimo3.config import Config
from unimo.models.unimo3.model import Unimo3
from unimo.tasks.base import to_tensors

VOCABULARY, IMAGE, TEXT = 60, 32, 9


def small_config(name: str = "unimo3_tiny", **overrides: Any) -> Config:
    """A size with 2-head width-16 layers, patch 8, 32-pixel images and 60 tokens; 4 + 4 + 3 layers."""
    layer = {"hidden_size": 16, "num_heads": 2, "intermediate_size": 32}
    parts: dict[str, dict[str, Any]] = {
        "text": {**layer, "num_layers": 4, "vocab_size": VOCABULARY, "max_position": 24},
        "vision": {**layer, "num_layers": 4, "patch_size": 8, "image_size": IMAGE},
        "fusion": {**layer, "num_layers": 3},
    }
    if name.endswith("_d"):
        parts["fusion"]["num_internal"] = 2
    for part, values in overrides.items():
        parts[part] = {**parts.get(part, {}), **values}
    return merge_into(SIZES[name], parts)


def small_model(name: str = "unimo3_tiny", seed: int = 0, **overrides: Any) -> Unimo3:
    """The network of `small_config` with parameters from NumPy, N(0, 0.3), norm scales around 1."""
    model = unimo.registry.build_model(small_config(name, **overrides))
    set_parameters(model, seed)
    model.eval()
    return model


def set_parameters(layer: paddle.nn.Layer, seed: int = 0) -> None:
    """Values that depend on the seed and on nothing else, so that golden numbers last."""
    rng = np.random.default_rng(seed)
    for name, parameter in sorted(layer.named_parameters()):
        value = rng.normal(0.0, 0.3, parameter.shape)
        is_norm = name.endswith("weight") and len(parameter.shape) == 1
        parameter.set_value(np.asarray(value + is_norm, dtype="float32"))


def inputs(batch: int = 3, text: int = TEXT, seed: int = 1, image: int = IMAGE) -> tuple[paddle.Tensor, ...]:
    """Pixels, ids and mask; the first text is shorter than the others."""
    rng = np.random.default_rng(seed)
    pixels = rng.standard_normal((batch, 3, image, image)).astype("float32")
    mask = np.ones((batch, text), dtype="int64")
    mask[0, text - 3 :] = 0
    ids = np.where(mask == 1, rng.integers(4, VOCABULARY, (batch, text)), 1)
    return paddle.to_tensor(pixels), paddle.to_tensor(ids), paddle.to_tensor(mask)


def pretrain_batch(masked: int = 3) -> PretrainBatch:
    """A pre-training batch of three pairs of three images with `masked` targets."""
    pixels, ids, mask = inputs()
    masked_ids = ids.numpy().copy()
    positions = np.array([1, TEXT + 2, 2 * TEXT + 4], dtype="int64")[:masked]
    masked_ids.reshape(-1)[positions] = VOCABULARY - 1
    batch = PretrainBatch(
        images=pixels,
        input_ids=ids,
        attention_mask=mask,
        image_group=np.array([7, 3, 9], dtype="int64"),
        mlm_input_ids=masked_ids,
        mlm_positions=positions,
        mlm_labels=ids.numpy().reshape(-1)[positions],
        itm_image_index=np.array([0, 2, 1], dtype="int64"),
        itm_labels=np.array([1, 0, 0], dtype="int64"),
        sample_ids=["0", "1", "2"],
    )
    return to_tensors(batch)
