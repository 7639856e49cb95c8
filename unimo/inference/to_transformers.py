"""Write a model, or one of its towers, as a folder that transformers opens."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers
from tokenizers import AddedToken, processors

from unimo.config import coerce, read_yaml
from unimo.data.images.transforms import CLIP_MEAN, CLIP_STD, RECIPES
from unimo.data.tokenizers import SPECIAL_NAMES
from unimo.errors import CapabilityError, CheckpointError, nearest
from unimo.files import write_text
from unimo.inference.folders import check_replaceable, replacing_folder
from unimo.inference.loading import find_model, load
from unimo.inference.saving import CONFIG, WEIGHTS
from unimo.ranges import Depth, Words
from unimo.registry import paper_of, papers
from unimo.weights.files import read_safetensors, write_safetensors
from unimo.weights.huggingface import VIT
from unimo.weights.named import TOWERS, card_of, tower_of
from unimo.weights.to_huggingface import PORTS, Port, hf_config, read_tower_sizes, to_hf

if TYPE_CHECKING:
    from unimo.data.processor import Processor
    from unimo.data.tokenizers import Tokenizer
    from unimo.models.base import Model

logger = logging.getLogger(__name__)
THEIR_CONFIG, THEIR_IMAGES = "config.json", "preprocessor_config.json"
_BICUBIC = 3
"""Number of bicubic resampling in Pillow, and so in transformers."""
_READABLE = {"format": "pt"}
"""Header without which transformers does not open a file."""


def targets() -> list[str]:
    """Return the kinds of folders that can be written."""
    return [*PORTS, *sorted({name for paper in papers() for name in paper.exporters})]


def write_transformers(kind: str, path: str | Path, folder: str | Path) -> dict[str, Any]:
    """Write a folder with config.json and model.safetensors of transformers, and of a model also with its
    tokenizer and the preparation of images, where they belong to what is written.

    Args:
        kind: one of `targets()`: a tower, or a whole model.
        path: model directory, folder of a tower, or the name of either.
        folder: folder to write; an earlier one is replaced.

    Returns:
        `parameters`, `tensors` and the `class` of transformers.

    Raises:
        CapabilityError: the model has no such tower, or is no such model.
        CheckpointError: there is no such model, or the folder cannot be written.
    """
    if kind not in targets():
        raise CapabilityError(f"nothing is written as {kind!r}; {nearest(kind, targets())}")
    folder = check_replaceable(folder, (THEIR_CONFIG, WEIGHTS), "a folder of transformers")
    place, processor = _tower_folder(path), None
    if place is not None:
        content, tensors = _from_tower(kind, place)
    else:
        model, processor = load(path)
        content, tensors = _from_model(kind, model, find_model(path))
    with replacing_folder(folder) as fresh:
        write_text(fresh / THEIR_CONFIG, json.dumps(content, indent=1))
        write_safetensors(fresh / WEIGHTS, tensors, _READABLE)
        if processor is not None and {"vocab_size", "text_config"} & content.keys():
            _write_tokenizer(processor.tokenizer, fresh)
        if processor is not None and {"patch_size", "vision_config"} & content.keys():
            write_text(fresh / THEIR_IMAGES, json.dumps(_images(processor), indent=1))
    count = sum(tensor.size for tensor in tensors.values())
    return {"parameters": count, "tensors": len(tensors), "class": " or ".join(content["architectures"])}


def _tower_folder(path: str | Path) -> Path | None:
    """Return the folder of a tower; None if the path is, or names, a model."""
    card = card_of(path)
    folder = tower_of(card) if card is not None and card.part in TOWERS else Path(path)
    is_tower = (folder / CONFIG).is_file() and "tower" in read_yaml(folder / CONFIG)
    return folder if is_tower else None


def _from_tower(kind: str, folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    config = read_yaml(folder / CONFIG)
    port = PORTS.get(kind)
    if port is None or config["tower"] != port.source.tower:
        fitting = next((name for name, each in PORTS.items() if each.source.tower == config["tower"]), "none")
        raise CapabilityError(f"{folder} holds a {config['tower']} tower, not what {kind} is; --to {fitting}")
    lacking = [name for name in port.source.sizes if name not in config]
    if lacking:
        raise CheckpointError(f"{folder / CONFIG} lacks {', '.join(lacking)}; convert the tower again")
    sizes = {
        name: coerce(config[name], Depth if name == "num_layers" else Words, f"{folder / CONFIG}: {name}")
        for name in port.source.sizes
    }
    return hf_config(port, sizes), to_hf(port, read_safetensors(folder / WEIGHTS), sizes)


def _from_model(kind: str, model: Model, directory: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if kind in PORTS:
        return _tower_of(PORTS[kind], kind, model)
    exporters = paper_of(model.config.name).exporters
    if kind not in exporters:
        able = [name for paper in papers() if kind in paper.exporters for name in paper.sizes]
        raise CapabilityError(f"{model.config.name} is no model for {kind}; those are: {', '.join(able)}")
    return exporters[kind](model.config, read_safetensors(directory / WEIGHTS))


def _tower_of(port: Port, kind: str, model: Model) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    from unimo.weights.layers import tensors_of

    name = model.config.name
    for part in model.parts_to_load():
        wanted = tuple(port.source.shapes)[0]  # towers begin with words or a class token
        tensors = {key: x for key, x in tensors_of(part.layer).items() if not key.startswith(part.ignore)}
        if part.layer.tower_kind != port.source.tower or wanted not in tensors:
            continue
        _check_same(name, kind, port, part.layer)
        sizes = read_tower_sizes(port, tensors, part.layer.layers[0].attention.num_heads)
        return hf_config(port, sizes), to_hf(port, tensors, sizes)
    able = ", ".join(each.layer.tower_kind for each in model.parts_to_load()) or "none"
    raise CapabilityError(f"{name} has no {port.source.tower} tower for {kind}; towers that it has: {able}")


def _check_same(name: str, kind: str, port: Port, tower: Any) -> None:
    """Refuse towers that compute something else than that of transformers."""
    padding = port.source.fixed.get("pad_token_id")
    if padding is not None and tower.embeddings.padding_id != padding:
        given = tower.embeddings.padding_id
        raise CapabilityError(f"{name} has model.text.padding_id={given}, and {kind} knows only {padding}")
    if port.source is VIT and tower.patch_embedding.padding:
        raise CapabilityError(f"{name} pads its patches (model.vision.patch_padding), and {kind} does not")


def _write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, which adds special tokens itself, and what names them."""
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    vocabulary = backend.get_vocab(with_added_tokens=True)
    begin, padding, end, unknown, mask = names = tokenizer.special_names
    is_roberta = names == SPECIAL_NAMES[0]
    backend.add_special_tokens([*names[:4], AddedToken(mask, lstrip=is_roberta, special=True)])
    second = f"{end} $B {end}" if is_roberta else f"$B:1 {end}:1"
    backend.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} {second}",
        special_tokens=[(name, vocabulary[name]) for name in (begin, end)],
    )
    special = {"cls_token": begin, "pad_token": padding, "sep_token": end, "unk_token": unknown}
    special |= {"mask_token": mask, **({"bos_token": begin, "eos_token": end} if is_roberta else {})}
    write_text(folder / "tokenizer.json", backend.to_str())
    write_text(folder / "special_tokens_map.json", json.dumps(special, indent=1))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    write_text(folder / "tokenizer_config.json", json.dumps(config, indent=1))


def _images(processor: Processor) -> dict[str, Any]:
    """Return the preparation of images in evaluation, as transformers writes it."""
    side, recipe = processor.config.image_size, RECIPES[processor.config.eval_transform]
    square = {"height": side, "width": side}
    is_clip = recipe.statistics == "clip"
    content: Mapping[str, Any] = {
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "resample": _BICUBIC,
        "image_mean": CLIP_MEAN.tolist() if is_clip else [0.5] * 3,
        "image_std": CLIP_STD.tolist() if is_clip else [0.5] * 3,
    }
    if recipe.crop == "all":
        return {"image_processor_type": "ViTImageProcessor", "size": square, **content}
    crop = {"size": {"shortest_edge": int(side / recipe.kept)}, "do_center_crop": True, "crop_size": square}
    return {"image_processor_type": "CLIPImageProcessor", **crop, **content}
