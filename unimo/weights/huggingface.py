"""Towers of Hugging Face: name maps in both directions, and conversion to a folder that `load_tower` reads.

Each map is data, rows of unimo/weights/name_map.py. Linear weights are [out, in] there and [in, out] here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from unimo.errors import CheckpointError, ConfigError
from unimo.files import read_json_object, write_text
from unimo.weights.files import read_safetensors, write_safetensors
from unimo.weights.name_map import Row, Spelling, Tensors, expand, join

logger = logging.getLogger(__name__)
SPELLING = Spelling(linear=(".weight", ".bias"), norm=(".weight", ".bias"), is_turned=True)


@dataclass(frozen=True)
class Source:
    """Names and sizes in a family of files, and the parts outside the tower that are left out."""

    tower: str
    """Kind of tower, the `tower_kind` of the layers that may start from it."""
    prefix: str
    """Prefix of all names of the tower in files that hold more than that."""
    rows: tuple[Row, ...]
    """Name map."""
    sizes: Mapping[str, str]
    """Our size -> key of their config.json."""
    shapes: Mapping[str, tuple[str | int, ...]]
    """Our tensor -> shape in terms of sizes, to catch a config that belongs to another file."""
    fixed: Mapping[str, Any]
    """Keys of their config.json for which our tower supports a single value."""
    around: tuple[str, ...]
    """Prefixes of heads and other towers in the same file."""


def _block(kind: Literal["linear", "norm"], ours: str, *theirs: str) -> Row:
    return Row(ours, theirs, kind)


_BERT = "encoder.layer.{i}."
_CLIP = "encoder.layers.{i}."

ROBERTA = Source(
    tower="roberta",
    prefix="roberta.",
    rows=(
        Row("embeddings.word.weight", ("embeddings.word_embeddings.weight",), "tensor"),
        Row("embeddings.position.weight", ("embeddings.position_embeddings.weight",), "tensor"),
        Row("embeddings.token_type.weight", ("embeddings.token_type_embeddings.weight",), "tensor"),
        Row("embeddings.norm", ("embeddings.LayerNorm",), "norm"),
        _block(
            "linear",
            "layers.{i}.attention.qkv",
            *(f"{_BERT}attention.self.{part}" for part in ("query", "key", "value")),
        ),
        _block("linear", "layers.{i}.attention.out", f"{_BERT}attention.output.dense"),
        _block("norm", "layers.{i}.attention_norm", f"{_BERT}attention.output.LayerNorm"),
        _block("linear", "layers.{i}.mlp.fc1", f"{_BERT}intermediate.dense"),
        _block("linear", "layers.{i}.mlp.fc2", f"{_BERT}output.dense"),
        _block("norm", "layers.{i}.mlp_norm", f"{_BERT}output.LayerNorm"),
        Row("pooler", ("pooler.dense",), "linear", optional=True),
    ),
    sizes={
        "vocab_size": "vocab_size",
        "max_position": "max_position_embeddings",
        "hidden_size": "hidden_size",
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "intermediate_size": "intermediate_size",
    },
    shapes={
        "embeddings.word.weight": ("vocab_size", "hidden_size"),
        "embeddings.position.weight": ("max_position", "hidden_size"),
        "embeddings.token_type.weight": (1, "hidden_size"),
        "layers.0.mlp.fc1.weight": ("hidden_size", "intermediate_size"),
    },
    fixed={
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "position_embedding_type": "absolute",
        "pad_token_id": 1,
    },
    around=("lm_head.", "classifier.", "qa_outputs."),
)

CLIP_VISION = Source(
    tower="clip_vit",
    prefix="vision_model.",
    rows=(
        Row("class_embedding", ("embeddings.class_embedding",), "tensor"),
        Row("patch_embedding.weight", ("embeddings.patch_embedding.weight",), "tensor"),
        Row("position_embedding", ("embeddings.position_embedding.weight",), "tensor"),
        Row("ln_pre", ("pre_layrnorm",), "norm"),  # their spelling
        _block(
            "linear",
            "layers.{i}.attention.qkv",
            *(f"{_CLIP}self_attn.{part}_proj" for part in ("q", "k", "v")),
        ),
        _block("linear", "layers.{i}.attention.out", f"{_CLIP}self_attn.out_proj"),
        _block("norm", "layers.{i}.attention_norm", f"{_CLIP}layer_norm1"),
        _block("linear", "layers.{i}.mlp.fc1", f"{_CLIP}mlp.fc1"),
        _block("linear", "layers.{i}.mlp.fc2", f"{_CLIP}mlp.fc2"),
        _block("norm", "layers.{i}.mlp_norm", f"{_CLIP}layer_norm2"),
        Row("ln_post", ("post_layernorm",), "norm"),
    ),
    sizes={
        "image_size": "image_size",
        "patch_size": "patch_size",
        "hidden_size": "hidden_size",
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "intermediate_size": "intermediate_size",
    },
    shapes={
        "class_embedding": ("hidden_size",),
        "patch_embedding.weight": ("hidden_size", 3, "patch_size", "patch_size"),
        "layers.0.mlp.fc1.weight": ("hidden_size", "intermediate_size"),
    },
    fixed={"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    around=("text_model.", "text_projection.", "visual_projection.", "logit_scale"),
)

_VIT = "encoder.layer.{i}."

VIT = Source(
    tower="vit",
    prefix="vit.",
    rows=(
        Row("class_embedding", ("embeddings.cls_token",), "batch"),
        Row("position_embedding", ("embeddings.position_embeddings",), "batch"),
        Row("patch_embedding", ("embeddings.patch_embeddings.projection",), "norm"),  # nothing is transposed
        _block(
            "linear",
            "layers.{i}.attention.qkv",
            *(f"{_VIT}attention.attention.{part}" for part in ("query", "key", "value")),
        ),
        _block("linear", "layers.{i}.attention.out", f"{_VIT}attention.output.dense"),
        _block("norm", "layers.{i}.attention_norm", f"{_VIT}layernorm_before"),
        _block("linear", "layers.{i}.mlp.fc1", f"{_VIT}intermediate.dense"),
        _block("linear", "layers.{i}.mlp.fc2", f"{_VIT}output.dense"),
        _block("norm", "layers.{i}.mlp_norm", f"{_VIT}layernorm_after"),
        Row("ln_post", ("layernorm",), "norm"),
    ),
    sizes=CLIP_VISION.sizes,
    shapes=CLIP_VISION.shapes,
    fixed={"hidden_act": "gelu", "layer_norm_eps": 1e-12, "qkv_bias": True},
    around=("pooler.", "vit.pooler.", "classifier."),
)

SOURCES = {"hf-roberta": ROBERTA, "hf-clip-vit": CLIP_VISION, "hf-vit": VIT}


def read_sizes(source: Source, config: Mapping[str, Any]) -> dict[str, int]:
    """Read our sizes from their config.json; for CLIP also from that of both towers.

    Raises:
        ConfigError: a key is missing, or has a value that our tower does not support.
    """
    config = config.get("vision_config", config) if source is CLIP_VISION else config
    missing = [key for key in source.sizes.values() if key not in config]
    if missing:
        raise ConfigError(
            f"config.json lacks {', '.join(missing)}; is it the config of a {source.tower} model?"
        )
    for key, value in source.fixed.items():
        if config.get(key, value) != value:
            raise ConfigError(
                f"config.json has {key} = {config[key]!r}; the {source.tower} tower knows only {value!r}"
            )
    return {ours: int(config[theirs]) for ours, theirs in source.sizes.items()}


def from_hf(source: Source, tensors: Tensors, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Convert their tensors to ours; parts outside the tower are left out and logged.

    Raises:
        CheckpointError: tensors are missing or unknown, or the sizes belong to another file.
    """
    bare = {name.removeprefix(source.prefix): tensor for name, tensor in tensors.items()}
    has_prefix = any(name.startswith(source.prefix) for name in tensors)
    rows = expand(source.rows, sizes["num_layers"], SPELLING)
    present = [row for row in rows if not row.optional or set(row.theirs) <= bare.keys()]
    wanted = {name for row in present for name in row.theirs}
    missing = sorted(wanted - bare.keys())
    outside = {
        name
        for name in tensors
        if name.startswith(source.around)
        or name.endswith("position_ids")
        or (has_prefix and not name.startswith(source.prefix))
    }
    extra = sorted(set(tensors) - outside - wanted - {source.prefix + name for name in wanted})
    if missing or extra:
        parts = [
            f"{len(n)} {k}: {', '.join(n[:20])}" for k, n in (("missing", missing), ("unknown", extra)) if n
        ]
        raise CheckpointError(
            f"the file is not a {source.tower} of {sizes['num_layers']} layers; {'; '.join(parts)}"
        )
    if outside:
        logger.info("not part of the tower, left out: %s", ", ".join(sorted(outside)))
    ours = {row.ours: join([bare[name] for name in row.theirs], row.kind) for row in present}
    _check_shapes(source, ours, sizes)
    return ours


