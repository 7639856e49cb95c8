"""Attention between the words of a text and the parts of a picture (SemVLP, Fig. 4; UNIMO-3, Fig. 5).

A row of an attention is what one word or one part of the picture reads: its weights over everything that it
reads sum to 1. Two of the blocks of rows and columns are drawn: what words read of the picture, and what
parts of the picture read of the words. `Model.attention_axes` says where these blocks are.

In UNIMO-2 neither reads the other: they meet in the grounded tokens. Drawn is the way over them, the
attention to the grounded tokens times what these had read in the layer below. It is a share like any other.

Legend: W words, R parts of the picture (patches or regions), H heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Literal

import numpy as np
import paddle
from PIL import Image

from unimo.data.images.open import open_image
from unimo.data.images.transforms import build_cut
from unimo.data.processor import Processor
from unimo.errors import CapabilityError, ConfigError
from unimo.models.base import Model, Part
from unimo.nn.outputs import Encoded
from unimo.registry import paper_of

SIDE = 384
"""Longer side of the picture in pixels."""
MASKED = 1e-20
"""Weights below it are those of masks: softmax on a CPU leaves about exp(-64) of them."""
WORDS_SHOWN, PARTS_SHOWN = 12, 3
"""Largest numbers of words and parts that are drawn when none is chosen."""
Chosen = int | Literal["mean"]
"""Number of a layer or head, from 1, or the mean of all."""
Maps = dict[int, np.ndarray]
"""Layer, from 1 -> [H, rows, columns]."""


@dataclass(frozen=True)
class Attention:
    """Attention between the words and the parts of one picture in one model."""

    model: str
    """Title of the model."""
    chosen: str
    """Layers and heads."""
    picture: Image.Image
    """The picture as far as the model sees it."""
    boxes: np.ndarray
    """[R, 4] left, top, right, bottom of each part as shares of the picture."""
    grid: int
    """Patches in a row; 0 of regions."""
    words: tuple[str, ...]
    """As they are written; words that a long text lost are not there."""
    of_words: np.ndarray | None
    """[W, 1 + R] what each word reads of the picture, its class token (or [IMG]) first; None: nothing."""
    of_parts: np.ndarray | None
    """[R, W + 1] what each part reads of the words, and last of the special tokens; None: nothing."""
    over_grounded: bool = False
    """Both are the way over the grounded tokens."""

    def name(self, part: int) -> str:
        """Return the name of a part, from 0, as `find_part` takes it."""
        if self.grid:
            return f"patch {part // self.grid + 1},{part % self.grid + 1}"
        return f"region {part + 1}"


@dataclass(frozen=True)
class Selection:
    """Words and parts of the picture that are drawn of one model, by number from 0."""

    words: tuple[int, ...]
    """Those whose rows are drawn over the picture."""
    parts: tuple[int, ...]
    """Those whose rows are drawn over the words."""


def collect(
    title: str,
    model: Model,
    processor: Processor,
    image: str | Path,
    text: str,
    layer: Chosen = "mean",
    head: Chosen = "mean",
) -> Attention:
    """Run a model on a pair, and choose or average the layers and heads of its attentions.

    Args:
        title: title of the model.
        model: in evaluation mode.
        image: file of a picture; a model with stored regions finds them by its name.
        text: what is asked or said of it.

    Raises:
        CapabilityError: the model returns no attentions between text and picture.
        ConfigError: there is no such layer or head; or the processor reads other images than the model.
        RecordError: the picture cannot be decoded, or the text is empty.
    """
    name, other = model.config.name, {"regions": "pixels", "pixels": "regions"}[processor.image_key]
    if processor.image_key not in paper_of(name).capabilities:
        hint = "leave out data.regions" if other == "pixels" else "name some, e.g. data.regions=grid:2:16"
        raise ConfigError(f"{title} ({name}) reads {other} of pictures, not {processor.image_key}; {hint}")
    inputs = processor(images=str(image), texts=text)
    pictured, sizes, maps = _run(model, inputs, processor.image_key)
    of_words, over = read_between(model, maps, sizes, "text", "image")
    of_parts, over_too = read_between(model, maps, sizes, "image", "text")
    if not of_words and not of_parts:
        raise CapabilityError(
            f"{title} ({name}) returns no attentions between text and picture; give a model of "
            "another family, such as --model output/unimo3_tiny_pretrain"
        )
    word_of, words = processor.tokenizer.written_words(text, processor.config.max_text_len)
    belongs = np.array(word_of)[None] == np.arange(len(words))[:, None]  # [W, T]
    mean_of = belongs / belongs.sum(axis=1, keepdims=True)
    to_words = np.concatenate([belongs, np.array(word_of)[None] < 0]).astype(np.float32)
    grid = 0 if processor.image_key == "regions" else isqrt(sizes["image"] - 1)
    return Attention(
        model=title,
        chosen=_describe(of_words or of_parts, layer, head),
        picture=_open(image, processor),
        boxes=pictured["locations"].numpy()[0, :, :4] if not grid else grid_boxes(grid),
        grid=grid,
        words=tuple(words),
        of_words=mean_of @ choose(of_words, layer, head, title) if of_words else None,
        of_parts=choose(of_parts, layer, head, title)[1:] @ to_words.T if of_parts else None,
        over_grounded=over or over_too,
    )


def _run(
    model: Model, inputs: Mapping[str, np.ndarray | Mapping[str, np.ndarray]], image_key: str
) -> tuple[Mapping[str, paddle.Tensor], dict[Part, int], Mapping[str, np.ndarray]]:
    """Return the regions (nothing of pixels), the number of rows of each part, and all attentions."""
    images = inputs[image_key]
    is_pixels = isinstance(images, np.ndarray)
    tensors = paddle.to_tensor(images) if is_pixels else {k: paddle.to_tensor(v) for k, v in images.items()}
    ids, mask = (paddle.to_tensor(inputs[key]) for key in ("input_ids", "attention_mask"))
    with paddle.no_grad():
        text, image = model.encode_text(ids, mask), model.encode_image(tensors)
        fused: Encoded = model.fuse(text, image, attentions=True)
    sizes: dict[Part, int] = {"image": image.image.shape[1], "text": text.text.shape[1]}
    if fused.grounded_ids is not None:
        sizes["grounded"] = fused.grounded_ids.shape[1]
    maps = {name: weights.astype("float32").numpy() for name, weights in fused.attentions.items()}
    return {} if is_pixels else tensors, sizes, maps


def read_between(
    model: Model, maps: Mapping[str, np.ndarray], sizes: Mapping[Part, int], query: Part, key: Part
) -> tuple[Maps, bool]:
    """Return what rows of one part read of another in each layer, and whether over grounded tokens.

    Over grounded tokens a head of a layer goes on with the mean of the heads of the layer below; the lowest
    layer has nothing below it and is left out. Nothing at all is returned of parts that never meet.

    Args:
        maps: attentions [1, H, queries, keys] of `fuse`.
        sizes: number of rows of each part.
    """
    direct = _cut_all(model, maps, sizes, query, key)
    if direct or query == key or not sizes.get("grounded"):
        return direct, False
    first = _cut_all(model, maps, sizes, query, "grounded")
    below = _cut_all(model, maps, sizes, "grounded", key)
    return {
        layer: weights @ below[layer - 1].mean(axis=0)
        for layer, weights in first.items()
        if layer - 1 in below
    }, True


def _cut_all(
    model: Model, maps: Mapping[str, np.ndarray], sizes: Mapping[Part, int], query: Part, key: Part
) -> Maps:
    """Cut the block of two parts out of the attentions that have it; a masked one is none."""
    found = {}
    for name, weights in maps.items():
        kind, _, layer = name.rpartition(".")
        block = model.attention_axes[kind].cut(weights, sizes, query, key)
        if block is not None and block.size and block.max() > MASKED:
            found[int(layer)] = block[0]
    return found


def choose(maps: Maps, layer: Chosen, head: Chosen, title: str) -> np.ndarray:
    """Return the weights [rows, columns] of a layer and head, or the mean of all.

    Raises:
        ConfigError: there is no such layer or head; says which there are.
    """
    layers, heads = sorted(maps), len(maps[min(maps)])
    if layer != "mean" and layer not in maps:
        raise ConfigError(f"--layer {layer}: {title} has {_span(layers)}, or mean")
    if head != "mean" and not 1 <= head <= heads:
        raise ConfigError(f"--head {head}: {title} has heads 1 to {heads}, or mean")
    stacked = np.stack([maps[number] for number in (layers if layer == "mean" else [layer])])
    return (stacked.mean(axis=1) if head == "mean" else stacked[:, head - 1]).mean(axis=0)


def _describe(maps: Maps, layer: Chosen, head: Chosen) -> str:
    layers, heads = sorted(maps), len(maps[min(maps)])
    which = f"mean of {_span(layers)}" if layer == "mean" and len(layers) > 1 else f"layer {layer}"
    if layer == "mean" and len(layers) == 1:
        which = _span(layers)
    return f"{which}, {f'mean of {heads} heads' if head == 'mean' else f'head {head} of {heads}'}"


def _span(layers: Sequence[int]) -> str:
    return f"layers {layers[0]} to {layers[-1]}" if len(layers) > 1 else f"layer {layers[0]}"


def grid_boxes(grid: int) -> np.ndarray:
    """Return the boxes [R, 4] of the patches of a square grid, row by row, as shares of the picture."""
    y, x = np.divmod(np.arange(grid**2), grid)
    return np.stack([x, y, x + 1, y + 1], axis=1) / grid


def _open(image: str | Path, processor: Processor) -> Image.Image:
    """Open the part of a picture that the model sees, at a size to look at."""
    opened = open_image(Path(image), SIDE)
    if processor.image_key == "pixels":
        return build_cut(processor.config.eval_transform, SIDE)(opened, np.random.default_rng(0))
    scale = SIDE / max(opened.size)
    return opened.resize([max(1, round(side * scale)) for side in opened.size])


def select(
    attentions: Sequence[Attention],
    word: str | None = None,
    patch: tuple[int, int] | None = None,
    region: int | None = None,
) -> list[Selection]:
    """Choose what is drawn of each model: what is given, or the strongest words and parts.

    Args:
        word: a word as it is written, or its number from 1.
        patch: row and column of a patch, from 1, in the picture of the first model.
        region: number of a region, from 1, of the first model.

    Raises:
        ConfigError: there is no such word or part.
    """
    first = attentions[0]
    if word is None and patch is None and region is None:
        parts = strongest_parts(first, PARTS_SHOWN)
        words = [strongest_words(first if each.words == first.words else each) for each in attentions]
    else:
        parts = [] if patch is None and region is None else [find_part(first, patch, region)]
        words = [[] if word is None else [find_word(each, word)] for each in attentions]
    return [
        Selection(tuple(chosen), tuple(nearest_part(each, first, part) for part in parts))
        for each, chosen in zip(attentions, words, strict=True)
    ]


def find_word(attention: Attention, word: str) -> int:
    """Return the number, from 0, of a word that is given as it is written or by its number from 1.

    Raises:
        ConfigError: it is not in the text.
    """
    lowered = [each.lower() for each in attention.words]
    if word.lower() in lowered:
        return lowered.index(word.lower())
    if word.isdecimal() and 1 <= int(word) <= len(lowered):
        return int(word) - 1
    known = ", ".join(f"{number} {each}" for number, each in enumerate(attention.words, start=1))
    raise ConfigError(f"--word {word}: {attention.model} reads the words {known}; give one of them")


def find_part(attention: Attention, patch: tuple[int, int] | None, region: int | None) -> int:
    """Return the number, from 0, of a patch given by row and column from 1, or else of a region from 1.

    Raises:
        ConfigError: the picture has no such part, or both are given.
    """
    grid, count, model = attention.grid, len(attention.boxes), attention.model
    given = f"--region {region}" if patch is None else f"--patch {patch[0]},{patch[1]}"
    if patch is not None and region is not None:
        raise ConfigError(f"{given} and --region {region}: expected one of them")
    if patch is not None and grid and all(1 <= number <= grid for number in patch):
        return (patch[0] - 1) * grid + patch[1] - 1
    if region is not None and not grid and 1 <= region <= count:
        return region - 1
    if grid:
        raise ConfigError(f"{given}: {model} reads patches in rows and columns 1 to {grid}; try --patch 1,1")
    raise ConfigError(f"{given}: {model} reads regions 1 to {count}; try --region 1")


def nearest_part(attention: Attention, other: Attention, part: int) -> int:
    """Return the part whose centre is nearest to that of a part of another model's picture."""
    middles, middle = (
        (boxes[..., :2] + boxes[..., 2:]) / 2 for boxes in (attention.boxes, other.boxes[part])
    )
    return int(((middles - middle) ** 2).sum(axis=1).argmin())


