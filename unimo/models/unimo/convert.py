"""Convert the weights that Baidu released for UNIMO, or that their fine-tuning saved.

The name map is data, and sizes are read from the shapes. The task of the model directory decides which head
is taken; the others are left out. Needs no Paddle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from unimo.errors import CheckpointError, ConfigError
from unimo.models.unimo.config import Config, RegionConfig
from unimo.nn.config import TextConfig
from unimo.weights.name_map import Converted, Row, Tensors, expand, row
from unimo.weights.released import SPELLING, Folder, Heads, language_head_rows, layer_rows, num_heads

ADVICE = "the folder that unimo_base_en.tar.gz or another of its archives unpacks to"
"""Folder that error messages ask for."""

# H width, I inner width, V words, P positions, F width of a region feature.
MEASURED: Mapping[str, tuple[str, ...]] = {
    "word_embedding": ("V", "H"),
    "pos_embedding": ("P", "H"),
    "image_emb.w_0": ("F", "H"),
    "encoder_layer_0_ffn_fc_0.w_0": ("H", "I"),
}
_TEXT = "model.transformer.embeddings"
CORE: tuple[Row, ...] = (
    row("tensor", f"{_TEXT}.word.weight", "word_embedding", shape=("V", "H")),
    row("tensor", f"{_TEXT}.position.weight", "pos_embedding", shape=("P", "H")),
    row("norm", f"{_TEXT}.norm", "pre_encoder_layer_norm", shape=("H",)),
    row("linear", "model.regions.feature", "image_emb", shape=("F", "H")),
    row("linear", "model.regions.location", "image_loc", shape=(5, "H")),
    row("norm", "model.regions.norm", "v_pre_encoder_layer_norm", shape=("H",)),
    *layer_rows("model.transformer", "", "post"),
)
# Parts of our model that a folder may lack; they then start at random.
PARTS: Heads = {
    "model.text_pooler": (row("linear", "model.text_pooler.dense", "pooled_fc_text", shape=("H", "H")),),
    "model.image_pooler": (row("linear", "model.image_pooler.dense", "pooled_fc_image", shape=("H", "H")),),
    "model.match_head": (row("linear", "model.match_head", "match_fc", shape=("H", 1)),),
}
# Parts that our model has only for dialogues: R roles, U turns.
DIALOGUE: Heads = {
    "model.roles": (row("tensor", "model.roles.weight", "role_embedding", shape=("R", "H")),),
    "model.turns": (row("tensor", "model.turns.weight", "turn_embedding", shape=("U", "H")),),
}
# D is the inner width.
_ENTAILMENT = (
    row("tensor", "classifier.dense.weight", "cls_out_w_0", shape=("H", "D")),
    row("tensor", "classifier.dense.bias", "cls_out_b_0", shape=("D",)),
    row("tensor", "classifier.out.weight", "cls_out_w_1", shape=("D", 3)),
    row("tensor", "classifier.out.bias", "cls_out_b_1", shape=(3,)),
)
_TEXT_CLASSIFIER = re.compile(r"cls_out_(\d+)_w")
DATASETS: Mapping[int, str] = {1: "stsb", 2: "sst2", 3: "mnli"}
"""Classes of a text classifier -> default of `task.dataset` (CoLA has 2 classes, too)."""
LANGUAGE: Mapping[str, str] = {"pretrain": "objective.mlm_head", "caption": "lm_head", "seq2seq": "lm_head"}
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


def from_release(
    tensors: Tensors,
    where: str = "the folder",
    task: str = "pretrain",
    given: Mapping[str, Any] = MappingProxyType({}),
) -> Converted:
    """Convert released tensors to ours, with the config that they need; what is left out is logged.

    Heads may be absent for pre-training only.

    Args:
        tensors: tensors by their names, as `unimo.weights.files.open_tensors` returns them.
        where: path of the folder, for messages.
        task: task of the model directory, a key of `REQUIRED`.
        given: fields of the model section; `text.num_heads` cannot be read from tensors.

    Raises:
        ConfigError: another task.
        CheckpointError: names what is missing, unknown or mis-shaped.
    """
    if task not in REQUIRED:
        raise ConfigError(f"no released weights of UNIMO are for {task!r}; known: {', '.join(REQUIRED)}")
    folder = Folder(tensors, where, "UNIMO", ADVICE)
    sizes = folder.sizes(MEASURED)
    sizes["D"] = tensors["cls_out_b_0"].size if "cls_out_b_0" in tensors else 2048
    for symbol, name in (("R", "role_embedding"), ("U", "turn_embedding")):
        sizes[symbol] = len(tensors[name]) if name in tensors else 0
    rows = expand(CORE, folder.depth(""), SPELLING) + folder.head_rows(DIALOGUE)[0]
    language = LANGUAGE.get(task)
    language_head = {language: language_head_rows(language, "")} if language else {}
    heads, absent = folder.head_rows({**PARTS, **language_head}, REQUIRED[task])
    rows += heads
    if language and language not in absent:
        rows.append(folder.output_matrix_row(language, "", "word_embedding"))
    fields: dict[str, Any] = {"name": task}
    if task == "text_classification":
        classes = _classes(folder)
        fields["dataset"] = DATASETS[classes]
        rows += [
            row("tensor", "classifier.weight", f"cls_out_{classes}_w", shape=("H", classes)),
            row("tensor", "classifier.bias", f"cls_out_{classes}_b", shape=(classes,)),
        ]
    if task == "entailment":
        rows += _ENTAILMENT
        fields |= {"head": "linear", "head_hidden_multiplier": sizes["D"] / sizes["H"]}
    if task == "seq2seq":
        fields |= {"end_token": "mask", "dialog": sizes["R"] > 0}
    ours = folder.rename(rows, sizes, LEFT_OUT)
    config = _release_config(sizes, folder.depth(""), task, given)
    data = {"max_text_len": config.text.longest} if task == "pretrain" else {}
    return Converted(config, ours, data, absent, fields)


def _classes(folder: Folder) -> int:
    """Return the number of outputs of the one text classifier in a folder.

    Raises:
        CheckpointError: there is none, there are several, or no data set has that number of classes.
    """
    matches = map(_TEXT_CLASSIFIER.fullmatch, folder.tensors)
    found = sorted(int(match[1]) for match in matches if match)
    if len(found) != 1 or found[0] not in DATASETS:
        names = ", ".join(f"cls_out_{count}_w" for count in found) or "none"
        raise CheckpointError(
            f"{folder.where}: text classifiers: {names}; expected one of cls_out_1_w (STS-B), cls_out_2_w "
            "(SST-2, CoLA) and cls_out_3_w (MNLI). Move the others to another folder, or choose another "
            "--task"
        )
    return found[0]


def _release_config(sizes: Mapping[str, int], num_layers: int, task: str, given: Mapping[str, Any]) -> Config:
    """Return the release's own settings for a task; pooled vectors are added for SNLI-VE, else multiplied.

    Raises:
        CheckpointError: see `num_heads`.
    """
    width = sizes["H"]
    return Config(
        name="unimo_large" if width == 1024 else "unimo_base",
        text=TextConfig(
            hidden_size=width,
            num_heads=num_heads(width, given, "text", ADVICE),
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
