"""Towers of Hugging Face: name maps, and conversion to a folder that `load_tower` reads.

Each map is data, rows of unimo/weights/name_map.py. Linear weights are [out, in] there and [in, out] here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from unimo.config import coerce
from unimo.errors import CheckpointError, ConfigError, shown
from unimo.files import filling, make_folder, read_json_object, write_text
from unimo.ranges import Depth, Words
from unimo.weights.files import read_safetensors, write_safetensors
from unimo.weights.name_map import Row, Spelling, Tensors, describe, expand, join, row

logger = logging.getLogger(__name__)
_NEW = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""Names of BERT's first files -> those of today."""
_NORM = re.compile(r"LayerNorm\.(gamma|beta)$")
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
    spelling: Spelling = SPELLING
    """Endings of names, and whether weights of linear layers are turned."""


# Names that all three share.
_LAYERS = {
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
}
_OUR = "layers.{i}."
_CLIP = "encoder.layers.{i}."


def _bert_layers(attention: str, norms: tuple[str, str]) -> tuple[Row, ...]:
    """Return the rows of layers that are called as in BERT, but for attention and the two norms."""
    layer = "encoder.layer.{i}."
    fused = (f"{layer}attention.{attention}.{part}" for part in ("query", "key", "value"))
    return (
        row("linear", f"{_OUR}attention.qkv", *fused),
        row("linear", f"{_OUR}attention.out", f"{layer}attention.output.dense"),
        row("norm", f"{_OUR}attention_norm", f"{layer}{norms[0]}"),
        row("linear", f"{_OUR}mlp.fc1", f"{layer}intermediate.dense"),
        row("linear", f"{_OUR}mlp.fc2", f"{layer}output.dense"),
        row("norm", f"{_OUR}mlp_norm", f"{layer}{norms[1]}"),
    )


