"""Name maps from other people's files to our layers, as data: which of ours is made of which of theirs.

Where we fuse layers (queries, keys, values), several of their tensors are joined side by side. Matrices that
are stored the other way round are transposed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Row:
    """One of our layers or tensors, and theirs that it is made of; `{i}` stands for the block number."""

    ours: str
    theirs: tuple[str, ...]
    kind: Literal["linear", "norm", "tensor", "batch", "turned"]
    """`linear` and `norm` are layers of weight and bias, whose names get the endings of `Spelling`. Others
    are single tensors: `tensor` is copied, `batch` has three axes there, the leading ones of length 1, and
    `turned` is a matrix that is transposed."""
    optional: bool = False
    """Whether their file may lack it."""
    shape: tuple[str | int, ...] = ()
    """Shape of each of theirs, sizes by their symbols; empty where it is not checked."""


@dataclass(frozen=True)
class Spelling:
    """Endings of the names of weights and biases in a family of files."""

    linear: tuple[str, str]
    """Endings of weight and bias of a linear layer."""
    norm: tuple[str, str]
    """Endings of scale and bias of a norm."""
    is_turned: bool
    """Whether the weights of linear layers are [out, in]; ours are [in, out]."""


@dataclass(frozen=True)
class Converted:
    """Released weights under our names, and the config that they need."""

    config: Any
    """Config of the model."""
    tensors: dict[str, np.ndarray]
    """Tensors by the names of the task: `model.*`, and for pre-training `objective.*`."""
    data: dict[str, Any] = field(default_factory=dict)
    """Fields of the data section that the weights were made with: image size, transforms, ..."""
    absent: tuple[str, ...] = ()
    """Layers of the model or objective that the release has no weights for."""
    task: dict[str, Any] = field(default_factory=lambda: {"name": "pretrain"})
    """Name of the task whose heads are included, and further fields of the task section."""


def expand(rows: Iterable[Row], num_layers: int, spelling: Spelling) -> list[Row]:
    """Return one row for each tensor (kind tensor, batch or turned), with blocks numbered.

    A row of kind linear or norm becomes two, for weight and bias.
    """
    single = []
    for row in rows:
        for i in range(num_layers) if "{i}" in row.ours else (0,):
            ours, *theirs = (name.replace("{i}", str(i)) for name in (row.ours, *row.theirs))
            if row.kind not in ("linear", "norm"):
                single.append(Row(ours, tuple(theirs), row.kind, row.optional, row.shape))
                continue
            endings = zip((".weight", ".bias"), getattr(spelling, row.kind), strict=True)
            for own, ending in endings:
                is_matrix = row.kind == "linear" and own == ".weight"
                kind = "turned" if is_matrix and spelling.is_turned else "tensor"
                names = tuple(name + ending for name in theirs)
                shape = row.shape if is_matrix else row.shape[-1:]
                single.append(Row(ours + own, names, kind, row.optional, shape))
    return single


def join(parts: list[np.ndarray], kind: str) -> np.ndarray:
    """Make our tensor of theirs, those of one row of `expand`."""
    if kind == "batch":
        (part,) = parts
        return part.reshape([size for axis, size in enumerate(part.shape) if axis == 2 or size > 1])
    turned = [part.T if kind == "turned" else part for part in parts]
    return np.ascontiguousarray(np.concatenate(turned, axis=-1) if len(turned) > 1 else turned[0])
