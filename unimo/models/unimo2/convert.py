"""The weights that Baidu released for UNIMO-2, under our names and with the release's settings.

The name map is data, sizes are read from the shapes, and what README.md lists under "Paper and release" is
set as the released fine-tuning scripts have it. Needs no Paddle.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping

from unimo.errors import CheckpointError
from unimo.models.unimo2.config import Config, FusionConfig, GroundingConfig, TextConfig, VisionConfig
from unimo.nn.name_map import Converted, Row, Spelling, Tensors, expand, join

logger = logging.getLogger(__name__)

SPELLING = Spelling(linear=(".w_0", ".b_0"), norm=("_scale", "_bias"), is_turned=False)
HEAD_SIZE = 64
"""Width of an attention head in both released configs; shapes do not tell it."""
NUM_TOKENS = 100
"""K of the released scripts; shapes do not tell it."""


def _layers(ours: str, theirs: str, norm: str) -> tuple[Row, ...]:
    """Transformer layers of one encoder; `norm` says where its norms are, `pre` or `post`."""
    mine, layer = f"model.{ours}.layers.{{i}}.", f"{theirs}.encoder_layer_{{i}}_"
    fused = tuple(f"{layer}multi_head_att_{part}_fc" for part in ("query", "key", "value"))
    return (
        Row(f"{mine}attention.qkv", fused, "linear", shape=("H", "H")),
        Row(f"{mine}attention.out", (f"{layer}multi_head_att_output_fc",), "linear", shape=("H", "H")),
        Row(f"{mine}attention_norm", (f"{layer}{norm}_att_layer_norm",), "norm", shape=("H",)),
        Row(f"{mine}mlp.fc1", (f"{layer}ffn_fc_0",), "linear", shape=("H", "I")),
        Row(f"{mine}mlp.fc2", (f"{layer}ffn_fc_1",), "linear", shape=("I", "H")),
        Row(f"{mine}mlp_norm", (f"{layer}{norm}_ffn_layer_norm",), "norm", shape=("H",)),
    )


_VISION, _TEXT = "model.vision.", "model.text.embeddings."
# Prefix of their layers -> rows with as many blocks as that prefix has.
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
        *_layers("vision", "vit", "pre"),
        Row(f"{_VISION}ln_post", ("vit.post_encoder_layer_norm",), "norm", shape=("H",)),
    ),
    "text": (
        Row(f"{_TEXT}word.weight", ("text.word_embedding",), "tensor", shape=("V", "H")),
        Row(f"{_TEXT}position.weight", ("text.pos_embedding",), "tensor", shape=("P", "H")),
        Row(f"{_TEXT}norm", ("text.pre_encoder_layer_norm",), "norm", shape=("H",)),
        *_layers("text", "text", "post"),
    ),
    "grounded": (
        Row("model.grounding.dictionary", ("vq_emb",), "tensor", shape=("C", "H")),
        Row("model.grounding.temperature", ("topk_temperature",), "tensor", shape=(1,)),
        Row("model.fusion.grounded_norm", ("grounded.pre_encoder_layer_norm",), "norm", shape=("H",)),
        *_layers("fusion", "grounded", "post"),
    ),
}

_MLM, _TRANSFORM = "objective.mlm_head.", "grounded.mask_lm_trans"
# Our layers -> their rows; a folder of fine-tuned weights may lack some of them.
HEADS: Mapping[str, tuple[Row, ...]] = {
    "model.text_pooler": (
        Row("model.text_pooler.dense", ("grounded.pooled_fc_text",), "linear", shape=("H", "H")),
    ),
    "model.image_pooler": (
        Row("model.image_pooler.dense", ("grounded.pooled_fc_image",), "linear", shape=("H", "H")),
    ),
    "objective.itm_head": (
        Row("objective.itm_head", ("grounded.img_text_matching_fc",), "linear", shape=("H", 2)),
    ),
    "objective.mlm_head": (
        Row(f"{_MLM}dense", (f"{_TRANSFORM}_fc",), "linear", shape=("H", "H")),
        Row(f"{_MLM}norm", (f"{_TRANSFORM}_layer_norm",), "norm", shape=("H",)),
        Row(f"{_MLM}decoder.bias", ("grounded.mask_lm_out_fc.b_0",), "tensor", shape=("V",)),
    ),
}
# Ours is a matrix of its own; theirs is the table of words, unless `weight_sharing` was off.
TIED = Row(f"{_MLM}decoder.weight", ("text.word_embedding",), "turned", shape=("V", "H"))
UNTIED = Row(f"{_MLM}decoder.weight", ("grounded.mask_lm_out_fc.w_0",), "tensor", shape=("H", "V"))

# Prefix of their names -> what that is. Nothing here has a counterpart under the release's own settings.
LEFT_OUT: Mapping[str, str] = {
    "cmcl_temperature": "temperature of the contrastive loss, which has no heads",
    "grounded.mask_g_": "head of masked grounded tokens",
    "grounded.grounding_": "projections before grounding, off in all released scripts",
    "grounded.cmcl_pooled_fc_": "projections of the contrastive loss, off in all released scripts",
    "cls_out": "text classifier",
}
_MEASURED = ("text.word_embedding", "text.pos_embedding", "vq_emb", "text.encoder_layer_0_ffn_fc_0.w_0")
_MEASURED += ("vit.position_embeddings", "vit.patch_embeddings_projection_weight")


def from_release(tensors: Tensors, where: str = "the folder") -> Converted:
    """Released tensors by their names to ours, with the config they need; what is left out is logged.

    Args:
        tensors: what `unimo.weights_folder.read_folder` gave.
        where: the folder, for messages.

    Raises:
        CheckpointError: names every missing, unknown and mis-shaped tensor.
    """
    sizes = read_sizes(tensors, where)
    rows, absent = present_rows(tensors)
    _check(tensors, rows, sizes, where)
    left = [name for name in tensors if name.startswith(tuple(LEFT_OUT))]
    if left:
        reasons = dict.fromkeys(text for prefix, text in LEFT_OUT.items() if _starts(left, prefix))
        logger.info("left out: %s (%s)", ", ".join(sorted(left)), "; ".join(reasons))
    ours = {row.ours: join([tensors[name] for name in row.theirs], row.kind) for row in rows}
    config = release_config(sizes, {prefix: _depth(tensors, prefix) for prefix in ENCODERS})
    data = {
        "image_size": config.vision.image_size,
        "max_text_len": config.text.max_position - config.text.padding_id - 1,
        "train_transform": "vit",
        "eval_transform": "vit",
    }
    return Converted(config, ours, data, absent)


def read_sizes(tensors: Tensors, where: str = "the folder") -> dict[str, int]:
    """Sizes by the symbols of the rows: H width, I inner, V words, P positions, C rows of the dictionary,
    G rows of the image's position table, patch.

    Raises:
        CheckpointError: a tensor that tells a size is missing or has other axes.
    """
    missing = [name for name in _MEASURED if name not in tensors]
    axes = {"vit.position_embeddings": 3, "vit.patch_embeddings_projection_weight": 4}
    wrong = [n for n in _MEASURED if n in tensors and tensors[n].ndim != axes.get(n, 2)]
    if missing or wrong:
        shapes = (f"{name} {list(tensors[name].shape)}" for name in wrong)
        raise CheckpointError(
            f"{where} is not a release of UNIMO-2; {_problems(missing=missing, misshaped=list(shapes))}. "
            "Give the folder of UNIMO-2.tar.gz"
        )
    word, position, dictionary, inner, grid, patch = (tensors[name].shape for name in _MEASURED)
    names = ("V", "H", "P", "C", "I", "G", "patch")
    sizes = (*word, position[0], dictionary[0], inner[1], grid[1], patch[3])
    return dict(zip(names, sizes, strict=True))


def present_rows(tensors: Tensors) -> tuple[list[Row], tuple[str, ...]]:
    """Single rows for what the tensors hold: the encoders, and heads of which there is a part.

    Returns:
        The rows, and our names of the heads that are absent.
    """
    rows = [row for key, part in ENCODERS.items() for row in expand(part, _depth(tensors, key), SPELLING)]
    absent = []
    for head, part in HEADS.items():
        single = expand(part, 1, SPELLING)
        if any(name in tensors for row in single for name in row.theirs):
            rows += single
            if head == "objective.mlm_head":
                rows.append(UNTIED if UNTIED.theirs[0] in tensors else TIED)
        else:
            absent.append(head)
    return rows, tuple(absent)


def release_config(sizes: Mapping[str, int], depths: Mapping[str, int]) -> Config:
    """The release's own settings.

    Args:
        sizes: as `read_sizes` gives them.
        depths: layers of `vit`, `text` and `grounded`.

    Raises:
        CheckpointError: heads of 64 do not divide the width.
    """
    width = sizes["H"]
    if width % HEAD_SIZE:
        raise CheckpointError(
            f"the width is {width}, expected a multiple of {HEAD_SIZE}, the width of a head in the release; "
            "give the folder of UNIMO-2.tar.gz"
        )
    layer = {"hidden_size": width, "num_heads": width // HEAD_SIZE, "intermediate_size": sizes["I"]}
    return Config(
        name="unimo2_large" if width == 1024 else "unimo2_base",
        text=TextConfig(**layer, num_layers=depths["text"], vocab_size=sizes["V"], max_position=sizes["P"]),
        vision=VisionConfig(
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


def _check(tensors: Tensors, rows: list[Row], sizes: Mapping[str, int], where: str) -> None:
    """Stop at anything missing, unknown or mis-shaped, all of it named."""
    shapes = {
        name: [sizes[size] if isinstance(size, str) else size for size in row.shape]
        for row in rows
        for name in row.theirs
    }
    known = (name for name in tensors if name in shapes or name.startswith(tuple(LEFT_OUT)))
    unknown = sorted(set(tensors) - set(known))
    missing = sorted(set(shapes) - set(tensors))
    misshaped = [
        f"{name} (found {list(tensors[name].shape)}, expected {shape})"
        for name, shape in shapes.items()
        if name in tensors and list(tensors[name].shape) != shape
    ]
    if math.isqrt(sizes["G"] - 1) ** 2 != sizes["G"] - 1:
        misshaped.append(f"vit.position_embeddings ({sizes['G']} rows, expected 1 and a square)")
    if missing or unknown or misshaped:
        raise CheckpointError(
            f"{where} is not a whole release of UNIMO-2; {_problems(missing, unknown, misshaped)}. Unpack it "
            "again; move files that are not part of it to another folder"
        )


def _problems(
    missing: list[str] | None = None, unknown: list[str] | None = None, misshaped: list[str] | None = None
) -> str:
    kinds = {"missing": missing, "unknown": unknown, "mis-shaped": misshaped}
    return "; ".join(f"{len(names)} {kind}: {', '.join(names)}" for kind, names in kinds.items() if names)


def _depth(tensors: Tensors, prefix: str) -> int:
    """Layers of an encoder, at least one, so that the names of one are missed where there are none."""
    numbers = (re.match(rf"{prefix}\.encoder_layer_(\d{{1,3}})_", name) for name in tensors)
    return 1 + max((int(match[1]) for match in numbers if match), default=0)


def _starts(names: list[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)
