"""Tensors by name in files: safetensors in both directions, and the pickles of arrays that others wrote."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.numpy import save_file

from unimo.errors import CheckpointError, DataError
from unimo.files import regular, replacing
from unimo.limits import TENSORS, WEIGHTS_BYTES
from unimo.weights.pickles import read_numpy_pickle, text_keys

_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pdparams", ".pdopt"}
_ARRAY_PICKLES = {".pdparams", ".pkl"}
_PADDLE_NAME_TABLE = "StructuredToParameterName@@"
"""Entry that `paddle.save` puts beside the arrays."""


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """Read all tensors of a file; fp16 and bf16 become float32.

    Raises:
        CheckpointError: no such file, a truncated or corrupt one, or a pickle, with how to convert it.
    """
    path = Path(path)
    if path.suffix.lower() in _PICKLES:
        raise CheckpointError(
            f"{path} is a pickle, and opening one runs whatever code its author put in; expected "
            f".safetensors. If you trust it, convert it once where torch is installed: python -c "
            f'"import torch, safetensors.torch as s; s.save_file({{k: v.clone().contiguous() for k, v in '
            f"torch.load('{path.name}', map_location='cpu', weights_only=True).items()}}, "
            f"'model.safetensors')\""
        )
    try:
        with safe_open(regular(path, WEIGHTS_BYTES), framework="np") as file:
            if (count := len(file.keys())) > TENSORS:
                raise CheckpointError(f"{path} has {count:,} tensors; the limit is {TENSORS:,}")
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}
            brain = _read_bf16(path) if "BF16" in kinds.values() else {}
            return {
                name: brain[name] if kind == "BF16" else _read_tensor(file, path, name, kind)
                for name, kind in kinds.items()
            }
    except OSError as error:
        reason = error.strerror or error if os.path.exists(path) else "No such file"
        if os.path.isdir(path):
            reason = "it is a folder; expected a file such as model.safetensors in it"
        raise CheckpointError(f"cannot read weights {path}: {reason}") from error
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is truncated or not a safetensors file: it has {path.stat().st_size} bytes "
            f"({error}); download or copy it again"
        ) from error
    except ValueError as error:  # more axes, or longer ones, than an array can have
        raise CheckpointError(f"{path}: the shape of a tensor is that of no array ({error})") from error
    except MemoryError as error:
        size = path.stat().st_size
        raise CheckpointError(f"{path} has {size:,} bytes and does not fit into memory") from error


def _read_bf16(path: Path) -> dict[str, np.ndarray]:
    """Read the bf16 tensors, a type that NumPy lacks: their bits are the upper half of a float32."""
    return {
        name: (np.frombuffer(entry["data"], np.uint16).astype(np.uint32) << 16)
        .view(np.float32)
        .reshape(entry["shape"])
        for name, entry in deserialize(path.read_bytes())
        if entry["dtype"] == "BF16"
    }


def _read_tensor(file: Any, path: Path, name: str, kind: str) -> np.ndarray:
    try:
        values = file.get_tensor(name)
    except (AttributeError, TypeError) as error:  # types that NumPy does not have
        raise CheckpointError(
            f"{path}: tensor {name!r} is of type {kind}; expected F32, F16, BF16, F64, BOOL or integers; "
            "convert the file to one of these"
        ) from error
    return values.astype(np.float32) if kind == "F16" else values


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Read tensors by name from `.safetensors`, or from a pickle of arrays.

    Pickles are `.pdparams`, as Paddle writes it, and `.pkl`, as Detectron2 does; no code in them is run.

    Raises:
        CheckpointError: no such file, a damaged one, or a pickle of anything but arrays.
    """
    path = Path(path)
    if path.suffix not in _ARRAY_PICKLES:
        return read_safetensors(path)
    try:
        content = read_numpy_pickle(path)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    tensors = content.get("model", content)  # Detectron2 wraps them
    if not isinstance(tensors, dict):
        raise CheckpointError(f"{path}: 'model' is not a mapping; expected arrays by name")
    named = text_keys(tensors)
    named.pop(_PADDLE_NAME_TABLE, None)
    for name, value in named.items():
        if not isinstance(value, np.ndarray):
            raise CheckpointError(f"{path}: {name} is {type(value).__name__}; expected arrays by name")
    return named


def write_safetensors(
    path: str | Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors so that `path` is either the old file or the whole new one, never a part.

    Args:
        path: the file.
        tensors: tensors by name.
        metadata: texts for the header of the file.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written; the previous file is intact.
    """
    path = Path(path)
    # The package stores the memory of an array as it lies, so that must be row by row.
    dense = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    try:
        with replacing(path) as temporary:
            temporary.touch()
            mode = temporary.stat().st_mode  # as the umask wants it; the package makes files private
            save_file(dense, temporary, dict(metadata) if metadata else None)
            temporary.chmod(mode)
    except (OSError, SafetensorError) as error:
        size = sum(tensor.nbytes for tensor in dense.values()) / 1e6
        reason = str(error).removeprefix("Error while serializing: I/O error: ")
        kept = "the previous file is intact" if path.exists() else "nothing was left behind"
        raise CheckpointError(
            f"could not write {path} ({size:.1f} MB): {reason}; {kept}. "
            f"Free some space or choose another output folder"
        ) from error
