"""Name maps from other people's files to our layers, as data: which of ours is made of which of theirs.

Where we fuse layers (queries, keys, values), several of their tensors are joined side by side. Matrices that
are stored the other way round are transposed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from unimo.errors import CheckpointError
from unimo.weights.stored import Stored

Tensors = Mapping[str, "np.ndarray | Stored"]
Kind = Literal["linear", "norm", "tensor", "batch", "turned", "match", "number", "log_scale"]
"""`linear` and `norm` are layers of weight and bias, whose names get the endings of `Spelling`. Others are
single tensors: `tensor` is copied, `batch` has three axes there, the leading ones of length 1, and `turned`
is a matrix that is transposed. `match` is one output there, the log-odds of a match; here it is the second of
two, the first is zero. `number` has no axes there, one here; so has `log_scale`, a factor's logarithm there
and the factor's reciprocal here (temperature)."""
_LISTED = 20
"""Names of a kind that a message lists."""


@dataclass(frozen=True)
class Row:
    """One of our layers or tensors, and theirs that it is made of; `{i}` stands for the block number."""

    kind: Kind
    ours: str
    theirs: tuple[str, ...]
    shape: tuple[str | int, ...] = ()
    """Shape of each of theirs, sizes by their symbols; empty where it is not checked."""
    optional: bool = False
    """Whether their file may lack it."""


def row(
    kind: Kind, ours: str, *theirs: str, shape: tuple[str | int, ...] = (), optional: bool = False
) -> Row:
    """Make a `Row`."""
    return Row(kind, ours, theirs, shape, optional)


def mlm_rows(width: str) -> tuple[Row, ...]:
    """Return the rows of the MLM head in ViLT's code and what followed it; V words, `width` of states."""
    ours, theirs = "objective.mlm_head", "mlm_score"
    return (
        row("linear", f"{ours}.dense", f"{theirs}.transform.dense", shape=(width, width)),
        row("norm", f"{ours}.norm", f"{theirs}.transform.LayerNorm", shape=(width,)),
        row("turned", f"{ours}.decoder.weight", f"{theirs}.decoder.weight", shape=("V", width)),
        row("tensor", f"{ours}.decoder.bias", f"{theirs}.bias", shape=("V",)),
    )


def classifier_rows(theirs: str, pooled: str) -> tuple[Row, ...]:
    """Return the rows of a head of linear, norm, GELU, linear in that code, D wide inside, with K classes."""
    return (
        row("linear", "classifier.dense", f"{theirs}.0", shape=("D", pooled)),
        row("norm", "classifier.norm", f"{theirs}.1", shape=("D",)),
        row("linear", "classifier.out", f"{theirs}.3", shape=("K", "D")),
    )


def clip_layer_rows(ours: str, theirs: str) -> tuple[Row, ...]:
    """Return the rows of a layer of OpenAI's CLIP, U wide, UI inside; `ours` and `theirs` end with a dot."""
    return (
        row("turned", f"{ours}attention.qkv.weight", f"{theirs}attn.in_proj_weight", shape=("3U", "U")),
        row("tensor", f"{ours}attention.qkv.bias", f"{theirs}attn.in_proj_bias", shape=("3U",)),
        row("linear", f"{ours}attention.out", f"{theirs}attn.out_proj", shape=("U", "U")),
        row("norm", f"{ours}attention_norm", f"{theirs}ln_1", shape=("U",)),
        row("linear", f"{ours}mlp.fc1", f"{theirs}mlp.c_fc", shape=("UI", "U")),
        row("linear", f"{ours}mlp.fc2", f"{theirs}mlp.c_proj", shape=("U", "UI")),
        row("norm", f"{ours}mlp_norm", f"{theirs}ln_2", shape=("U",)),
    )


@dataclass(frozen=True)
class Spelling:
    """Endings of the names of weights and biases in a family of files."""

    linear: tuple[str, str]
    norm: tuple[str, str]
    is_turned: bool
    """Whether the weights of linear layers are [out, in]; ours are [in, out]."""


@dataclass(frozen=True)
class Converted:
    """Released weights under our names, and the config that they need."""

    config: Any
    """Config of the model."""
    tensors: Tensors
    """Tensors by the names of the task: `model.*`, and for pre-training `objective.*`."""
    data: dict[str, Any] = field(default_factory=dict)
    """Fields of the data section that the weights were made with: image size, transforms, ..."""
    absent: tuple[str, ...] = ()
    """Layers of the model or objective that the release has no weights for."""
    task: dict[str, Any] = field(default_factory=lambda: {"name": "pretrain"})
    """Name of the task whose heads are included, and further fields of the task section."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Further metadata of the model directory, such as the stages they went through."""
    classes: int = 0
    """Outputs of a classifier whose answers no file of weights names (VQA); 0 for none."""
    has_words: bool = True
    """Whether there is a word table; without, the model gets a random one for the words of any tokenizer."""


