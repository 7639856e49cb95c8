"""Convert the weights that VLMo's authors released, or that their fine-tuning saved; and back.

The name map is data, sizes are read from the shapes. What shapes do not show, the number of heads, is that of
the release unless it is given. The task of the model directory decides which heads are taken. Needs no
Paddle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from unimo.config import merge_into
from unimo.errors import CheckpointError, ConfigError
from unimo.models.vlmo.config import Config, TextConfig, TransformerConfig, VisionConfig
from unimo.weights.name_map import (
    Converted,
    Row,
    Spelling,
    Tensors,
    classifier_rows,
    expand,
    mlm_rows,
    row,
    split,
)
from unimo.weights.released import Folder

SPELLING = Spelling(linear=(".weight", ".bias"), norm=(".weight", ".bias"), is_turned=True)
ADVICE = "one of the files vlmo_{base,base_plus,large}_patch16_*.pt of the release, saved as safetensors"
HEADS: Mapping[int, int] = {768: 12, 544: 16, 1024: 16}
"""Width -> attention heads of the released sizes."""
BUFFERS = (
    "text_embeddings.position_ids",
    "relative_position_index",
    "text_relative_position_index",
    "text_imag_relative_position_index",
)
"""Index tables, which follow from the sizes."""

_THEIRS, _OURS = "transformer.blocks.{i}.", "model.blocks.{i}."
_WORDS, _THEIR_WORDS = "model.text_embeddings.", "text_embeddings."
_PATCHES, _THEIR_PATCHES = "model.patch_embedding.", "transformer.patch_embed.proj."
# H width, I inner width, V words, P positions of texts, G rows of the image's positions, R relative rows,
# C their columns, Y types, p patch.
CORE: tuple[Row, ...] = (
    row("batch", "model.class_embedding", "transformer.cls_token", shape=(1, 1, "H")),
    row("tensor", f"{_PATCHES}weight", f"{_THEIR_PATCHES}weight", shape=("H", 3, "p", "p")),
    row("tensor", f"{_PATCHES}bias", f"{_THEIR_PATCHES}bias", shape=("H",)),
    row("norm", f"{_OURS}attention_norm", f"{_THEIRS}norm1", shape=("H",)),
    row("turned", f"{_OURS}attention.qkv.weight", f"{_THEIRS}attn.qkv.weight", shape=("3H", "H")),
    row("tensor", f"{_OURS}attention.q_bias", f"{_THEIRS}attn.q_bias", shape=("H",)),
    row("tensor", f"{_OURS}attention.v_bias", f"{_THEIRS}attn.v_bias", shape=("H",)),
    row("linear", f"{_OURS}attention.out", f"{_THEIRS}attn.proj", shape=("H", "H")),
    row("norm", "model.norm", "transformer.norm", shape=("H",)),
    row("tensor", f"{_WORDS}word.weight", f"{_THEIR_WORDS}word_embeddings.weight", shape=("V", "H")),
    row("tensor", f"{_WORDS}position.weight", f"{_THEIR_WORDS}position_embeddings.weight", shape=("P", "H")),
    row(
        "tensor", f"{_WORDS}token_type.weight", f"{_THEIR_WORDS}token_type_embeddings.weight", shape=(2, "H")
    ),
    row("norm", f"{_WORDS}norm", f"{_THEIR_WORDS}LayerNorm", shape=("H",)),
    row("tensor", "model.type_embedding.weight", "token_type_embeddings.weight", shape=("Y", "H")),
    row("linear", "model.pooler.dense", "pooler.dense", shape=("H", "H")),
)

MEASURED: Mapping[str, tuple[str | int, ...]] = {
    f"{_THEIR_PATCHES}weight": ("H", 3, "p", "p"),
    f"{_THEIR_WORDS}word_embeddings.weight": ("V", "H"),
    f"{_THEIR_WORDS}position_embeddings.weight": ("P", "H"),
    "token_type_embeddings.weight": ("Y", "H"),
    "transformer.blocks.0.mlp_text.fc1.weight": ("I", "H"),
}


def expert_rows(ours: str, theirs: str) -> tuple[Row, ...]:
    """Return the rows of one expert of a block."""
    block, layer = f"{_OURS}experts.{ours}.", f"{_THEIRS}mlp_{theirs}."
    return (
        row("norm", f"{block}norm", f"{_THEIRS}norm2_{theirs}", shape=("H",)),
        row("linear", f"{block}mlp.fc1", f"{layer}fc1", shape=("I", "H")),
        row("linear", f"{block}mlp.fc2", f"{layer}fc2", shape=("H", "I")),
    )


BOTH = expert_rows("text", "text") + expert_rows("image", "imag")
PAIR = expert_rows("pair", "vl")
SCALES = (
    row("tensor", f"{_OURS}attention_scale", f"{_THEIRS}gamma_1", shape=("H",)),
    row("tensor", f"{_OURS}expert_scale", f"{_THEIRS}gamma_2", shape=("H",)),
)
RELATIVE = row(
    "tensor", "model.relative_positions.position_bias", "relative_position_bias_table", shape=("R", "C")
)
ABSOLUTE = row("batch", "model.position_embedding", "transformer.pos_embed", shape=(1, "G", "H"))


def _projection(ours: str, theirs: str) -> Row:
    return row("turned", f"{ours}.dense.weight", f"itc_{theirs}_proj.fc.weight", shape=("H", "H"))


TASK_HEADS: Mapping[str, Mapping[str, tuple[Row, ...]]] = {
    "pretrain": {
        "objective.mlm_head": mlm_rows("H"),
        "objective.itm_head": (row("linear", "objective.itm_head", "itm_score.fc", shape=(2, "H")),),
        "objective.itc_text_head": (_projection("objective.itc_text_head", "text"),),
        "objective.itc_image_head": (_projection("objective.itc_image_head", "image"),),
        "objective.itc_log_scale": (row("tensor", "objective.itc_log_scale", "logit_scale"),),
        "objective.itc_pair_text_head": (_projection("objective.itc_pair_text_head", "vl_text"),),
        "objective.itc_pair_image_head": (_projection("objective.itc_pair_image_head", "vl_image"),),
        "objective.itc_pair_log_scale": (row("tensor", "objective.itc_pair_log_scale", "logit_vl_scale"),),
    },
    "vqa": {"classifier": classifier_rows("vqa_classifier", "E")},
    "nlvr2": {"classifier": classifier_rows("nlvr2_classifier", "E")},
    "retrieval": {
        "itc_text_head": (_projection("itc_text_head", "text"),),
        "itc_image_head": (_projection("itc_image_head", "image"),),
        "itc_log_scale": (row("tensor", "itc_log_scale", "logit_scale"),),
    },
}
"""Task -> our head -> its rows. A file for pre-training may lack heads: those of the language stage do."""
OTHER_HEADS: Mapping[str, str] = {
    "mlm_score.": "head over words",
    "itm_score.": "head of matching",
    "itc_": "heads of contrast",
    "logit_": "scales of contrast",
    "vqa_classifier.": "classifier, for --task vqa",
    "nlvr2_classifier.": "classifier, for --task nlvr2",
}
"""Beginning of the names of a head -> description; those of other tasks are left out."""


def rows_of(tensors: Tensors, task: str) -> tuple[list[Row], tuple[str, ...]]:
    """Return one row for each of our tensors that a release has, and our heads that it lacks."""
    depth, first = _depth(tensors)
    core = [*CORE, *BOTH, *(SCALES if "transformer.blocks.0.gamma_1" in tensors else ())]
    rows = expand(core, depth, SPELLING)
    rows += [entry for entry in expand(PAIR, depth, SPELLING) if _layer(entry.ours) >= first]
    rows.append(ABSOLUTE if ABSOLUTE.theirs[0] in tensors else RELATIVE)
    absent = []
    for head, part in TASK_HEADS[task].items():
        single = expand(part, 1, SPELLING)
        if task != "pretrain" or any(name in tensors for entry in single for name in entry.theirs):
            rows += single
        else:
            absent.append(head)
    return rows, tuple(absent)


def _layer(name: str) -> int:
    return int(name.split(".")[2])


def _depth(tensors: Tensors) -> tuple[int, int]:
    """Return the number of blocks, and the first that has an expert for pairs."""
    blocks = {int(name.split(".")[2]) for name in tensors if name.startswith("transformer.blocks.")}
    pair = {int(name.split(".")[2]) for name in tensors if ".mlp_vl." in name}
    depth = 1 + max(blocks, default=0)
    return depth, min(pair, default=depth)


def from_release(
    tensors: Tensors,
    where: str = "the file",
    task: str = "pretrain",
    given: Mapping[str, Any] = MappingProxyType({}),
) -> Converted:
    """Convert released tensors to ours, with the config that they need.

    Args:
        tensors: tensors by their names.
        where: path of the file, for messages.
        task: task of the model directory, a key of `TASK_HEADS`.
        given: fields of the model section; `transformer.num_heads` cannot be read from tensors.

    Raises:
        ConfigError: another task.
        CheckpointError: names what is missing, unknown or mis-shaped.
    """
    if task not in TASK_HEADS:
        raise ConfigError(f"no released weights of VLMo are for {task!r}; known: {', '.join(TASK_HEADS)}")
    tensors = {name: tensor for name, tensor in tensors.items() if name not in BUFFERS}
    rows, absent = rows_of(tensors, task)
    folder = Folder(tensors, where, "VLMo", ADVICE)
    sizes = sizes_of(folder, rows)
    ours = folder.rename(rows, sizes, OTHER_HEADS)
    config = merge_into(_config(sizes, tensors, given), dict(given), "model")
    data = {
        "image_size": config.vision.image_size,
        "max_text_len": config.text.max_position,
        "train_transform": "vit_randaug",
        "eval_transform": "vit",
    }
    fields = {"name": task, **({"head_hidden_multiplier": sizes["D"] / sizes["H"]} if "D" in sizes else {})}
    stages = ["vision", "language"] + ["vision_language"] * ("itm_score.fc.weight" in tensors)
    metadata = {"stages": stages} if task == "pretrain" else {}
    classes = sizes["K"] if task == "vqa" else 0
    return Converted(config, ours, data, absent, fields, metadata, classes)


def to_release(ours: Tensors, task: str = "pretrain") -> dict[str, np.ndarray]:
    """Return our tensors under the names and in the shapes of the release; the inverse of `from_release`."""
    every = [*CORE, *BOTH, *PAIR, *SCALES, RELATIVE, ABSOLUTE]
    every += [entry for part in TASK_HEADS[task].values() for entry in part]
    depth = 1 + max(_layer(name) for name in ours if name.startswith("model.blocks."))
    theirs = {}
    for entry in expand(every, depth, SPELLING):
        if entry.ours in ours:
            theirs |= split(entry, ours[entry.ours])
    return theirs


def sizes_of(folder: Folder, rows: Sequence[Row]) -> dict[str, int]:
    """Return the size of each symbol of rows.

    Raises:
        CheckpointError: this is no release of VLMo.
    """
    tables = (RELATIVE, ABSOLUTE, *(entry for entry in rows if entry.ours.startswith("classifier.")))
    measured = {entry.theirs[0]: entry.shape for entry in tables if entry.theirs[0] in folder.tensors}
    sizes = folder.sizes({**MEASURED, **measured})
    return sizes | {"3H": 3 * sizes["H"]}


def _config(sizes: Mapping[str, int], tensors: Tensors, given: Mapping[str, Any]) -> Config:
    """Return the release's own settings.

    Raises:
        CheckpointError: a width that is not released, without the number of heads.
    """
    depth, first = _depth(tensors)
    is_absolute = "G" in sizes
    heads = HEADS.get(sizes["H"]) if is_absolute else None
    heads = given.get("transformer", {}).get("num_heads", heads or sizes.get("C", 0) // depth)
    if not heads:
        raise CheckpointError(f"the width is {sizes['H']}; give model.transformer.num_heads")
    patches = sizes["G"] - 1 if is_absolute else ((round((sizes["R"] - 397) ** 0.5) + 1) // 2) ** 2
    scale = tensors.get("transformer.blocks.0.gamma_1")
    name = {544: "vlmo_base_plus", 1024: "vlmo_large"}.get(sizes["H"], "vlmo_base")
    return Config(
        name=name,
        text=TextConfig(vocab_size=sizes["V"], max_position=sizes["P"]),
        vision=VisionConfig(
            image_size=round(patches**0.5) * sizes["p"], patch_size=sizes["p"], types=sizes["Y"] - 1
        ),
        transformer=TransformerConfig(
            hidden_size=sizes["H"],
            num_layers=depth,
            num_heads=heads,
            intermediate_size=sizes["I"],
            pair_layers=depth - first,
            positions="absolute" if is_absolute else "relative",
            layer_scale=None if scale is None else 0.1,
        ),
    )
