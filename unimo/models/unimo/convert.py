"""Convert the weights that Baidu released for UNIMO, or that their fine-tuning saved.

The name map is data, and sizes are read from the shapes. The task of the model directory decides which head
is taken; the others are left out. Needs no Paddle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from unimo.errors import CheckpointError, ConfigError
from unimo.models.unimo.config import Config, RegionConfig
from unimo.nn.config import TextConfig
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

ADVICE = "the folder that unimo_base_en.tar.gz or another of its archives unpacks to"
"""Folder that error messages ask for."""
_TEXT = "model.transformer.embeddings"
CORE: tuple[Row, ...] = (
    Row(f"{_TEXT}.word.weight", ("word_embedding",), "tensor", shape=("V", "H")),
    Row(f"{_TEXT}.position.weight", ("pos_embedding",), "tensor", shape=("P", "H")),
    Row(f"{_TEXT}.norm", ("pre_encoder_layer_norm",), "norm", shape=("H",)),
    Row("model.regions.feature", ("image_emb",), "linear", shape=("F", "H")),
    Row("model.regions.location", ("image_loc",), "linear", shape=(5, "H")),
    Row("model.regions.norm", ("v_pre_encoder_layer_norm",), "norm", shape=("H",)),
    *layer_rows("model.transformer", "", "post"),
)

# Parts of our model that a folder may lack; they then start at random.
PARTS: Heads = {
    "model.text_pooler": (Row("model.text_pooler.dense", ("pooled_fc_text",), "linear", shape=("H", "H")),),
    "model.image_pooler": (
        Row("model.image_pooler.dense", ("pooled_fc_image",), "linear", shape=("H", "H")),
    ),
    "model.match_head": (Row("model.match_head", ("match_fc",), "linear", shape=("H", 1)),),
}
# Parts that our model has only for dialogues.
DIALOGUE: Heads = {
    "model.roles": (Row("model.roles.weight", ("role_embedding",), "tensor", shape=("R", "H")),),
    "model.turns": (Row("model.turns.weight", ("turn_embedding",), "tensor", shape=("U", "H")),),
}
_ENTAILMENT = (
    Row("classifier.dense.weight", ("cls_out_w_0",), "tensor", shape=("H", "D")),
    Row("classifier.dense.bias", ("cls_out_b_0",), "tensor", shape=("D",)),
    Row("classifier.out.weight", ("cls_out_w_1",), "tensor", shape=("D", 3)),
    Row("classifier.out.bias", ("cls_out_b_1",), "tensor", shape=(3,)),
)
_TEXT_CLASSIFIER = re.compile(r"cls_out_(\d+)_w")
DATASETS: Mapping[int, str] = {1: "stsb", 2: "sst2", 3: "mnli"}
"""Classes of a text classifier -> default of `task.dataset` (CoLA has 2 classes, too)."""
LANGUAGE: Mapping[str, str] = {
    "pretrain": "objective.mlm_head",
    "caption": "lm_head",
    "seq2seq": "lm_head",
}
"""Task -> our name of the head over the vocabulary."""
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "pretrain": (),
    "caption": ("lm_head",),
    "seq2seq": ("lm_head",),
    "entailment": ("model.text_pooler", "model.image_pooler"),
    "retrieval": ("model.text_pooler", "model.image_pooler", "model.match_head"),
    "text_classification": ("model.text_pooler",),
}
"""Task -> the parts above that it trained, without which a folder is incomplete."""

# Prefix of their names -> description; left out where the task has no use for it.
LEFT_OUT: Mapping[str, str] = {
    "mask_lm_": "language head",
    "cls_out_": "classifiers, for --task entailment or text_classification",
}
_MEASURED: Mapping[str, int] = {
    "word_embedding": 2,
    "pos_embedding": 2,
    "image_emb.w_0": 2,
    "encoder_layer_0_ffn_fc_0.w_0": 2,
}


def from_release(tensors: Tensors, where: str = "the folder", task: str = "pretrain") -> Converted:
    """Convert released tensors to ours, with the config that they need; what is left out is logged.

    Heads may be absent for pre-training only.

    Args:
        tensors: tensors by their names, as `unimo.weights.paddle_folder.read_folder` returns them.
        where: path of the folder, for messages.
        task: task of the model directory, a key of `REQUIRED`.

    Raises:
        ConfigError: another task.
        CheckpointError: names every missing, unknown and mis-shaped tensor.
    """
    if task not in REQUIRED:
        raise ConfigError(f"no released weights of UNIMO are for {task!r}; known: {', '.join(REQUIRED)}")
    sizes = read_sizes(tensors, where)
    rows, absent = present_rows(tensors, task)
    fields: dict[str, Any] = {"name": task}
    if task == "text_classification":
        classes = read_classes(tensors, where)
        fields["dataset"] = DATASETS[classes]
        rows += _text_classifier(classes)
    if task == "entailment":
        rows += _ENTAILMENT
        fields |= {"head": "linear", "head_hidden_multiplier": sizes["D"] / sizes["H"]}
    if task == "seq2seq":
        fields |= {"end_token": "mask", "dialog": sizes["R"] > 0}
    ours = Folder(tensors, where, "UNIMO", ADVICE).rename(rows, sizes, LEFT_OUT)
    config = release_config(sizes, depth(tensors, ""), task)
    data = {"max_text_len": sizes["P"] - config.text.padding_id - 1} if task == "pretrain" else {}
    return Converted(config, ours, data, absent, fields)


def read_sizes(tensors: Tensors, where: str = "the folder") -> dict[str, int]:
    """Read the sizes by the symbols of the rows from the shapes.

    H width, I inner width, V words, P positions, F width of a region feature; R roles and U turns, 0 without
    them; D inner width of the SNLI-VE classifier, 2048 without it.

    Raises:
        CheckpointError: a tensor that holds a size is missing or has another number of axes.
    """
    word, position, feature, inner = Folder(tensors, where, "UNIMO", ADVICE).shapes(_MEASURED)
    sizes = {"V": word[0], "H": word[1], "P": position[0], "F": feature[0], "I": inner[1]}
    sizes["D"] = tensors["cls_out_b_0"].size if "cls_out_b_0" in tensors else 2048
    for symbol, name in (("R", "role_embedding"), ("U", "turn_embedding")):
        sizes[symbol] = len(tensors[name]) if name in tensors else 0
    return sizes


def present_rows(tensors: Tensors, task: str = "pretrain") -> tuple[list[Row], tuple[str, ...]]:
    """Select the single rows of the model's parts that are present, and of the language head of the task.

    Returns:
        The rows, and our names of the absent parts; a part that the task trained is never among these.
    """
    rows = expand(CORE, depth(tensors, ""), SPELLING) + head_rows(tensors, DIALOGUE)[0]
    language = LANGUAGE.get(task)
    heads = {**PARTS, **({language: language_head_rows(language, "")} if language else {})}
    found, absent = head_rows(tensors, heads, REQUIRED[task])
    if language and language not in absent:
        found.append(output_matrix_row(language, "", "word_embedding", tensors))
    return rows + found, absent


def read_classes(tensors: Tensors, where: str = "the folder") -> int:
    """Return the number of outputs of the one text classifier in a folder.

    Raises:
        CheckpointError: there is none, there are several, or no data set has that number of classes.
    """
    found = sorted(int(match[1]) for name in tensors if (match := _TEXT_CLASSIFIER.fullmatch(name)))
    if len(found) != 1 or found[0] not in DATASETS:
        names = ", ".join(f"cls_out_{count}_w" for count in found) or "none"
        raise CheckpointError(
            f"{where}: text classifiers: {names}; expected one of cls_out_1_w (STS-B), cls_out_2_w (SST-2, "
            "CoLA) and cls_out_3_w (MNLI). Move the others to another folder, or choose another --task"
        )
    return found[0]


def release_config(sizes: Mapping[str, int], num_layers: int, task: str = "pretrain") -> Config:
    """Return the release's own settings for a task; pooled vectors are added for SNLI-VE, else multiplied.

    Args:
        sizes: result of `read_sizes`.
        num_layers: number of layers of the Transformer.
        task: a key of `REQUIRED`.

    Raises:
        CheckpointError: the width is not a multiple of 64, the width of a head.
    """
    width = sizes["H"]
    return Config(
        name="unimo_large" if width == 1024 else "unimo_base",
        text=TextConfig(
            hidden_size=width,
            num_heads=num_heads(width, ADVICE),
            num_layers=num_layers,
            intermediate_size=sizes["I"],
            vocab_size=sizes["V"],
            max_position=sizes["P"],
        ),
        regions=RegionConfig(feature_size=sizes["F"]),
        pair_feature="sum" if task == "entailment" else "product",
        role_types=sizes["R"],
        turn_types=sizes["U"],
    )


def _text_classifier(classes: int) -> list[Row]:
    name = f"cls_out_{classes}"
    return [
        Row("classifier.weight", (f"{name}_w",), "tensor", shape=("H", classes)),
        Row("classifier.bias", (f"{name}_b",), "tensor", shape=(classes,)),
    ]
