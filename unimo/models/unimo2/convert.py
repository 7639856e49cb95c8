"""Convert the weights that Baidu released for UNIMO-2.

The name map is data, sizes are read from the shapes, and the settings that README.md lists under "Paper and
release" are those of the released fine-tuning scripts. Needs no Paddle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from unimo.errors import ConfigError
from unimo.models.unimo2.config import Config, FusionConfig, GroundingConfig
from unimo.nn.config import TextConfig, VitConfig
from unimo.weights.name_map import Converted, Row, Tensors, expand
from unimo.weights.released import (
    SPELLING,
    Folder,
    Heads,
    depth,
    head_rows,
    language_head_rows,
    layer_rows,
    num_heads,
    output_matrix_row,
)

ADVICE = "the folder of UNIMO-2.tar.gz"
"""Folder that error messages ask for."""
NUM_TOKENS = 100
"""K of the released scripts, which cannot be read from shapes."""

_VISION, _TEXT = "model.vision.", "model.text.embeddings."
# Prefix of their layers -> rows; an encoder has as many blocks as there are layers of that prefix.
ENCODERS: Mapping[str, tuple[Row, ...]] = {
    "vit": (
        Row(f"{_VISION}class_embedding", ("vit.cls_token_embeddings",), "batch", shape=(1, 1, "H")),
        Row(f"{_VISION}position_embedding", ("vit.position_embeddings",), "batch", shape=(1, "G", "H")),
        Row(
            f"{_VISION}patch_embedding.weight",
            ("vit.patch_embeddings_projection_weight",),
            "tensor",
            shape=("H", 3, "patch", "patch"),
        ),
        Row(
            f"{_VISION}patch_embedding.bias",
            ("vit.patch_embeddings_projection_bias",),
            "tensor",
            shape=("H",),
        ),
        *layer_rows("model.vision", "vit.", "pre"),
        Row(f"{_VISION}ln_post", ("vit.post_encoder_layer_norm",), "norm", shape=("H",)),
    ),
    "text": (
        Row(f"{_TEXT}word.weight", ("text.word_embedding",), "tensor", shape=("V", "H")),
        Row(f"{_TEXT}position.weight", ("text.pos_embedding",), "tensor", shape=("P", "H")),
        Row(f"{_TEXT}norm", ("text.pre_encoder_layer_norm",), "norm", shape=("H",)),
        *layer_rows("model.text", "text.", "post"),
    ),
    "grounded": (
        Row("model.grounding.dictionary", ("vq_emb",), "tensor", shape=("C", "H")),
        Row("model.grounding.temperature", ("topk_temperature",), "tensor", shape=(1,)),
        Row("model.fusion.grounded_norm", ("grounded.pre_encoder_layer_norm",), "norm", shape=("H",)),
        *layer_rows("model.fusion", "grounded.", "post"),
    ),
}

_MLM = "objective.mlm_head"
# Our layers -> their rows; a folder of fine-tuned weights may lack some of them.
HEADS: Heads = {
    "model.text_pooler": (
        Row("model.text_pooler.dense", ("grounded.pooled_fc_text",), "linear", shape=("H", "H")),
    ),
    "model.image_pooler": (
        Row("model.image_pooler.dense", ("grounded.pooled_fc_image",), "linear", shape=("H", "H")),
    ),
    "objective.itm_head": (
        Row("objective.itm_head", ("grounded.img_text_matching_fc",), "linear", shape=("H", 2)),
    ),
    _MLM: language_head_rows(_MLM, "grounded."),
}
# Prefix of their names -> description. None of these has a counterpart under the release's own settings.
LEFT_OUT: Mapping[str, str] = {
    "cmcl_temperature": "temperature of the contrastive loss, which has no heads",
    "grounded.mask_g_": "head of masked grounded tokens",
    "grounded.grounding_": "projections before grounding, off in all released scripts",
    "grounded.cmcl_pooled_fc_": "projections of the contrastive loss, off in all released scripts",
    "cls_out": "text classifier",
}
_MEASURED: Mapping[str, int] = {
    "text.word_embedding": 2,
    "text.pos_embedding": 2,
    "vq_emb": 2,
    "text.encoder_layer_0_ffn_fc_0.w_0": 2,
    "vit.position_embeddings": 3,
    "vit.patch_embeddings_projection_weight": 4,
}


def from_release(tensors: Tensors, where: str = "the folder", task: str = "pretrain") -> Converted:
    """Convert released tensors to ours, with the config that they need; what is left out is logged.

    Args:
        tensors: tensors by their names, as `unimo.weights.paddle_folder.read_folder` returns them.
        where: path of the folder, for messages.
        task: task whose heads are converted; only those of pre-training have counterparts.

    Raises:
        ConfigError: another task.
        CheckpointError: names every missing, unknown and mis-shaped tensor.
    """
    if task != "pretrain":
        raise ConfigError(f"heads of {task!r} are not converted; leave out --task")
    sizes = read_sizes(tensors, where)
    rows, absent = present_rows(tensors)
    is_square = math.isqrt(sizes["G"] - 1) ** 2 == sizes["G"] - 1
    wrong = [] if is_square else [f"vit.position_embeddings ({sizes['G']} rows, expected 1 and a square)"]
    ours = _folder(tensors, where).rename(rows, sizes, LEFT_OUT, wrong)
    config = release_config(sizes, {prefix: depth(tensors, f"{prefix}.") for prefix in ENCODERS})
    data = {
        "image_size": config.vision.image_size,
        "max_text_len": config.text.max_position - config.text.padding_id - 1,
        "train_transform": "vit",
        "eval_transform": "vit",
    }
    return Converted(config, ours, data, absent)


def read_sizes(tensors: Tensors, where: str = "the folder") -> dict[str, int]:
    """Read the sizes by the symbols of the rows from the shapes.

    H width, I inner width, V words, P positions, C rows of the dictionary, G rows of the image's position
    table, patch.

    Raises:
        CheckpointError: a tensor that holds a size is missing or has another number of axes.
    """
    word, position, dictionary, inner, grid, patch = _folder(tensors, where).shapes(_MEASURED)
    names = ("V", "H", "P", "C", "I", "G", "patch")
    sizes = (*word, position[0], dictionary[0], inner[1], grid[1], patch[3])
    return dict(zip(names, sizes, strict=True))


def present_rows(tensors: Tensors) -> tuple[list[Row], tuple[str, ...]]:
    """Select the single rows of the encoders, and of heads that are present in part.

    Returns:
        The rows, and our names of the absent heads.
    """
    rows = [
        row for key, part in ENCODERS.items() for row in expand(part, depth(tensors, f"{key}."), SPELLING)
    ]
    heads, absent = head_rows(tensors, HEADS)
    if _MLM not in absent:
        heads.append(output_matrix_row(_MLM, "grounded.", "text.word_embedding", tensors))
    return rows + heads, absent


def release_config(sizes: Mapping[str, int], depths: Mapping[str, int]) -> Config:
    """Return the release's own settings.

    Args:
        sizes: result of `read_sizes`.
        depths: numbers of layers of `vit`, `text` and `grounded`.

    Raises:
        CheckpointError: the width is not a multiple of 64, the width of a head.
    """
    width = sizes["H"]
    layer = {"hidden_size": width, "num_heads": num_heads(width, ADVICE), "intermediate_size": sizes["I"]}
    return Config(
        name="unimo2_large" if width == 1024 else "unimo2_base",
        text=TextConfig(**layer, num_layers=depths["text"], vocab_size=sizes["V"], max_position=sizes["P"]),
        vision=VitConfig(
            **layer,
            num_layers=depths["vit"],
            patch_size=sizes["patch"],
            image_size=math.isqrt(sizes["G"] - 1) * sizes["patch"],
            patch_padding=(sizes["patch"] - 1) // 2,
        ),
        grounding=GroundingConfig(
            dictionary_size=sizes["C"],
            num_tokens=NUM_TOKENS,
            mask_padding=False,
            norm_tokens=True,
        ),
        fusion=FusionConfig(
            **layer,
            num_layers=depths["grounded"],
            caption_sees_image=True,
            pooler="relu",
            itm_feature="product",
        ),
    )


def _folder(tensors: Tensors, where: str) -> Folder:
    return Folder(tensors, where, "UNIMO-2", ADVICE)