def strongest_parts(attention: Attention, count: int) -> list[int]:
    """Return the parts with the largest weights on words, each on another word, strongest first."""
    if attention.of_parts is None:
        return []
    weights = attention.of_parts[:, :-1]
    parts: list[int] = []
    words: list[int] = []
    for flat in np.argsort(-weights, axis=None, kind="stable"):
        part, word = divmod(int(flat), weights.shape[1])
        if len(parts) < count and part not in parts and word not in words and is_word(attention.words[word]):
            parts.append(part)
            words.append(word)
    return parts


def strongest_words(attention: Attention) -> list[int]:
    """Return the words, without punctuation, or the strongest of many, in the order of the text."""
    words = [number for number, word in enumerate(attention.words) if is_word(word)]
    if attention.of_words is not None:
        words.sort(key=lambda number: -attention.of_words[number, 1:].max())
    return sorted(words[:WORDS_SHOWN])


def strongest_word(attention: Attention, words: Sequence[int]) -> int:
    """Return the one of some words that has the largest weight on a part of the picture."""
    if attention.of_words is None:
        return words[0]
    return max(words, key=lambda number: attention.of_words[number, 1:].max())


def is_word(text: str) -> bool:
    """Return whether a text has a letter or digit, and is not only punctuation."""
    return any(character.isalnum() for character in text)
