"""BridgeTower as transformers has it: the name map of `convert.py` read the other way, and its config."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from unimo.errors import CapabilityError
from unimo.models.unimo3.config import Config
from unimo.models.unimo3.convert import HF_BRIDGETOWER, to_release
from unimo.weights.name_map import Tensors

logger = logging.getLogger(__name__)
_HEAD = 64
"""Width of the attention heads of its vision tower, which transformers takes for granted."""
_CLASSES = {"mlm_score.": "BridgeTowerForMaskedLM", "itm_score.": "BridgeTowerForImageAndTextRetrieval"}
"""Prefix of a head -> class of transformers that has it."""
_PREFIX = "bridgetower."
"""Prefix of the network beside heads."""


def to_bridgetower(config: Config, tensors: Tensors) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Convert a BridgeTower to that of transformers; heads of MLM and ITM go with it, others stay here.

    Args:
        config: config of the model.
        tensors: tensors by the names of the task, `model.*` and heads.

    Returns:
        Its config.json, and its tensors.

    Raises:
        CapabilityError: the model is no BridgeTower, or has sizes that transformers does not know.
    """
    _check(config)
    every = to_release(HF_BRIDGETOWER, tensors)
    classes = [kind for prefix, kind in _CLASSES.items() if any(name.startswith(prefix) for name in every)]
    heads = tuple(_CLASSES)
    prefix = _PREFIX if classes else ""
    named = {name if name.startswith(heads) else prefix + name: tensor for name, tensor in every.items()}
    epsilon = HF_BRIDGETOWER.epsilon
    if config.fusion.epsilon != epsilon:
        logger.warning("norms of co-attention: %g here, %g in transformers", config.fusion.epsilon, epsilon)
    return _content(config, classes or ["BridgeTowerModel"]), named


def _check(config: Config) -> None:
    text, vision, fusion = config.text, config.vision, config.fusion
    wanted = {
        "model.fusion.link_range=bridge": fusion.link_range == "bridge",
        "no gates (model.fusion.gate_dim=none, model.fusion.first_layer_gate=false)": (
            fusion.gate_dim == "none" and not fusion.first_layer_gate
        ),
        "text and fusion of one width, number of heads and inner width": (
            (text.hidden_size, text.num_heads, text.intermediate_size)
            == (fusion.hidden_size, fusion.num_heads, fusion.intermediate_size)
        ),
        f"heads of {_HEAD} in the vision tower": vision.hidden_size == _HEAD * vision.num_heads,
        "an MLP of 4 times the width in the vision tower": (
            vision.intermediate_size == 4 * vision.hidden_size
        ),
        "all layers of the vision tower (model.vision.remove_last=0)": vision.remove_last == 0,
        "one type of images (model.vision.types=1)": vision.types == 1,
        "model.text.pooler=true": text.pooler,
        "model.text.padding_id=1": text.padding_id == 1,
    }
    if lacking := [what for what, holds in wanted.items() if not holds]:
        raise CapabilityError(
            f"{config.name} is not what transformers calls BridgeTower, which has {'; '.join(lacking)}"
        )


def _content(config: Config, classes: list[str]) -> dict[str, Any]:
    text, vision, fusion = config.text, config.vision, config.fusion
    epsilon = HF_BRIDGETOWER.epsilon
    sizes = {
        "hidden_size": fusion.hidden_size,
        "num_attention_heads": fusion.num_heads,
        "layer_norm_eps": epsilon,
        "hidden_act": "gelu",
    }
    return {
        "architectures": classes,
        "model_type": "bridgetower",
        **sizes,
        "num_hidden_layers": fusion.num_layers,
        "share_cross_modal_transformer_layers": True,
        "share_link_tower_layers": False,
        "link_tower_type": "add",
        "tie_word_embeddings": False,
        "text_config": {
            **sizes,
            "num_hidden_layers": text.num_layers,
            "intermediate_size": text.intermediate_size,
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.max_position,
            "type_vocab_size": 1,
            "pad_token_id": text.padding_id,
            "tie_word_embeddings": False,
        },
        "vision_config": {
            "hidden_size": vision.hidden_size,
            "num_hidden_layers": vision.num_layers,
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "layer_norm_eps": epsilon,
            "share_layernorm": True,
            "remove_last_layer": False,
        },
    }
