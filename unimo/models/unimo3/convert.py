"""Convert the weights that METER's and BridgeTower's authors released, or Hugging Face's port; and back.

The name map is data, sizes are read from the shapes. Heads of attention are 64 wide in all releases, which
shapes do not show. The task of the model directory decides which heads are taken (`convert_heads.py`). Needs
no Paddle.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from unimo.config import merge_into
from unimo.errors import CheckpointError, ConfigError
from unimo.models.unimo3.config import Config, FusionConfig, TextConfig, VisionConfig
from unimo.models.unimo3.convert_heads import (
    CONTRAST,
    LEFT_OUT,
    PORTED_CONTRAST,
    RANKING,
    TASK_HEADS,
    Heads,
    heads_of,
)
from unimo.weights.name_map import Converted, Row, Spelling, Tensors, clip_layer_rows, expand, row, split
from unimo.weights.released import Folder, num_heads

SPELLING = Spelling(linear=(".weight", ".bias"), norm=(".weight", ".bias"), is_turned=True)
_BUFFER = re.compile(r"\.(position_ids|token_type_ids)$")


@dataclass(frozen=True)
class Release:
    """Names of one family of files."""

    name: str
    advice: str
    """File to give, for messages."""
    text: str
    """Prefix of the text tower."""
    vision: str
    """Prefix of the vision tower."""
    embeddings: tuple[str, str, str]
    """Names, after `vision`, of the class embedding, the positions and the patches' weights."""
    is_linked: bool
    """Whether fusion layers read tower layers (BridgeTower); METER's do not."""
    retrieval: Heads
    """Heads of a file that was fine-tuned for retrieval."""
    vector: Literal["tower", "projected"] = "tower"
    """Vector of an image in contrast, as of the config."""
    epsilon: float = 1e-12
    """Epsilon of the norms in co-attention layers and in the MLM head."""


METER = Release(
    name="METER",
    advice="a file meter_clip16_{224,288}_roberta_*.ckpt of the release, saved as safetensors",
    text="text_transformer.",
    vision="vit_model.visual.",
    embeddings=("class_embedding", "positional_embedding", "conv1.weight"),
    is_linked=False,
    retrieval=RANKING,
)
BRIDGETOWER = replace(
    METER,
    name="BridgeTower",
    advice="a file BridgeTower_*.ckpt of the release, saved as safetensors",
    is_linked=True,
    retrieval=CONTRAST,
)
HF_BRIDGETOWER = Release(
    name="BridgeTower (Hugging Face)",
    advice="model.safetensors of a repository BridgeTower/bridgetower-*",
    text="text_model.",
    vision="vision_model.visual.",
    embeddings=tuple(
        f"embeddings.{part}"
        for part in ("class_embedding", "position_embedding.weight", "patch_embedding.weight")
    ),
    is_linked=True,
    retrieval=PORTED_CONTRAST,
    vector="projected",
    epsilon=1e-5,
)

# T, U, F widths of text, vision and fusion; TI, UI, FI their inner widths; V words, P positions of texts,
# G rows of the image's positions, p patch, Y types.
_MINE, _BLOCK, _LAYER = "{i}.", "transformer.resblocks.{i}.", "encoder.layer.{i}."


def _text_core(prefix: str) -> tuple[Row, ...]:
    words = f"{prefix}embeddings."
    return (
        row(
            "tensor", "model.text.embeddings.word.weight", f"{words}word_embeddings.weight", shape=("V", "T")
        ),
        row(
            "tensor",
            "model.text.embeddings.position.weight",
            f"{words}position_embeddings.weight",
            shape=("P", "T"),
        ),
        row(
            "tensor",
            "model.text.embeddings.token_type.weight",
            f"{words}token_type_embeddings.weight",
            shape=(1, "T"),
        ),
        row("norm", "model.text.embeddings.norm", f"{words}LayerNorm", shape=("T",)),
    )


def _attention(ours: str, theirs: str, width: str, parts: Sequence[str]) -> Row:
    return row("linear", ours, *(f"{theirs}.self.{part}" for part in parts), shape=(width, width))


def _bert_layer(ours: str, theirs: str, width: str) -> tuple[Row, ...]:
    """Return the rows of a layer that is called as BERT's, except cross-attention."""
    inner = f"{width}I"
    return (
        _attention(f"{ours}attention.qkv", f"{theirs}attention", width, ("query", "key", "value")),
        row("linear", f"{ours}attention.out", f"{theirs}attention.output.dense", shape=(width, width)),
        row("norm", f"{ours}attention_norm", f"{theirs}attention.output.LayerNorm", shape=(width,)),
        row("linear", f"{ours}mlp.fc1", f"{theirs}intermediate.dense", shape=(inner, width)),
        row("linear", f"{ours}mlp.fc2", f"{theirs}output.dense", shape=(width, inner)),
        row("norm", f"{ours}mlp_norm", f"{theirs}output.LayerNorm", shape=(width,)),
    )


