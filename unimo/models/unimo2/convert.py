"""Convert the weights that Baidu released for UNIMO-2.

The name map is data, sizes are read from the shapes, and the settings that docs/papers/unimo2.md lists under
"Paper and release" are those of the released fine-tuning scripts. What shapes do not show, heads and K, is
theirs too, unless it is given. The task of the model directory decides which heads are taken.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from unimo.config import merge_into
from unimo.errors import CheckpointError, ConfigError
from unimo.models.unimo2.config import Config, FusionConfig, GroundingConfig
from unimo.nn.config import TextConfig, VitConfig
from unimo.weights.name_map import Converted, Row, Tensors, expand, row
from unimo.weights.released import SPELLING, Folder, Heads, language_head_rows, layer_rows, num_heads

ADVICE = "the folder of UNIMO-2.tar.gz"
"""Folder that error messages ask for."""
NUM_TOKENS = 100
"""K of the released scripts, where no other is given."""
VIT: Mapping[str, int] = {"G": 197, "patch": 16}
"""Sizes of the vision tower, by the symbols of `MEASURED`, where a folder has none."""
DATASETS: Mapping[int, str] = {1: "stsb", 2: "sst2", 3: "mnli"}
"""Classes of a text classifier -> default of `task.dataset` (CoLA has 2 classes, too)."""

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
_POOLERS: Heads = {
    "model.text_pooler": (
        row("linear", "model.text_pooler.dense", "grounded.pooled_fc_text", shape=("H", "H")),
    ),
    "model.image_pooler": (
        row("linear", "model.image_pooler.dense", "grounded.pooled_fc_image", shape=("H", "H")),
    ),
}
# Our layers -> their rows; a folder of fine-tuned weights may lack some of them.
HEADS: Heads = {
    **_POOLERS,
    "objective.itm_head": (
        row("linear", "objective.itm_head", "grounded.img_text_matching_fc", shape=("H", 2)),
    ),
    _MLM: language_head_rows(_MLM, "grounded."),
}
# Taken where `grounding.project` is given: the release has it as an option, and all of its scripts off.
PROJECTIONS: Heads = {
    f"model.{ours}_projection": (
        row(
            "linear", f"model.{ours}_projection", f"grounded.grounding_{theirs}_projection", shape=("H", "H")
        ),
    )
    for ours, theirs in (("text", "token"), ("image", "patch"))
}
# Names of the one text classifier; the second where theirs started from a model tuned on MNLI.
CLASSIFIERS = ("cls_out", "cls_out_new")
# Prefix of their names -> description; left out where neither task nor options have a counterpart.
LEFT_OUT: Mapping[str, str] = {
    "cmcl_temperature": "temperature of the contrastive loss of pre-training",
    "grounded.mask_g_": "head of masked grounded tokens",
    "grounded.grounding_": "projections before grounding, for model.grounding.project=true",
    "grounded.cmcl_pooled_fc_": "projections of the contrastive loss, off in all released scripts",
    "cls_out": "text classifier, for --task text_classification",
}
PAIRS_ONLY: Mapping[str, str] = {
    "grounded.img_text_matching_": "matching head",
    "grounded.mask_lm_": "language head",
}
"""The same for prefixes that only a text classifier leaves out."""


def from_release(
    tensors: Tensors,
    where: str = "the folder",
    task: str = "pretrain",
    given: Mapping[str, Any] = MappingProxyType({}),
) -> Converted:
    """Convert released tensors to ours, with the config that they need; what is left out is logged.

    The folder of a text classifier may lack the vision tower, which then starts at random.

    Args:
        tensors: tensors by their names, as `unimo.weights.files.open_tensors` returns them.
        where: path of the folder, for messages.
        task: task whose heads are converted: `pretrain` or `text_classification`.
        given: fields of the model section. Numbers of heads and K (`grounding.num_tokens`) cannot be read
            from tensors; with `grounding.project` the projections are taken.

    Raises:
        ConfigError: another task, or fields that do not fit.
        CheckpointError: names what is missing, unknown or mis-shaped.
    """
    if task not in ("pretrain", "text_classification"):
        raise ConfigError(
            f"no released weights of UNIMO-2 are for {task!r}; known: pretrain, text_classification"
        )
    folder, is_text = Folder(tensors, where, "UNIMO-2", ADVICE), task == "text_classification"
    blind = is_text and not any(name.startswith("vit.") for name in tensors)
    towers = [prefix for prefix in ENCODERS if not (blind and prefix == "vit")]
    sizes = folder.sizes({name: MEASURED[name] for name in MEASURED if not (blind and name[:4] == "vit.")})
    if blind:
        sizes |= VIT
    depths = {prefix: folder.depth(f"{prefix}.") for prefix in towers}
    config = merge_into(release_config(sizes, depths, given), given, "model")
    rows, absent = present_rows(folder, towers, _POOLERS if is_text else HEADS, config.grounding.project)
    fields: dict[str, Any] = {"name": task}
    if is_text:
        classifier, classes = _classifier(folder)
        fields["dataset"] = DATASETS[classes]
        rows += [
            row("tensor", "classifier.weight", f"{classifier}_w", shape=("H", classes)),
            row("tensor", "classifier.bias", f"{classifier}_b", shape=(classes,)),
        ]
    is_square = math.isqrt(sizes["G"] - 1) ** 2 == sizes["G"] - 1
    wrong = [] if is_square else [f"vit.position_embeddings ({sizes['G']} rows, expected 1 and a square)"]
    ours = folder.rename(rows, sizes, {**LEFT_OUT, **(PAIRS_ONLY if is_text else {})}, wrong)
    data = {
        "image_size": config.vision.image_size,
        "max_text_len": config.text.longest,
        "train_transform": "vit",
        "eval_transform": "vit",
    }
    return Converted(config, ours, data, (*(["model.vision"] if blind else []), *absent), fields)


def _classifier(folder: Folder) -> tuple[str, int]:
    """Return the beginning of the names of the one text classifier in a folder, and its number of outputs.

    Raises:
        CheckpointError: there is none, there are two, or no data set has that number of classes.
    """
    found = {name: folder.tensors[f"{name}_w"].shape for name in CLASSIFIERS if f"{name}_w" in folder.tensors}
    shapes = ", ".join(f"{name}_w {list(shape)}" for name, shape in found.items()) or "none"
    if len(found) != 1 or [*found.values()][0][-1] not in DATASETS:
        raise CheckpointError(
            f"{folder.where}: text classifiers: {shapes}; expected one of cls_out_w and cls_out_new_w, with "
            "1 column (STS-B), 2 (SST-2, CoLA) or 3 (MNLI). Move the other to another folder, or choose "
            "another --task"
        )
    ((name, shape),) = found.items()
    return name, shape[-1]


def present_rows(
    folder: Folder, towers: Collection[str] = tuple(ENCODERS), heads: Heads = HEADS, project: bool = False
) -> tuple[list[Row], tuple[str, ...]]:
    """Return the single rows of encoders and of heads that are present in part, and the absent heads.

    Args:
        folder: content of the released folder.
        towers: those of `ENCODERS` that it has.
        heads: those that are wanted.
        project: whether the projections of those towers are wanted; they may not be absent.
    """
    rows = [
        entry for prefix in towers for entry in expand(ENCODERS[prefix], folder.depth(f"{prefix}."), SPELLING)
    ]
    wanted = {**heads, **(PROJECTIONS if project else {})}
    required = [name for name in PROJECTIONS if "vit" in towers or name.startswith("model.text")]
    found, absent = folder.head_rows(wanted, required)
    if _MLM in heads and _MLM not in absent:
        found.append(folder.output_matrix_row(_MLM, "grounded.", "text.word_embedding"))
    return rows + found, absent


def release_config(
    sizes: Mapping[str, int], depths: Mapping[str, int], given: Mapping[str, Any] = MappingProxyType({})
) -> Config:
    """Return the release's own settings.

    Args:
        sizes: sizes by their symbols.
        depths: numbers of layers of `vit`, `text` and `grounded`; without `vit` those of the text.
        given: known fields of the model section, of which numbers of heads and K are read.

    Raises:
        CheckpointError: see `num_heads`.
    """
    width, patch = sizes["H"], sizes["patch"]

    def layer(part: str, prefix: str) -> dict[str, int]:
        return {
            "hidden_size": width,
            "num_heads": num_heads(width, given, part, ADVICE),
            "intermediate_size": sizes["I"],
            "num_layers": depths.get(prefix, depths["text"]),
        }

    config = Config(
        name="unimo2_large" if width == 1024 else "unimo2_base",
        text=TextConfig(**layer("text", "text"), vocab_size=sizes["V"], max_position=sizes["P"]),
        vision=VitConfig(
            **layer("vision", "vit"), patch_size=patch, image_size=math.isqrt(sizes["G"] - 1) * patch
        ),
        grounding=GroundingConfig(
            dictionary_size=sizes["C"],
            num_tokens=given.get("grounding", {}).get("num_tokens", NUM_TOKENS),
        ),
        fusion=FusionConfig(**layer("fusion", "grounded")),
    )
    own = {"behaviour": "release", "vision": {"patch_padding": (patch - 1) // 2}}
    return merge_into(config, own)
