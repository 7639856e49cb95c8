"""Convert weights of BEiT or ViT to a VLMo after its vision stage.

BEiT, in its authors' names (unilm) or Hugging Face's, is what VLMo's authors took for the vision stage
(section 3.4). A file has attention, one feed-forward network, which becomes the experts for images, what
embeds images, layer scales, and relative positions: a table for each layer, or one for all. What texts and
pairs use starts at random, and so does the final norm where a file has none, as those of classifiers.

The ablations of Table 5 start from ViT, in Hugging Face's names: it has absolute positions instead, no layer
scales, and biases of keys, which softmax does not see and which are left out. Needs no Paddle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from unimo.config import merge_into
from unimo.errors import CheckpointError, ConfigError
from unimo.models.vlmo.config import Config, TransformerConfig, VisionConfig
from unimo.models.vlmo.convert import SPELLING
from unimo.weights.name_map import Converted, Row, Tensors, expand, row
from unimo.weights.released import Folder

_BLOCK = "model.blocks.{i}."
_IMAGE = f"{_BLOCK}experts.image."
_TABLE = "model.relative_positions.position_bias"
OTHER_ROWS = 2 + 2 * 196
"""Rows of the table between images and texts and of texts, which BEiT lacks."""


def _rows(embed: tuple[str, str], block: str, names: Mapping[str, str]) -> tuple[Row, ...]:
    """Return the rows of all but queries, keys, values, the final norm and the tables.

    Args:
        embed: their [I_CLS] and projection of patches.
        block: beginning of the names of a block.
        names: our part of a block -> theirs.
    """
    token, patches = embed
    return (
        row("batch", "model.class_embedding", token, shape=(1, 1, "H")),
        row("tensor", "model.patch_embedding.weight", f"{patches}.weight", shape=("H", 3, "p", "p")),
        row("tensor", "model.patch_embedding.bias", f"{patches}.bias", shape=("H",)),
        row("norm", f"{_BLOCK}attention_norm", block + names["attention_norm"], shape=("H",)),
        row("linear", f"{_BLOCK}attention.out", block + names["out"], shape=("H", "H")),
        row("norm", f"{_IMAGE}norm", block + names["expert_norm"], shape=("H",)),
        row("linear", f"{_IMAGE}mlp.fc1", block + names["fc1"], shape=("I", "H")),
        row("linear", f"{_IMAGE}mlp.fc2", block + names["fc2"], shape=("H", "I")),
    )


def _scales(theirs: str) -> tuple[Row, Row]:
    return (
        row("tensor", f"{_BLOCK}attention_scale", f"{theirs}_1", shape=("H",)),
        row("tensor", f"{_BLOCK}expert_scale", f"{theirs}_2", shape=("H",)),
    )


_UNILM = "blocks.{i}."
UNILM = (
    *_rows(
        ("cls_token", "patch_embed.proj"),
        _UNILM,
        {
            "attention_norm": "norm1",
            "out": "attn.proj",
            "expert_norm": "norm2",
            "fc1": "mlp.fc1",
            "fc2": "mlp.fc2",
        },
    ),
    *_scales(f"{_UNILM}gamma"),
    row("turned", f"{_BLOCK}attention.qkv.weight", f"{_UNILM}attn.qkv.weight", shape=("3H", "H")),
    row("tensor", f"{_BLOCK}attention.q_bias", f"{_UNILM}attn.q_bias", shape=("H",)),
    row("tensor", f"{_BLOCK}attention.v_bias", f"{_UNILM}attn.v_bias", shape=("H",)),
)
"""Names of unilm, without a prefix."""
_HF = "encoder.layer.{i}."
_READ = f"{_HF}attention.attention."
_HF_ROWS = (
    *_rows(
        ("embeddings.cls_token", "embeddings.patch_embeddings.projection"),
        _HF,
        {
            "attention_norm": "layernorm_before",
            "out": "attention.output.dense",
            "expert_norm": "layernorm_after",
            "fc1": "intermediate.dense",
            "fc2": "output.dense",
        },
    ),
    row(
        "turned",
        f"{_BLOCK}attention.qkv.weight",
        *(f"{_READ}{part}.weight" for part in ("query", "key", "value")),
        shape=("H", "H"),
    ),
    row("tensor", f"{_BLOCK}attention.q_bias", f"{_READ}query.bias", shape=("H",)),
    row("tensor", f"{_BLOCK}attention.v_bias", f"{_READ}value.bias", shape=("H",)),
)
"""Names that Hugging Face's BEiT and ViT share, without the prefix `beit.` or `vit.`."""
_POSITIONS = "embeddings.position_embeddings"
NAMES: Mapping[str, tuple[Row, ...]] = {
    "unilm": UNILM,
    "hf": (*_HF_ROWS, *_scales(f"{_HF}lambda")),
    "vit": (*_HF_ROWS, row("batch", "model.position_embedding", _POSITIONS, shape=(1, "G", "H"))),
}
_HEADS = {
    "unilm": {
        "head.": "classifier",
        "fc_norm.": "its norm",
        "lm_head.": "head over codes",
        "mask_token": "mask",
    },
    "hf": {
        "classifier.": "classifier",
        "pooler.": "its norm",
        "lm_head.": "head over codes",
        "embeddings.mask_token": "mask",
    },
    "vit": {"classifier.": "classifier", "pooler.": "its layer"},
}
"""Beginnings of names that have no counterpart -> description."""
_TABLES = {
    "unilm": (f"{_UNILM}attn.relative_position_bias_table", "rel_pos_bias.relative_position_bias_table"),
    "hf": (
        f"{_READ}relative_position_bias.relative_position_bias_table",
        "encoder.relative_position_bias.relative_position_bias_table",
    ),
}
"""Table of each layer, and the one for all."""


