"""Towers of PaddleNLP (texts) and PaddleClas (images), by the names of these libraries or from files.

Both libraries are optional. They know names, addresses and configs, and keep what they download in their own
caches. Files are read by `unimo.weights.files`, which runs nothing in them; their own readers unpickle.

PaddleClas applies the exact GELU in CLIP's blocks, whose weights were trained with QuickGELU; the tower here
applies QuickGELU. Its ViT adds 1e-6 to variances, the tower here 1e-12, as Hugging Face's does to the same
weights.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

from unimo.errors import CheckpointError, ConfigError, nearest
from unimo.weights.files import open_tensors
from unimo.weights.huggingface import (
    BERT,
    CLIP_VISION,
    ROBERTA,
    VIT,
    Source,
    from_hf,
    read_sizes,
    write_tower,
)
from unimo.weights.name_map import Row, Spelling, Tensors, row
from unimo.weights.report import Report

SPELLING = Spelling(linear=(".weight", ".bias"), norm=(".weight", ".bias"), is_turned=False)
HEAD_SIZE = 64
"""Width of an attention head in every model of PaddleClas that fits, which files do not tell."""
_WEIGHTS = ("model_state.pdparams", "model.safetensors")
_OUR = "layers.{i}."
_NLP = "encoder.layers.{i}."
_CLAS = "blocks.{i}."

_NLP_ROWS = (
    *ROBERTA.rows[:3],  # the three tables
    row("norm", "embeddings.norm", "embeddings.layer_norm"),
    row("linear", f"{_OUR}attention.qkv", *(f"{_NLP}self_attn.{part}_proj" for part in "qkv")),
    row("linear", f"{_OUR}attention.out", f"{_NLP}self_attn.out_proj"),
    row("norm", f"{_OUR}attention_norm", f"{_NLP}norm1"),
    row("linear", f"{_OUR}mlp.fc1", f"{_NLP}linear1"),
    row("linear", f"{_OUR}mlp.fc2", f"{_NLP}linear2"),
    row("norm", f"{_OUR}mlp_norm", f"{_NLP}norm2"),
)
NLP_ROBERTA = replace(ROBERTA, rows=(*_NLP_ROWS, ROBERTA.rows[-1]), spelling=SPELLING)
NLP_BERT = replace(BERT, rows=(*_NLP_ROWS, BERT.rows[-1]), spelling=SPELLING)


def _vision_rows(patches: str) -> tuple[Row, ...]:
    """Return the rows that CLIP and ViT share; `patches` is the kind of the projection of patches."""
    return (
        row("batch", "class_embedding", "cls_token"),
        row("batch", "position_embedding", "pos_embed"),
        row("norm", "patch_embedding", "patch_embed.proj")
        if patches == "norm"
        else row("tensor", "patch_embedding.weight", "patch_embed.proj.weight"),
        row("linear", f"{_OUR}attention.qkv", f"{_CLAS}attn.qkv"),
        row("linear", f"{_OUR}attention.out", f"{_CLAS}attn.proj"),
        row("norm", f"{_OUR}attention_norm", f"{_CLAS}norm1"),
        row("linear", f"{_OUR}mlp.fc1", f"{_CLAS}mlp.fc1"),
        row("linear", f"{_OUR}mlp.fc2", f"{_CLAS}mlp.fc2"),
        row("norm", f"{_OUR}mlp_norm", f"{_CLAS}norm2"),
        row("norm", "ln_post", "norm"),
    )


CLAS_CLIP = replace(
    CLIP_VISION,
    prefix="",
    rows=(*_vision_rows("tensor"), row("norm", "ln_pre", "ln_pre")),
    around=("proj", "head."),
    spelling=SPELLING,
)
CLAS_VIT = replace(VIT, prefix="", rows=_vision_rows("norm"), around=("head.",), spelling=SPELLING)


def convert_zoo(library: str, given: str, folder: Path) -> Report:
    """Convert a tower of a library, and write it as `load_tower` reads it.

    That of PaddleNLP comes with its tokenizer, in the folder `tokenizer` inside.

    Args:
        library: a key of `LIBRARIES`.
        given: name that the library knows, or for paddlenlp a folder that it saved, for paddleclas a file.
        folder: folder to write.

    Raises:
        ConfigError: the library is not installed, does not know the name or cannot download, or our towers
            do not support the model.
        CheckpointError: the weights cannot be read or do not fit, or the folder cannot be written.
    """
    return LIBRARIES[library](given, folder)


def _from_paddlenlp(given: str, folder: Path) -> Report:
    transformers = _library("paddlenlp.transformers")
    _library("paddlenlp.utils.log").logger.set_level("ERROR")
    here = Path(given).is_dir()
    home = _library("paddlenlp.utils.env").MODEL_HOME
    where = (
        "a folder that the model's and the tokenizer's save_pretrained wrote has config.json, one of "
        f"{', '.join(_WEIGHTS)}, and the tokenizer's files"
        if here
        else f"is it a name such as bert-base-uncased or roberta-base? Without a network, put config.json, "
        f"{_WEIGHTS[0]} and the tokenizer's files into {home}/{given}, or into a folder for --input"
    )
    try:
        config = transformers.AutoConfig.from_pretrained(given)
    except Exception as error:  # the library raises nearly anything
        raise ConfigError(f"PaddleNLP found no config of {given}; {where}") from error
    kinds = {transformers.BertConfig: NLP_BERT, transformers.RobertaConfig: NLP_ROBERTA}
    source = kinds.get(type(config))
    if source is None:
        raise ConfigError(
            f"{given} is a model of {type(config).__name__}; expected BERT or RoBERTa. ERNIE has token "
            "types, tasks or a ReLU that no tower here has"
        )
    sizes = read_sizes(source, vars(config))
    models = {NLP_BERT.tower: transformers.BertModel, NLP_ROBERTA.tower: transformers.RobertaModel}
    table = models[source.tower].pretrained_resource_files_map["model_state"]
    files = [table[given]] if given in table and not here else list(_WEIGHTS)
    try:
        weights = _library("paddlenlp.utils.download").resolve_file_path(given, files)
    except Exception as error:
        raise ConfigError(f"PaddleNLP found no weights of {given} ({files[0]}); {where}") from error
    if weights is None:
        raise ConfigError(f"PaddleNLP found no weights of {given}; {where}")
    theirs = open_tensors(weights)
    tensors = from_hf(source, theirs, sizes)
    with TemporaryDirectory() as temporary:
        try:
            transformers.AutoTokenizer.from_pretrained(given).save_pretrained(temporary)
        except Exception as error:
            raise ConfigError(f"PaddleNLP found no tokenizer of {given}; {where}") from error
        files = sorted(Path(temporary).iterdir())
        return write_tower(source, "paddlenlp", sizes, tensors, folder, theirs, files)


def _from_paddleclas(given: str, folder: Path) -> Report:
    path = paddleclas_file(given)
    tensors = open_tensors(path)
    source, sizes = _measure(tensors, str(path))
    ours = from_hf(source, tensors, sizes)
    rows, patches = len(ours["position_embedding"]), sizes["image_size"] // sizes["patch_size"]
    if rows != 1 + patches**2:
        raise CheckpointError(f"{path} has {rows} positions, which are of no square image and a class token")
    return write_tower(source, "paddleclas", sizes, ours, folder, tensors)


LIBRARIES = {"paddlenlp": _from_paddlenlp, "paddleclas": _from_paddleclas}
"""Optional library -> what converts its towers."""
MARKS = {
    "paddlenlp": ("embeddings.layer_norm.weight", "encoder.layers.0.self_attn.q_proj.weight"),
    "paddleclas": ("blocks.0.attn.qkv.bias", "patch_embed.proj.weight", "pos_embed"),
}
"""Library -> names of tensors by which its files are recognised."""
RELEASES = ("paddleclas-beit",)
"""Releases that PaddleClas knows by names of its own."""


def paddleclas_file(given: str) -> Path:
    """Return the file of weights of a model of PaddleClas, downloaded by it where that was not done before.

    Args:
        given: name that PaddleClas knows, such as `CLIP_vit_base_patch16_224`, or a file that it wrote.

    Raises:
        ConfigError: neither; PaddleClas is not installed, or cannot download.
    """
    if Path(given).exists() or Path(given).suffix:
        return Path(given)
    zoo = "paddleclas.ppcls.arch.backbone.model_zoo"
    addresses: dict[str, str] = {
        **_library(f"{zoo}.vision_transformer").MODEL_URLS,
        **_library(f"{zoo}.foundation_vit").MODEL_URLS,
    }
    if given not in addresses:
        raise ConfigError(f"no file and no model of PaddleClas {given!r}; {nearest(given, addresses)}")
    downloads = _library("paddleclas.ppcls.utils.download")
    logging.getLogger("ppcls").setLevel(logging.ERROR)  # it prints each failed attempt
    home = downloads.WEIGHTS_HOME
    try:
        return Path(downloads.get_path_from_url(addresses[given], home, decompress=False))
    except Exception as error:
        raise ConfigError(
            f"PaddleClas cannot download {given}; put {addresses[given]} into {home}, or give the file with "
            "--input"
        ) from error


def _measure(tensors: Tensors, where: str) -> tuple[Source, dict[str, int]]:
    """Return the kind of a tower and its sizes, read from shapes.

    Raises:
        CheckpointError: this is no ViT of PaddleClas, or its width is no multiple of 64.
    """
    source = CLAS_CLIP if "ln_pre.weight" in tensors else CLAS_VIT
    axes = {"patch_embed.proj.weight": 4, "pos_embed": 3, "blocks.0.mlp.fc1.weight": 2}
    if wrong := [name for name, count in axes.items() if name not in tensors or tensors[name].ndim != count]:
        raise CheckpointError(
            f"{where} is no CLIP or ViT of PaddleClas: {', '.join(wrong)} missing or of another shape; give "
            "a .pdparams of such a model (BEiTv2 is converted with --from paddleclas-beit)"
        )
    width, _, patch, _ = tensors["patch_embed.proj.weight"].shape
    if width % HEAD_SIZE:
        raise CheckpointError(
            f"{where} is {width} wide; expected a multiple of {HEAD_SIZE}, as CLIP's and ViT's base and large"
        )
    numbers = (int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
    return source, {
        "image_size": round((tensors["pos_embed"].shape[1] - 1) ** 0.5) * patch,
        "patch_size": patch,
        "hidden_size": width,
        "num_layers": 1 + max(numbers),
        "num_heads": width // HEAD_SIZE,
        "intermediate_size": tensors["blocks.0.mlp.fc1.weight"].shape[1],
    }


def _library(name: str) -> ModuleType:
    """Import a module of an optional library.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of setuptools, on the way
            return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ConfigError(
            f"{package} is needed to read its weights and cannot be imported ({error}); install the extra "
            'zoo: pip install -e ".[cpu,zoo]"'
        ) from error
