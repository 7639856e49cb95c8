"""Towers of Hugging Face: name maps, and conversion to a folder that `load_tower` reads.

Each map is data, rows of unimo/weights/name_map.py. Linear weights are [out, in] there and [in, out] here.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from unimo.config import coerce
from unimo.errors import CheckpointError, ConfigError, shown
from unimo.files import filling, make_folder, read_json_object, write_text
from unimo.ranges import Depth, Words
from unimo.weights.files import open_tensors, write_safetensors
from unimo.weights.name_map import Row, Spelling, Tensors, clip_layer_rows, describe, expand, join, row
from unimo.weights.places import find_config, find_tokenizer
from unimo.weights.report import Report, is_allowed, used

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
    marks: tuple[str, ...] = ()
    """Names of tensors, with or without a prefix, by which a file is recognised."""
    model_types: tuple[str, ...] = ()
    """`model_type` of their config.json."""
    measure: Callable[[Tensors], dict[str, int]] | None = None
    """Function that reads our sizes from the shapes, for files without a config.json."""


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
    marks=("embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight"),
    model_types=("roberta", "xlm-roberta"),
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
    marks=ROBERTA.marks,
    model_types=("bert",),
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
        "position_embedding": ("num_positions", "hidden_size"),
        "layers.0.mlp.fc1.weight": ("hidden_size", "intermediate_size"),
    },
    fixed={"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    around=("text_model.", "text_projection.", "visual_projection.", "logit_scale"),
    marks=("vision_model.embeddings.class_embedding", "vision_model.pre_layrnorm.weight"),
    model_types=("clip", "clip_vision_model"),
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
    marks=("embeddings.position_embeddings", "encoder.layer.0.layernorm_before.weight"),
    model_types=("vit",),
)


def _measure_openai(tensors: Tensors) -> dict[str, int]:
    """Read the sizes of a ViT of OpenAI's CLIP, whose heads are 64 wide.

    Raises:
        CheckpointError: there is none in the file.
    """
    prefix = "visual." if "visual.conv1.weight" in tensors else ""
    axes = {"conv1.weight": 4, "positional_embedding": 2, "transformer.resblocks.0.mlp.c_fc.weight": 2}
    found = {name: tensors.get(prefix + name) for name in axes}
    if wrong := [name for name, axis in axes.items() if found[name] is None or found[name].ndim != axis]:
        raise CheckpointError(
            f"visual.{', visual.'.join(wrong)} missing or of another shape; expected a ViT of OpenAI's CLIP, "
            "such as ViT-B-16.pt (its ResNets have no tower here)"
        )
    (width, _, patch, _), (rows, _), (inner, _) = (found[name].shape for name in axes)
    block = re.compile(rf"{re.escape(prefix)}transformer\.resblocks\.(\d{{1,3}})\.")
    return {
        "image_size": round((rows - 1) ** 0.5) * patch,
        "patch_size": patch,
        "hidden_size": width,
        "num_layers": 1 + max(int(match[1]) for name in tensors if (match := block.match(name))),
        "num_heads": max(1, width // 64),
        "intermediate_size": inner,
    }


OPENAI_CLIP = replace(
    CLIP_VISION,
    prefix="visual.",
    rows=(
        row("tensor", "class_embedding", "class_embedding"),
        row("tensor", "patch_embedding.weight", "conv1.weight"),
        row("tensor", "position_embedding", "positional_embedding"),
        row("norm", "ln_pre", "ln_pre"),
        *clip_layer_rows(_OUR, "transformer.resblocks.{i}."),
        row("norm", "ln_post", "ln_post"),
    ),
    around=("visual.proj", "proj"),
    marks=("visual.class_embedding", "visual.conv1.weight", "visual.transformer.resblocks.0.ln_1.weight"),
    model_types=(),
    measure=_measure_openai,
)
SOURCES = {
    "hf-bert": BERT,
    "hf-roberta": ROBERTA,
    "structbert": replace(BERT, marks=()),
    "hf-clip": CLIP_VISION,
    "openai-clip": OPENAI_CLIP,
    "hf-vit": VIT,
}


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
    sizes = {
        ours: coerce(config[theirs], kinds[ours], f"config.json: {theirs}")
        for ours, theirs in source.sizes.items()
    }
    if sizes["hidden_size"] % sizes["num_heads"]:
        raise ConfigError(
            f"config.json has num_attention_heads = {sizes['num_heads']} at hidden_size = "
            f"{sizes['hidden_size']}, which is no multiple of it; take the config of the weights"
        )
    return sizes


def from_hf(
    source: Source, tensors: Tensors, sizes: Mapping[str, int], allow: Sequence[str] = ()
) -> dict[str, Any]:
    """Convert their tensors to ours; parts outside the tower are left out and logged.

    Args:
        source: whose names they have.
        tensors: theirs, with or without the prefix.
        sizes: our sizes, as `read_sizes` returns them.
        allow: patterns of tensors, in their names or ours, that may be missing; the result lacks them.

    Raises:
        CheckpointError: tensors are missing or unknown, or the sizes belong to another file.
    """
    tensors = {_NORM.sub(lambda found: _NEW[found[0]], name): tensor for name, tensor in tensors.items()}
    has_prefix = any(name.startswith(source.prefix) for name in tensors)
    bare = {
        name.removeprefix(source.prefix): tensor
        for name, tensor in tensors.items()
        if not has_prefix or name.startswith(source.prefix)
    }
    rows = expand(source.rows, sizes["num_layers"], source.spelling)
    present = [
        entry
        for entry in rows
        if set(entry.theirs) <= bare.keys()
        or not (entry.optional or is_allowed((entry.ours, *entry.theirs), allow))
    ]
    wanted = {name for entry in present for name in entry.theirs}
    outside = {
        name
        for name in tensors
        if name.startswith(source.around)
        or name.endswith("position_ids")
        or (has_prefix and not name.startswith(source.prefix))
    }
    known = {name for entry in rows for name in entry.theirs}
    extra = set(tensors) - outside - known - {source.prefix + name for name in known}
    problems = {"missing": sorted(wanted - bare.keys()), "unknown": sorted(extra)}
    if any(problems.values()):
        missing = "; --allow-missing PATTERN lets tensors start at random" if problems["missing"] else ""
        raise CheckpointError(
            f"the file is not a {source.tower} of {sizes['num_layers']} layers; {describe(problems)}{missing}"
        )
    if outside:
        logger.info("not part of the tower, left out: %s", ", ".join(sorted(outside)))
    ours = {entry.ours: join(entry, bare) for entry in present}
    if whole := [name for name, tensor in ours.items() if tensor.dtype.kind != "f"]:
        raise CheckpointError(
            f"the file has {ours[whole[0]].dtype} for {whole[0]}; expected weights of F32, F16, BF16 or F64"
        )
    if "image_size" in sizes:
        sizes = {**sizes, "num_positions": 1 + (sizes["image_size"] // sizes["patch_size"]) ** 2}
    for name, symbols in source.shapes.items():
        expected = [sizes[symbol] if isinstance(symbol, str) else symbol for symbol in symbols]
        if name in ours and list(ours[name].shape) != expected:
            raise CheckpointError(
                f"config.json and the file disagree: {name} should be {expected}, is "
                f"{list(ours[name].shape)}; take both from the same model"
            )
    return ours


def convert_tower(
    source: str, weights: Path, config: Path | None, folder: Path, allow: Sequence[str] = ()
) -> Report:
    """Convert a tower and write its folder, which is made only when everything fits.

    A tokenizer that lies beside the weights is copied to the folder `tokenizer` inside.

    Args:
        source: a key of `SOURCES`.
        weights: their file, or folder of Hugging Face.
        config: their config.json; None for the one beside the weights.
        folder: folder to write, as `load_tower` reads it.
        allow: patterns of tensors that may be missing, see `from_hf`.

    Raises:
        ConfigError: config.json cannot be read, or our tower does not support it.
        CheckpointError: the weights cannot be read or do not fit, or the folder cannot be written.
    """
    kind = SOURCES[source]
    if kind.measure is not None:
        theirs = open_tensors(weights)
        sizes = kind.measure(theirs)
    else:
        config = config or find_config(weights)
        if config is None:
            raise ConfigError(f"--from {source} needs --config; there is no config.json beside {weights}")
        sizes = read_sizes(kind, read_json_object(config, ConfigError))
        theirs = open_tensors(weights)
    ours = from_hf(kind, theirs, sizes, allow)
    return write_tower(kind, source, sizes, ours, folder, theirs, find_tokenizer(weights))


def write_tower(
    kind: Source,
    source: str,
    sizes: Mapping[str, int],
    ours: Tensors,
    folder: Path,
    theirs: Tensors,
    tokenizer: Sequence[Path] = (),
) -> Report:
    """Write a folder that `load_tower` reads.

    Args:
        kind: the tower, and whose names `theirs` have.
        source: where the weights came from.
        sizes, ours: sizes and tensors of the tower.
        folder: folder to write.
        theirs: tensors that ours are made of, for the report.
        tokenizer: files to copy to the folder `tokenizer` inside.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    rows = expand(kind.rows, sizes["num_layers"], kind.spelling)
    random = [entry.ours for entry in rows if entry.ours not in ours and not entry.optional]
    content = {"tower": kind.tower, "source": source, **sizes, **({"random": random} if random else {})}
    make_folder(folder, "--out")
    try:
        with filling(folder) as fresh:
            write_safetensors(fresh / "model.safetensors", ours)
            write_text(fresh / "config.yaml", yaml.safe_dump(content, sort_keys=False))
        if tokenizer:
            (folder / "tokenizer").mkdir(exist_ok=True)
        for file in tokenizer:
            shutil.copyfile(file, folder / "tokenizer" / file.name)
    except OSError as error:
        raise CheckpointError(f"cannot write into {folder}: {error.strerror}; free some space") from error
    count = sum(tensor.size for tensor in ours.values())
    return Report(folder, f"{kind.tower} tower", source, count, len(ours), *used(theirs), random)
