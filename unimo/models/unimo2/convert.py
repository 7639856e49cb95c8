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
from unimo.weights.name_map import Converted, Row, Tensors, expand, row
from unimo.weights.released import SPELLING, Folder, Heads, language_head_rows, layer_rows, num_heads

ADVICE = "the folder of UNIMO-2.tar.gz"
"""Folder that error messages ask for."""
NUM_TOKENS = 100
"""K of the released scripts, which cannot be read from shapes."""

# H width, I inner width, V words, P positions, C rows of the dictionary, G rows of the image's positions.
MEASURED: Mapping[str, tuple[str | int, ...]] = {
    "text.word_embedding": ("V", "H"),
    "text.pos_embedding": ("P", "H"),
    "vq_emb": ("C", "H"),
    "text.encoder_layer_0_ffn_fc_0.w_0": ("H", "I"),
    "vit.position_embeddings": (1, "G", "H"),
    "vit.patch_embeddings_projection_weight": ("H", 3, "patch", "patch"),
}
_VISION, _TEXT = "model.vision.", "model.text.embeddings."
_PATCHES = "vit.patch_embeddings_projection_"
# Prefix of their layers -> rows; an encoder has as many blocks as there are layers of that prefix.
ENCODERS: Mapping[str, tuple[Row, ...]] = {
    "vit": (
        row("batch", f"{_VISION}class_embedding", "vit.cls_token_embeddings", shape=(1, 1, "H")),
        row("batch", f"{_VISION}position_embedding", "vit.position_embeddings", shape=(1, "G", "H")),
        row(
            "tensor",
            f"{_VISION}patch_embedding.weight",
            f"{_PATCHES}weight",
            shape=("H", 3, "patch", "patch"),
        ),
        row("tensor", f"{_VISION}patch_embedding.bias", f"{_PATCHES}bias", shape=("H",)),
        *layer_rows("model.vision", "vit.", "pre"),
        row("norm", f"{_VISION}ln_post", "vit.post_encoder_layer_norm", shape=("H",)),
    ),
    "text": (
        row("tensor", f"{_TEXT}word.weight", "text.word_embedding", shape=("V", "H")),
        row("tensor", f"{_TEXT}position.weight", "text.pos_embedding", shape=("P", "H")),
        row("norm", f"{_TEXT}norm", "text.pre_encoder_layer_norm", shape=("H",)),
        *layer_rows("model.text", "text.", "post"),
    ),
    "grounded": (
        row("tensor", "model.grounding.dictionary", "vq_emb", shape=("C", "H")),
        row("tensor", "model.grounding.temperature", "topk_temperature", shape=(1,)),
        row("norm", "model.fusion.grounded_norm", "grounded.pre_encoder_layer_norm", shape=("H",)),
        *layer_rows("model.fusion", "grounded.", "post"),
    ),
}

_MLM = "objective.mlm_head"
# Our layers -> their rows; a folder of fine-tuned weights may lack some of them.
HEADS: Heads = {
    "model.text_pooler": (
        row("linear", "model.text_pooler.dense", "grounded.pooled_fc_text", shape=("H", "H")),
    ),
    "model.image_pooler": (
        row("linear", "model.image_pooler.dense", "grounded.pooled_fc_image", shape=("H", "H")),
    ),
    "objective.itm_head": (
        row("linear", "objective.itm_head", "grounded.img_text_matching_fc", shape=("H", 2)),
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


def from_release(tensors: Tensors, where: str = "the folder", task: str = "pretrain") -> Converted:
    """Convert released tensors to ours, with the config that they need; what is left out is logged.

    Args:
        tensors: tensors by their names, as `unimo.weights.paddle_folder.read_folder` returns them.
        where: path of the folder, for messages.
        task: task whose heads are converted; only those of pre-training have counterparts.

    Raises:
        ConfigError: another task.
        CheckpointError: names what is missing, unknown or mis-shaped.
    """
    if task != "pretrain":
        raise ConfigError(f"heads of {task!r} are not converted; leave out --task")
    folder = Folder(tensors, where, "UNIMO-2", ADVICE)
    sizes = folder.sizes(MEASURED)
    rows, absent = present_rows(folder)
    is_square = math.isqrt(sizes["G"] - 1) ** 2 == sizes["G"] - 1
    wrong = [] if is_square else [f"vit.position_embeddings ({sizes['G']} rows, expected 1 and a square)"]
    ours = folder.rename(rows, sizes, LEFT_OUT, wrong)
    config = release_config(sizes, {prefix: folder.depth(f"{prefix}.") for prefix in ENCODERS})
    data = {
        "image_size": config.vision.image_size,
        "max_text_len": config.text.max_position - config.text.padding_id - 1,
        "train_transform": "vit",
        "eval_transform": "vit",
    }
    return Converted(config, ours, data, absent)


def present_rows(folder: Folder) -> tuple[list[Row], tuple[str, ...]]:
    """Return the single rows of the encoders and of heads that are present in part, and the absent heads."""
    rows = [
        entry
        for prefix, part in ENCODERS.items()
        for entry in expand(part, folder.depth(f"{prefix}."), SPELLING)
    ]
    heads, absent = folder.head_rows(HEADS)
    if _MLM not in absent:
        heads.append(folder.output_matrix_row(_MLM, "grounded.", "text.word_embedding"))
    return rows + heads, absent


def release_config(sizes: Mapping[str, int], depths: Mapping[str, int]) -> Config:
    """Return the release's own settings.

    Args:
        sizes: sizes by their symbols.
        depths: numbers of layers of `vit`, `text` and `grounded`.

    Raises:
        CheckpointError: the width is not a multiple of 64, the width of a head.
    """
    width, patch = sizes["H"], sizes["patch"]
    layer = {"hidden_size": width, "num_heads": num_heads(width, ADVICE), "intermediate_size": sizes["I"]}
    return Config(
        name="unimo2_large" if width == 1024 else "unimo2_base",
        text=TextConfig(**layer, num_layers=depths["text"], vocab_size=sizes["V"], max_position=sizes["P"]),
        vision=VitConfig(
            **layer,
            num_layers=depths["vit"],
            patch_size=patch,
            image_size=math.isqrt(sizes["G"] - 1) * patch,
            patch_padding=(patch - 1) // 2,
        ),
        grounding=GroundingConfig(
            dictionary_size=sizes["C"], num_tokens=NUM_TOKENS, mask_padding=False, norm_tokens=True
        ),
        fusion=FusionConfig(
            **layer,
            num_layers=depths["grounded"],
            caption_sees_image=True,
            pooler="relu",
            itm_feature="product",
        ),
    )
