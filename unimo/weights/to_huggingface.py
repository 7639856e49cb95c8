"""Towers in the names and sizes of Hugging Face: the name maps of `huggingface.py` read the other way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from unimo.errors import CheckpointError
from unimo.weights.huggingface import CLIP_VISION, ROBERTA, VIT, Source
from unimo.weights.name_map import Tensors, describe, expand, split

TOKEN_TYPE = "embeddings.token_type.weight"


@dataclass(frozen=True)
class Port:
    """A class of transformers that computes what one of our towers does."""

    source: Source
    """Name map and sizes."""
    content: Mapping[str, Any]
    """Entries of its config.json besides sizes."""
    prefix: str = ""
    """Prefix of all names."""


PORTS: Mapping[str, Port] = {
    "hf-roberta": Port(
        ROBERTA,
        {
            "architectures": ["RobertaModel"],
            "model_type": "roberta",
            "type_vocab_size": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
        },
    ),
    "hf-clip": Port(
        CLIP_VISION,
        {"architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model"},
        CLIP_VISION.prefix,
    ),
    "hf-vit": Port(VIT, {"architectures": ["ViTModel"], "model_type": "vit"}),
}
"""Value of `tools/convert_checkpoint.py --to` -> what is written. transformers opens towers without a pooler
with `add_pooling_layer=False`."""


def read_tower_sizes(port: Port, tensors: Tensors, num_heads: int) -> dict[str, int]:
    """Read the sizes of a tower from its tensors, all but the number of heads.

    Raises:
        CheckpointError: the tensors are those of another tower.
    """
    sizes = {"num_heads": num_heads, "num_layers": 0}
    for name, symbols in port.source.shapes.items():
        if name == TOKEN_TYPE:  # may be part of the positions
            continue
        shape = tensors[name].shape if name in tensors else ()
        if len(shape) != len(symbols):
            raise CheckpointError(f"no {port.source.tower} tower: {name} is {list(shape) or 'missing'}")
        sizes |= {each: size for each, size in zip(symbols, shape, strict=True) if isinstance(each, str)}
    if "patch_size" in sizes:
        sizes["image_size"] = sizes["patch_size"] * round((sizes.pop("num_positions") - 1) ** 0.5)
    sizes["num_layers"] = len({name.split(".")[1] for name in tensors if name.startswith("layers.")})
    return sizes


def to_hf(port: Port, tensors: Tensors, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Return the tensors of a tower by their names and in their shapes; the inverse of `from_hf`.

    A RoBERTa whose one token type is part of its positions gets one of zeros.

    Raises:
        CheckpointError: tensors are missing, or have no counterpart there.
    """
    source = port.source
    if source is ROBERTA and TOKEN_TYPE not in tensors:
        tensors = {**tensors, TOKEN_TYPE: np.zeros((1, sizes["hidden_size"]), np.float32)}
    rows = expand(source.rows, sizes["num_layers"], source.spelling)
    known = {entry.ours for entry in rows}
    problems = {
        "missing": [entry.ours for entry in rows if not entry.optional and entry.ours not in tensors],
        "without a counterpart there": [name for name in tensors if name not in known],
    }
    if any(problems.values()):
        raise CheckpointError(f"no {source.tower} tower of transformers; {describe(problems)}")
    present = (entry for entry in rows if entry.ours in tensors)
    theirs = (split(entry, tensors[entry.ours]) for entry in present)
    return {port.prefix + name: tensor for each in theirs for name, tensor in each.items()}


def hf_config(port: Port, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Return the config.json of a tower; the inverse of `read_sizes`."""
    named = {theirs: sizes[ours] for ours, theirs in port.source.sizes.items()}
    return {**port.content, **named, **port.source.fixed}