def expand(rows: Iterable[Row], num_layers: int, spelling: Spelling) -> list[Row]:
    """Return one row for each tensor (kind tensor, batch or turned), with blocks numbered.

    A row of kind linear or norm becomes two, for weight and bias.
    """
    single = []
    for entry in rows:
        for i in range(num_layers) if "{i}" in entry.ours else (0,):
            ours, *theirs = (name.replace("{i}", str(i)) for name in (entry.ours, *entry.theirs))
            if entry.kind not in ("linear", "norm"):
                single.append(replace(entry, ours=ours, theirs=tuple(theirs)))
                continue
            endings = zip((".weight", ".bias"), getattr(spelling, entry.kind), strict=True)
            for own, ending in endings:
                is_matrix = entry.kind == "linear" and own == ".weight"
                kind = "turned" if is_matrix and spelling.is_turned else "tensor"
                names = tuple(name + ending for name in theirs)
                out = entry.shape[:1] if spelling.is_turned else entry.shape[-1:]
                shape = entry.shape if is_matrix else out
                single.append(Row(kind, ours + own, names, shape, entry.optional))
    return single


def join(single: Row, theirs: Tensors) -> np.ndarray | Stored:
    """Make our tensor of theirs, by one row of `expand`.

    Raises:
        CheckpointError: theirs do not fit together.
    """
    parts = [theirs[name].T if single.kind == "turned" else theirs[name] for name in single.theirs]
    shapes, last = [part.shape for part in parts], parts[0]
    if single.kind in _MADE:
        shape = _MADE[single.kind](np.broadcast_to(np.zeros((), last.dtype), last.shape)).shape
    elif len(parts) > 1 and not (all(shapes) and len({shape[:-1] for shape in shapes}) == 1):
        texts = ", ".join(f"{name} {list(theirs[name].shape)}" for name in single.theirs)
        raise CheckpointError(f"these do not make one {single.ours}: {texts}; take a sound file")
    else:
        shape = (*last.shape[:-1], sum(shape[-1] for shape in shapes)) if last.shape else ()

    def make() -> np.ndarray:
        if single.kind in _MADE:
            return _MADE[single.kind](np.asarray(last))
        joined = np.concatenate(parts, axis=-1) if len(parts) > 1 else np.asarray(last)
        return np.ascontiguousarray(joined).reshape(shape)  # NumPy gives a scalar an axis

    stored = [part for part in parts if isinstance(part, Stored)]
    if not stored:
        return make()
    return Stored(shape, last.dtype, make if all(part.is_there for part in stored) else None)


def split(single: Row, ours: np.ndarray) -> dict[str, np.ndarray]:
    """Return theirs of our tensor, by their names, by one row of `expand`; the inverse of `join`."""
    if single.kind in _TAKEN:
        return {single.theirs[0]: _TAKEN[single.kind](ours)}
    parts = np.split(ours, len(single.theirs), axis=-1) if len(single.theirs) > 1 else [ours]
    turned = [part.T if single.kind == "turned" else part for part in parts]
    whole = [np.ascontiguousarray(part).reshape(part.shape) for part in turned]  # as in `join`
    return dict(zip(single.theirs, whole, strict=True))


_MADE: Mapping[Kind, Callable[[np.ndarray], np.ndarray]] = {
    "batch": lambda part: part.reshape([n for axis, n in enumerate(part.shape) if axis == 2 or n > 1]),
    "match": lambda part: np.ascontiguousarray(np.concatenate([np.zeros_like(part), part]).T),
    "number": lambda part: part.reshape(1),
    "log_scale": lambda part: np.exp(-part.astype("float64")).astype(part.dtype).reshape(1),
}
"""Kind of a single tensor -> ours of theirs."""
_TAKEN: Mapping[Kind, Callable[[np.ndarray], np.ndarray]] = {
    "batch": lambda ours: ours.reshape([1] * (3 - ours.ndim) + list(ours.shape)),
    "match": lambda ours: np.ascontiguousarray(ours.T[1:] - ours.T[:1]),
    "number": lambda ours: ours.reshape(()),
    "log_scale": lambda ours: (-np.log(ours.astype("float64"))).astype(ours.dtype).reshape(()),
}
"""Kind of a single tensor -> theirs of ours."""


def describe(problems: Mapping[str, Sequence[str]]) -> str:
    """Return what does not fit, by kind: `2 missing: a, b; 1 unknown: c`; empty if everything does."""
    texts = []
    for kind, names in problems.items():
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        texts += [f"{len(names)} {kind}: {', '.join(names[:_LISTED])}{more}"] if names else []
    return "; ".join(texts)