def to_hf(source: Source, tensors: Tensors, num_layers: int) -> dict[str, np.ndarray]:
    """Convert our tensors to theirs, with their prefix; the inverse of `from_hf`."""
    theirs = {}
    for row in expand(source.rows, num_layers, SPELLING):
        if row.ours not in tensors:
            continue
        parts = np.split(tensors[row.ours], len(row.theirs), axis=-1)
        for name, part in zip(row.theirs, parts, strict=True):
            if row.kind == "batch":
                part = part.reshape((1,) * (3 - part.ndim) + part.shape)
            theirs[source.prefix + name] = np.ascontiguousarray(part.T if row.kind == "turned" else part)
    return theirs


def convert_tower(source: str, weights: Path, config: Path, folder: Path) -> dict[str, np.ndarray]:
    """Convert a tower and write it to a folder, which is made only when everything fits.

    Args:
        source: a key of `SOURCES`.
        weights: their weights, a safetensors file.
        config: their config.json.
        folder: folder to write, with `config.yaml` and `model.safetensors`.

    Returns:
        The tensors that were written.

    Raises:
        ConfigError: config.json cannot be read, or our tower does not support it.
        CheckpointError: the weights cannot be read or do not fit, or the folder cannot be written.
    """
    kind = SOURCES[source]
    sizes = read_sizes(kind, read_json_object(config, ConfigError))
    tensors = from_hf(kind, read_safetensors(weights), sizes)
    content = {"tower": kind.tower, "source": source, **sizes}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "config.yaml", yaml.safe_dump(content, sort_keys=False))
    except OSError as error:
        raise CheckpointError(f"cannot write into {folder}: {error.strerror}") from error
    write_safetensors(folder / "model.safetensors", tensors)
    return tensors


def _check_shapes(source: Source, ours: Tensors, sizes: Mapping[str, int]) -> None:
    for name, symbols in source.shapes.items():
        expected = tuple(sizes[s] if isinstance(s, str) else s for s in symbols)
        if ours[name].shape != expected:
            raise CheckpointError(
                f"config.json and the file disagree: {name} should be {list(expected)}, "
                f"is {list(ours[name].shape)}; take both from the same model"
            )
