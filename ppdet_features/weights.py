"""Weights of a detector from disk: our safetensors, or what PaddleDetection saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from paddle import nn

from unimo.data.readers.numpy_pickle import read_numpy_pickle
from unimo.errors import CheckpointError, DataError
from unimo.weights import load_into, read_safetensors

_NAME_TABLE = "StructuredToParameterName@@"


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Tensors by name from `.safetensors` or `.pdparams`; nothing that a pickle holds is run.

    Raises:
        CheckpointError: missing, damaged, or a pickle with anything but arrays.
    """
    path = Path(path)
    if path.suffix != ".pdparams":
        return read_safetensors(path)
    try:
        content = read_numpy_pickle(path)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    content.pop(_NAME_TABLE, None)
    wrong = [name for name, value in content.items() if not isinstance(value, np.ndarray)]
    if wrong:
        raise CheckpointError(f"{path}: {wrong[0]} is no array; expected what paddle.save(state_dict) writes")
    return content


def load_weights(detector: nn.Layer, path: str | Path) -> None:
    """Fill a detector, or change nothing.

    Raises:
        CheckpointError: unreadable, or names every missing, extra and mis-shaped parameter.
    """
    load_into(detector, read_weights(path), str(path))