def from_unilm(
    tensors: Tensors,
    where: str = "the file",
    task: str = "pretrain",
    given: Mapping[str, Any] = MappingProxyType({}),
) -> Converted:
    """Convert a BEiT in the names of unilm; arguments and errors as of `convert.from_release`."""
    return _convert(dict(tensors), "unilm", where, task, given)


def from_paddleclas(
    tensors: Tensors,
    where: str = "the file",
    task: str = "pretrain",
    given: Mapping[str, Any] = MappingProxyType({}),
) -> Converted:
    """Convert a BEiTv2 of PaddleClas; as `from_unilm`.

    Its names are those of unilm, its linear weights [in, out]. Its keys have biases, which softmax does not
    see, its patches none.
    """
    linear = re.compile(r"blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])\.weight")
    theirs = {name: tensor.T if linear.fullmatch(name) else tensor for name, tensor in tensors.items()}
    theirs.pop("proj", None)  # of CLIP, which all models of the class have
    patches = theirs.get("patch_embed.proj.weight")
    if patches is not None:
        theirs.setdefault("patch_embed.proj.bias", np.zeros(len(patches), patches.dtype))
    for name in [name for name in theirs if name.endswith("attn.qkv.bias")]:
        query, _, value = np.array_split(theirs.pop(name), 3)
        stem = name.removesuffix("qkv.bias")
        theirs |= {f"{stem}q_bias": query, f"{stem}v_bias": value}
    return _convert(theirs, "unilm", where, task, given)


def from_hf(
    tensors: Tensors,
    where: str = "the file",
    task: str = "pretrain",
    given: Mapping[str, Any] = MappingProxyType({}),
) -> Converted:
    """Convert a BEiT in the names of Hugging Face, with or without the prefix `beit.`; as `from_unilm`."""
    inner = {name.removeprefix("beit."): tensor for name, tensor in tensors.items()}
    # The norm before a head over codes is outside, and stands for one of the same name inside.
    return _convert(inner | {n: t for n, t in tensors.items() if n in inner}, "hf", where, task, given)


def from_vit(
    tensors: Tensors,
    where: str = "the file",
    task: str = "pretrain",
    given: Mapping[str, Any] = MappingProxyType({}),
) -> Converted:
    """Convert a ViT in the names of Hugging Face, with or without the prefix `vit.`; as `from_unilm`.

    `given` has `transformer.num_heads` where it is not the width / 64.
    """
    inner = {name.removeprefix("vit."): tensor for name, tensor in tensors.items()}
    inner = {name: tensor for name, tensor in inner.items() if not name.endswith("attention.key.bias")}
    return _convert(inner, "vit", where, task, given)