ROBERTA = Source(
    tower="roberta",
    prefix="roberta.",
    rows=(
        row("tensor", "embeddings.word.weight", "embeddings.word_embeddings.weight"),
        row("tensor", "embeddings.position.weight", "embeddings.position_embeddings.weight"),
        row("tensor", "embeddings.token_type.weight", "embeddings.token_type_embeddings.weight"),
        row("norm", "embeddings.norm", "embeddings.LayerNorm"),
        *_bert_layers("self", ("attention.output.LayerNorm", "output.LayerNorm")),
        row("linear", "pooler", "pooler.dense", optional=True),
    ),
    sizes={"vocab_size": "vocab_size", "max_position": "max_position_embeddings", **_LAYERS},
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

BERT = Source(
    tower="bert",
    prefix="bert.",
    rows=(*ROBERTA.rows[:-1], row("linear", "pooler.dense", "pooler.dense", optional=True)),
    sizes=ROBERTA.sizes,
    shapes={**ROBERTA.shapes, "embeddings.token_type.weight": (2, "hidden_size")},
    fixed={
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "position_embedding_type": "absolute",
        "type_vocab_size": 2,
    },
    around=("cls.", "classifier.", "qa_outputs."),
)

CLIP_VISION = Source(
    tower="clip_vit",
    prefix="vision_model.",
    rows=(
        row("tensor", "class_embedding", "embeddings.class_embedding"),
        row("tensor", "patch_embedding.weight", "embeddings.patch_embedding.weight"),
        row("tensor", "position_embedding", "embeddings.position_embedding.weight"),
        row("norm", "ln_pre", "pre_layrnorm"),  # their spelling
        row("linear", f"{_OUR}attention.qkv", *(f"{_CLIP}self_attn.{part}_proj" for part in "qkv")),
        row("linear", f"{_OUR}attention.out", f"{_CLIP}self_attn.out_proj"),
        row("norm", f"{_OUR}attention_norm", f"{_CLIP}layer_norm1"),
        row("linear", f"{_OUR}mlp.fc1", f"{_CLIP}mlp.fc1"),
        row("linear", f"{_OUR}mlp.fc2", f"{_CLIP}mlp.fc2"),
        row("norm", f"{_OUR}mlp_norm", f"{_CLIP}layer_norm2"),
        row("norm", "ln_post", "post_layernorm"),
    ),
    sizes={"image_size": "image_size", "patch_size": "patch_size", **_LAYERS},
    shapes={
        "class_embedding": ("hidden_size",),
        "patch_embedding.weight": ("hidden_size", 3, "patch_size", "patch_size"),
        "layers.0.mlp.fc1.weight": ("hidden_size", "intermediate_size"),
    },
    fixed={"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    around=("text_model.", "text_projection.", "visual_projection.", "logit_scale"),
)

VIT = Source(
    tower="vit",
    prefix="vit.",
    rows=(
        row("batch", "class_embedding", "embeddings.cls_token"),
        row("batch", "position_embedding", "embeddings.position_embeddings"),
        row("norm", "patch_embedding", "embeddings.patch_embeddings.projection"),  # nothing is transposed
        *_bert_layers("attention", ("layernorm_before", "layernorm_after")),
        row("norm", "ln_post", "layernorm"),
    ),
    sizes=CLIP_VISION.sizes,
    shapes=CLIP_VISION.shapes,
    fixed={"hidden_act": "gelu", "layer_norm_eps": 1e-12, "qkv_bias": True},
    around=("pooler.", "vit.pooler.", "classifier."),
)

SOURCES = {"hf-bert": BERT, "hf-roberta": ROBERTA, "hf-clip-vit": CLIP_VISION, "hf-vit": VIT}


def read_sizes(source: Source, config: Mapping[str, Any]) -> dict[str, int]:
    """Read our sizes from their config.json; for CLIP also from that of both towers.

    Raises:
        ConfigError: a key is missing, or has a value that our tower does not support.
    """
    config = config.get("vision_config", config) if source is CLIP_VISION else config
    if not isinstance(config, Mapping):
        raise ConfigError(f"config.json: expected an object vision_config, found {shown(config)}")
    missing = [key for key in source.sizes.values() if key not in config]
    if missing:
        raise ConfigError(
            f"config.json lacks {', '.join(missing)}; is it the config of a {source.tower} model?"
        )
    for key, value in source.fixed.items():
        if config.get(key, value) != value:
            raise ConfigError(
                f"config.json has {key} = {shown(config[key])}; the {source.tower} tower knows only {value!r}"
            )
    kinds = {name: Depth if name == "num_layers" else Words for name in source.sizes}
    return {
        ours: coerce(config[theirs], kinds[ours], f"config.json: {theirs}")
        for ours, theirs in source.sizes.items()
    }


def from_hf(source: Source, tensors: Tensors, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Convert their tensors to ours; parts outside the tower are left out and logged.

    Raises:
        CheckpointError: tensors are missing or unknown, or the sizes belong to another file.
    """
    tensors = {_NORM.sub(lambda found: _NEW[found[0]], name): tensor for name, tensor in tensors.items()}
    bare = {name.removeprefix(source.prefix): tensor for name, tensor in tensors.items()}
    has_prefix = any(name.startswith(source.prefix) for name in tensors)
    rows = expand(source.rows, sizes["num_layers"], source.spelling)
    present = [entry for entry in rows if not entry.optional or set(entry.theirs) <= bare.keys()]
    wanted = {name for entry in present for name in entry.theirs}
    outside = {
        name
        for name in tensors
        if name.startswith(source.around)
        or name.endswith("position_ids")
        or (has_prefix and not name.startswith(source.prefix))
    }
    extra = set(tensors) - outside - wanted - {source.prefix + name for name in wanted}
    problems = {"missing": sorted(wanted - bare.keys()), "unknown": sorted(extra)}
    if any(problems.values()):
        raise CheckpointError(
            f"the file is not a {source.tower} of {sizes['num_layers']} layers; {describe(problems)}"
        )
    if outside:
        logger.info("not part of the tower, left out: %s", ", ".join(sorted(outside)))
    ours = {entry.ours: join(entry, bare) for entry in present}
    if whole := [name for name, tensor in ours.items() if tensor.dtype.kind != "f"]:
        raise CheckpointError(
            f"the file has {ours[whole[0]].dtype} for {whole[0]}; expected weights of F32, F16, BF16 or F64"
        )
    for name, symbols in source.shapes.items():
        expected = [sizes[symbol] if isinstance(symbol, str) else symbol for symbol in symbols]
        if list(ours[name].shape) != expected:
            raise CheckpointError(
                f"config.json and the file disagree: {name} should be {expected}, is "
                f"{list(ours[name].shape)}; take both from the same model"
            )
    return ours


def convert_tower(source: str, weights: Path, config: Path, folder: Path) -> dict[str, np.ndarray]:
    """Convert a tower, and write and return its tensors; the folder is made only when everything fits.

    `source` is a key of `SOURCES`, `weights` and `config` are their safetensors file and config.json.

    Raises:
        ConfigError: config.json cannot be read, or our tower does not support it.
        CheckpointError: the weights cannot be read or do not fit, or the folder cannot be written.
    """
    kind = SOURCES[source]
    sizes = read_sizes(kind, read_json_object(config, ConfigError))
    tensors = from_hf(kind, read_safetensors(weights), sizes)
    write_tower(kind, source, sizes, tensors, folder)
    return tensors


def write_tower(kind: Source, source: str, sizes: Mapping[str, int], tensors: Tensors, folder: Path) -> None:
    """Write a folder that `load_tower` reads; `source` is where the weights came from.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    content = {"tower": kind.tower, "source": source, **sizes}
    make_folder(folder, "--out")
    try:
        with filling(folder) as fresh:
            write_safetensors(fresh / "model.safetensors", tensors)
            write_text(fresh / "config.yaml", yaml.safe_dump(content, sort_keys=False))
    except OSError as error:
        raise CheckpointError(f"cannot write into {folder}: {error.strerror}; free some space") from error