def _cross_layer(stream: str) -> tuple[Row, ...]:
    ours, theirs = f"model.fusion.{stream}_layers.{_MINE}", f"cross_modal_{stream}_layers.{_MINE}"
    cross = f"{theirs}crossattention"
    return (
        *_bert_layer(ours, theirs, "F"),
        _attention(f"{ours}cross_attention.q", cross, "F", ("query",)),
        _attention(f"{ours}cross_attention.kv", cross, "F", ("key", "value")),
        row("linear", f"{ours}cross_attention.out", f"{cross}.output.dense", shape=("F", "F")),
        row("norm", f"{ours}cross_norm", f"{cross}.output.LayerNorm", shape=("F",)),
    )


TASKS = (*TASK_HEADS, "retrieval")
"""Tasks of the model directories that can be made."""


def core_rows(release: Release, depths: Mapping[str, int]) -> list[Row]:
    """Return one row for each tensor of the network; `depths` are those of text, vision and fusion."""
    vision, (token, positions, patches) = release.vision, release.embeddings
    rows = [
        *expand(_text_core(release.text), 1, SPELLING),
        *expand(
            _bert_layer(f"model.text.layers.{_MINE}", release.text + _LAYER, "T"), depths["text"], SPELLING
        ),
        row("tensor", "model.vision.class_embedding", vision + token, shape=("U",)),
        row("tensor", "model.vision.position_embedding", vision + positions, shape=("G", "U")),
        row("tensor", "model.vision.patch_embedding.weight", vision + patches, shape=("U", 3, "p", "p")),
        *expand(clip_layer_rows(f"model.vision.layers.{_MINE}", vision + _BLOCK), depths["vision"], SPELLING),
    ]
    single = [
        row("linear", "model.text.pooler", f"{release.text}pooler.dense", shape=("T", "T")),
        row("norm", "model.vision.ln_pre", f"{vision}ln_pre", shape=("U",)),
        row("norm", "model.vision.ln_post", f"{vision}ln_post", shape=("U",)),
        row("tensor", "model.type_embedding.weight", "token_type_embeddings.weight", shape=("Y", "F")),
    ]
    for stream, width in (("text", "T"), ("image", "U")):
        theirs, norms = f"cross_modal_{stream}_", f"model.fusion.{stream}_links.norms."
        single += [
            row("linear", f"model.{stream}_transform", f"{theirs}transform", shape=("F", width)),
            row("linear", f"model.{stream}_pooler.dense", f"{theirs}pooler.dense", shape=("F", "F")),
        ]
        rows += expand(_cross_layer(stream), depths["fusion"], SPELLING)
        if release.is_linked:
            links = [f"{theirs}layernorm"]
            links += [f"{theirs}link_tower.{i}.LayerNorm" for i in range(depths["fusion"] - 1)]
            single += [row("norm", f"{norms}{i}", name, shape=("F",)) for i, name in enumerate(links)]
    return rows + expand(single, 1, SPELLING)


def _depths(release: Release, names: Sequence[str]) -> dict[str, int]:
    """Count the layers of each part; at least one, so that an absent part is reported by its names."""
    prefixes = {
        "text": f"{release.text}encoder.layer.",
        "vision": f"{release.vision}transformer.resblocks.",
        "fusion": "cross_modal_text_layers.",
    }
    found = {}
    for part, prefix in prefixes.items():
        pattern = re.compile(rf"{re.escape(prefix)}(\d{{1,3}})\.")
        found[part] = 1 + max((int(match[1]) for name in names if (match := pattern.match(name))), default=0)
    return found


def converter(release: Release) -> Callable[..., Converted]:
    """Return the converter of one family of files, for `Paper.converters`."""

    def convert(
        tensors: Tensors,
        where: str = "the file",
        task: str = "pretrain",
        given: Mapping[str, Any] = MappingProxyType({}),
    ) -> Converted:
        return from_release(release, tensors, where, task, given)

    return convert


def from_release(
    release: Release, tensors: Tensors, where: str, task: str, given: Mapping[str, Any]
) -> Converted:
    """Convert released tensors to ours, with the config that they need.

    Args:
        release: whose names they have.
        tensors: tensors by their names.
        where: path of the file, for messages.
        task: task of the model directory, one of `TASKS`.
        given: fields of the model section; numbers of heads cannot be read from tensors.

    Raises:
        ConfigError: another task.
        CheckpointError: names what is missing, unknown or mis-shaped.
    """
    if task not in TASKS:
        raise ConfigError(
            f"no weights of {release.name} can be converted for {task!r}; known: {', '.join(TASKS)}"
        )
    bare = {
        name.removeprefix("bridgetower."): tensor
        for name, tensor in tensors.items()
        if not _BUFFER.search(name)
    }
    folder = Folder(bare, where, release.name, release.advice)
    depths = _depths(release, list(bare))
    rows = core_rows(release, depths)
    has_pooler = f"{release.text}pooler.dense.weight" in bare
    if not has_pooler:
        rows = [entry for entry in rows if not entry.ours.startswith("model.text.pooler.")]
    wanted = heads_of(task, release.retrieval, bare)
    heads, absent = folder.head_rows(wanted, () if task == "pretrain" else tuple(wanted), SPELLING)
    sizes = _sizes(folder, release, wanted)
    ours = folder.rename([*rows, *heads], sizes, LEFT_OUT)
    config = merge_into(_config(release, sizes, depths, has_pooler, given), dict(given), "model")
    data = {"image_size": config.vision.image_size}
    classes = sizes["K"] if task == "vqa" else 0
    return Converted(config, ours, data, absent, _task_fields(task, sizes), classes=classes)


