"""Name maps between the files of others and our layers, as data: which of ours is made from which of theirs.

Several of their tensors are put side by side (fused queries, keys, values); matrices are turned where they
are stored the other way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Row:
    """One of our layers or tensors; `{i}` stands for the number of the block, from 0."""

    ours: str
    theirs: tuple[str, ...]
    kind: Literal["linear", "norm", "tensor", "batch", "turned"]
    """linear, norm: a weight and a bias, whose endings `Spelling` has; the others are whole names. tensor: as
    it is; batch: of three axes there, the leading ones of length 1; turned: a matrix, transposed."""
    optional: bool = False
    shape: tuple[str | int, ...] = ()
    """Of each of theirs, in names of sizes; empty: not checked by it."""


@dataclass(frozen=True)
class Spelling:
    """How a family of files ends the names of weights and biases."""

    linear: tuple[str, str]
    norm: tuple[str, str]
    is_turned: bool
    """Whether the weights of linear layers are [out, in]; ours are [in, out]."""


@dataclass(frozen=True)
class Converted:
    """What a folder of released weights became."""

    config: Any
    """Config of the model."""
    tensors: dict[str, np.ndarray]
    """By the names of the task: `model.*`, and of pre-training `objective.*`."""
    data: dict[str, Any] = field(default_factory=dict)
    """Fields of the data section that the weights were made with: image size, transforms, ..."""
    absent: tuple[str, ...] = ()
    """Layers of the model or objective for which the folder has nothing."""
    task: dict[str, Any] = field(default_factory=lambda: {"name": "pretrain"})
    """Name of the task whose heads are among them, and further fields of the task section."""


def expand(rows: Iterable[Row], num_layers: int, spelling: Spelling) -> list[Row]:
    """Rows of single tensors, of kind tensor, batch or turned: blocks numbered, weights and biases apart."""
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
    """Their tensors of one row of `expand` to ours."""
    if kind == "batch":
        (part,) = parts
        return part.reshape([size for axis, size in enumerate(part.shape) if axis == 2 or size > 1])
    turned = [part.T if kind == "turned" else part for part in parts]
    return np.ascontiguousarray(np.concatenate(turned, axis=-1) if len(turned) > 1 else turned[0])