def _convert(
    tensors: dict[str, np.ndarray], names: str, where: str, task: str, given: Mapping[str, Any]
) -> Converted:
    model = "ViT" if names == "vit" else "BEiT"
    if task != "pretrain":
        raise ConfigError(f"{model} is the vision stage of pre-training, not of {task!r}; leave out --task")
    rows, norm = NAMES[names], "norm" if names == "unilm" else "layernorm"
    tensors = {
        name: tensor for name, tensor in tensors.items() if not name.endswith("relative_position_index")
    }
    block = "blocks" if names == "unilm" else "encoder.layer"
    found = (re.match(rf"{re.escape(block)}\.(\d+)\.", name) for name in tensors)
    depth = 1 + max((int(number[1]) for number in found if number), default=0)
    if f"{norm}.weight" in tensors:
        rows = (*rows, row("norm", "model.norm", norm, shape=("H",)))
    single, tables = expand(rows, depth, SPELLING), ()
    if names != "vit":
        each, shared = _TABLES[names]
        tables = (shared,) if shared in tensors else tuple(each.replace("{i}", str(i)) for i in range(depth))
        single.append(row("tensor", _TABLE, *tables, shape=("R", "A")))
    advice = {
        "BEiT": "the safetensors file of a BEiT with relative positions, such as beit_base_patch16_224",
        "ViT": "the model.safetensors of a ViT, such as vit-base-patch16-224",
    }
    folder = Folder(tensors, where, model, advice[model])
    patches, first = rows[1].theirs[0], rows[6].theirs[0].replace("{i}", "0")
    last = {_POSITIONS: (1, "G", "H")} if names == "vit" else {tables[0]: ("R", "A")}
    sizes = folder.sizes({patches: ("H", 3, "p", "p"), f"{first}.weight": ("I", "H"), **last})
    ours = folder.rename(single, sizes | {"3H": 3 * sizes["H"]}, _HEADS[names])
    if tables:
        window, heads = _window(sizes["R"], where), sizes["A"]
        table = np.tile(ours[_TABLE], (1, depth // len(tables)))
        ours[_TABLE] = np.concatenate([table, np.zeros((OTHER_ROWS, table.shape[1]), table.dtype)])
    else:
        window = round((sizes["G"] - 1) ** 0.5)
        heads = given.get("transformer", {}).get("num_heads", sizes["H"] // 64)
    return _after_vision(ours, _config(sizes, depth, window, heads, is_absolute=not tables), given)


def _config(sizes: Mapping[str, int], depth: int, window: int, heads: int, is_absolute: bool) -> Config:
    return Config(
        name={1024: "vlmo_large"}.get(sizes["H"], "vlmo_base"),
        vision=VisionConfig(image_size=window * sizes["p"], patch_size=sizes["p"]),
        transformer=TransformerConfig(
            hidden_size=sizes["H"],
            num_layers=depth,
            num_heads=heads,
            intermediate_size=sizes["I"],
            pair_layers=0,
            positions="absolute" if is_absolute else "relative",
            layer_scale=None if is_absolute else 0.1,
        ),
    )


def _after_vision(ours: dict[str, np.ndarray], config: Config, given: Mapping[str, Any]) -> Converted:
    """Return the model after its vision stage, in which all that is for texts starts at random."""
    config = merge_into(config, dict(given), "model")
    texts = tuple(f"model.blocks.{i}.experts.text" for i in range(config.transformer.num_layers))
    fresh = ["text_embeddings", "type_embedding", "pooler"]
    fresh += ["norm"] if "model.norm.weight" not in ours else []
    return Converted(
        config,
        ours,
        {"image_size": config.vision.image_size, "max_text_len": config.text.max_position},
        ("objective.masked_images", *(f"model.{part}" for part in fresh), *texts),
        {"name": "pretrain", "stage": "vision"},
        {"stages": ["vision"]},
        has_words=False,
    )


def _window(rows: int, where: str) -> int:
    """Return the patches along a side of the images that a table of relative positions is for.

    Raises:
        CheckpointError: there is no such size.
    """
    side = round(max(0, rows - 3) ** 0.5)
    if side**2 + 3 != rows or side % 2 == 0:
        raise CheckpointError(
            f"{where}: a table of {rows} relative positions is of no square image; expected (2 w - 1)^2 + 3, "
            "such as 732 for 14 x 14 patches"
        )
    return (side + 1) // 2