def _task_fields(task: str, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Return the task section that the heads need."""
    if task == "retrieval":
        loss = {"loss": "itc_itm", "itc_size": sizes["E"]} if "E" in sizes else {"loss": "cross_entropy"}
        return {"name": task, **loss}
    return {"name": task, **({"head_hidden_multiplier": sizes["D"] / sizes["F"]} if "D" in sizes else {})}


def to_release(release: Release, ours: Tensors, task: str = "pretrain") -> dict[str, np.ndarray]:
    """Return our tensors under the names and in the shapes of the release; the inverse of `from_release`."""
    depths = {
        part: len({name.split(".")[3] for name in ours if name.startswith(f"model.{layers}.")})
        for part, layers in (
            ("text", "text.layers"),
            ("vision", "vision.layers"),
            ("fusion", "fusion.text_layers"),
        )
    }
    heads = [entry for part in heads_of(task, release.retrieval, ours).values() for entry in part]
    theirs = {}
    for entry in [*core_rows(release, depths), *expand(heads, 1, SPELLING)]:
        if entry.ours in ours:
            theirs |= split(entry, ours[entry.ours])
    return theirs


def _sizes(folder: Folder, release: Release, heads: Heads) -> dict[str, int]:
    """Return the size of each symbol of rows.

    Raises:
        CheckpointError: this is no such release.
    """
    text, vision, (_, positions, patches) = release.text, release.vision, release.embeddings
    measured: dict[str, tuple[str | int, ...]] = {
        f"{text}embeddings.word_embeddings.weight": ("V", "T"),
        f"{text}embeddings.position_embeddings.weight": ("P", "T"),
        f"{text}encoder.layer.0.intermediate.dense.weight": ("TI", "T"),
        vision + patches: ("U", 3, "p", "p"),
        vision + positions: ("G", "U"),
        f"{vision}transformer.resblocks.0.mlp.c_fc.weight": ("UI", "U"),
        "token_type_embeddings.weight": ("Y", "F"),
        "cross_modal_text_layers.0.intermediate.dense.weight": ("FI", "F"),
    }
    for entry in (entry for part in ("classifier", "itc_text_head") for entry in heads.get(part, ())):
        if entry.kind == "linear":
            measured[f"{entry.theirs[0]}.weight"] = entry.shape
    sizes = folder.sizes(measured)
    wide = {"3U": 3 * sizes["U"], "2F": 2 * sizes["F"], "4F": 4 * sizes["F"]}
    return sizes | wide


def _config(
    release: Release,
    sizes: Mapping[str, int],
    depths: Mapping[str, int],
    has_pooler: bool,
    given: Mapping[str, Any],
) -> Config:
    """Return the release's own settings.

    Raises:
        CheckpointError: a picture that is no square, or an unknown number of heads.
    """
    side = round((sizes["G"] - 1) ** 0.5)
    if side**2 != sizes["G"] - 1 or sizes["Y"] not in (2, 3):
        raise CheckpointError(
            f"{sizes['G']} positions of images and {sizes['Y']} types; expected one and a square of patches, "
            f"and 2 or 3 types; give {release.advice}"
        )
    remove = 0 if release.is_linked else 1
    name, links = "meter_base", {"link_range": "none"}
    if release.is_linked:
        name = "bridgetower_large" if sizes["F"] == 1024 else "bridgetower_base"
        links = {"link_range": "bridge", "gate_dim": "none", "first_layer_gate": False}
    return Config(
        name=name,
        text=TextConfig(
            vocab_size=sizes["V"],
            max_position=sizes["P"],
            hidden_size=sizes["T"],
            num_layers=depths["text"],
            num_heads=num_heads(sizes["T"], given, "text", release.advice),
            intermediate_size=sizes["TI"],
            pooler=has_pooler,
        ),
        vision=VisionConfig(
            image_size=side * sizes["p"],
            patch_size=sizes["p"],
            hidden_size=sizes["U"],
            num_layers=depths["vision"] + remove,
            num_heads=num_heads(sizes["U"], given, "vision", release.advice),
            intermediate_size=sizes["UI"],
            remove_last=remove,
            types=sizes["Y"] - 1,
            vector=release.vector,
        ),
        fusion=FusionConfig(
            hidden_size=sizes["F"],
            num_layers=depths["fusion"],
            num_heads=num_heads(sizes["F"], given, "fusion", release.advice),
            intermediate_size=sizes["FI"],
            epsilon=release.epsilon,
            **links,
        ),
    )
