"""Weights of a detector from disk: our safetensors, or what PaddleDetection and Detectron2 saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from paddle import nn

from unimo.data.readers.numpy_pickle import read_numpy_pickle
from unimo.errors import CheckpointError, DataError
from unimo.weights import load_into, read_safetensors

_PICKLES = (".pdparams", ".pkl")
# What stands beside the arrays in PaddleDetection's files.
_NAME_TABLE = "StructuredToParameterName@@"


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Tensors by name from `.safetensors`, `.pdparams` or Detectron2's `.pkl`; no code in a pickle is run.

    Raises:
        CheckpointError: missing, damaged, or a pickle with anything but arrays.
    """
    path = Path(path)
    if path.suffix not in _PICKLES:
        return read_safetensors(path)
    try:
        content = read_numpy_pickle(path)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    tensors = content.get("model", content)  # Detectron2 wraps them
    if not isinstance(tensors, dict):
        raise CheckpointError(f"{path}: 'model' is no mapping; expected arrays by name")
    named = {_text(name): value for name, value in tensors.items() if _text(name) != _NAME_TABLE}
    wrong = [name for name, value in named.items() if not isinstance(value, np.ndarray)]
    if wrong:
        raise CheckpointError(
            f"{path}: {wrong[0]} is {type(named[wrong[0]]).__name__}; expected arrays by name"
        )
    return named


def _text(name: Any) -> str:
    return name.decode("utf8", "replace") if isinstance(name, bytes) else str(name)


def load_weights(detector: nn.Layer, path: str | Path) -> None:
    """Fill a detector, or change nothing.

    Raises:
        CheckpointError: unreadable, or names every missing, extra and mis-shaped parameter.
    """
    load_into(detector, read_weights(path), str(path))
