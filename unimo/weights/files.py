"""Tensors by name in files: safetensors in both directions, and what others wrote.

`open_tensors` is the one way to read weights of others, whatever they lie in; what it returns is read from
the disk tensor by tensor, when it is used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from unimo.errors import CheckpointError, DataError
from unimo.files import parse_json, regular, replacing
from unimo.limits import TENSORS, WEIGHTS_BYTES
from unimo.weights.archives import ENDINGS as ARCHIVES
from unimo.weights.paddle_folder import open_folder
from unimo.weights.pickles import read_numpy_pickle, text_keys
from unimo.weights.places import ENDINGS, INDEX, find_weights, shards
from unimo.weights.stored import Stored, in_file
from unimo.weights.torch_files import LEGACY, open_torch

_KINDS = {
    **{f"F{8 * size}": f"f{size}" for size in (2, 4, 8)},
    **{f"{sign}{8 * size}": f"{sign.lower()}{size}" for sign in "IU" for size in (1, 2, 4, 8)},
    "BF16": "bf16",
    "BOOL": "?",
}
"""Type in a safetensors file -> type of `in_file`."""
_NAMES = {np.dtype(kind): name for name, kind in _KINDS.items() if kind != "bf16"}
_WRAPPERS = ("state_dict", "module", "model")
"""Under which Lightning, DeepSpeed, and Detectron2 and unilm put the tensors."""
_PREFIXES = ("module.", "_forward_module.")
"""Prefixes that all names have where DistributedDataParallel or DeepSpeed wrapped the model."""
_PADDLE_NAME_TABLE = "StructuredToParameterName@@"
"""Entry that `paddle.save` puts beside the arrays."""


def open_tensors(path: str | Path) -> dict[str, Stored]:
    """Open weights of whatever kind, which their content shows: a file, or a folder with one or several.

    Kinds are safetensors, `torch.save` (also of Lightning and DeepSpeed) and TorchScript, pickles of NumPy
    arrays as Paddle and Detectron2 write them, folders of shards with their index, and folders with one file
    for each parameter, of Paddle 1.x. No code in them is run. Halves become float32.

    Raises:
        CheckpointError: no such file, a damaged one, one that asks for code to be run, or of another kind.
    """
    place = find_weights(path)
    if place.is_dir():
        return open_folder(place)
    if place.name.endswith(INDEX):
        return _open_shards(place)
    try:
        with open(regular(place, WEIGHTS_BYTES), "rb") as file:
            start = file.read(len(LEGACY))
    except OSError as error:
        reason = error.strerror if os.path.exists(place) else "No such file"
        raise CheckpointError(f"cannot read weights {place}: {reason}") from error
    if place.name.endswith(ARCHIVES):
        raise CheckpointError(f"{place} is an archive; unpack it (tar -xf) and give what is in it")
    if start.startswith(b"PK\x03\x04") and place.suffix != ".safetensors":
        return _named(open_torch(place), place)
    if start == LEGACY:
        raise CheckpointError(
            f"{place} is a legacy file of torch (before 1.6), a pickle whose code would have to be run. "
            "If you trust it, save it anew where torch is installed: "
            f'python -c "import torch; torch.save(torch.load('
            f"'{place.name}', map_location='cpu', weights_only=True), 'new_{place.name}')\""
        )
    # Protocol 0 of pickles has no mark.
    if place.suffix in (".pdparams", ".pkl") or (start[:1] == b"\x80" and place.suffix != ".safetensors"):
        try:
            return _named(read_numpy_pickle(place), place)
        except DataError as error:
            raise CheckpointError(str(error)) from error
    return open_safetensors(place)


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Read all tensors that `open_tensors` opens."""
    return {name: np.asarray(tensor) for name, tensor in open_tensors(path).items()}


def _open_shards(index: Path) -> dict[str, Stored]:
    """Open the files that the index of a sharded folder names."""
    found: dict[str, Stored] = {}
    for file, names in shards(index).items():
        inside = open_tensors(file)
        if missing := [name for name in names if name not in inside]:
            raise CheckpointError(
                f"{file} lacks {len(missing)} tensors that {index.name} says are there, such as "
                f"{missing[0]}; download the whole folder again"
            )
        found |= {name: inside[name] for name in names}
    return found


def _named(content: Mapping[Any, Any], path: Path) -> dict[str, Stored]:
    """Return the tensors by name in a mapping, or in the one inside of it that holds them."""
    wrapper = next((name for name in _WRAPPERS if isinstance(content.get(name), dict)), None)
    if wrapper is None and "model" in content and not _is_tensor(content["model"]):
        raise CheckpointError(f"{path}: 'model' is not a mapping; expected arrays by name")
    named = text_keys(content if wrapper is None else content[wrapper])
    named.pop(_PADDLE_NAME_TABLE, None)
    if wrong := [name for name, value in named.items() if not _is_tensor(value)]:
        what = type(named[wrong[0]]).__name__.lstrip("_")
        raise CheckpointError(f"{path}: {wrong[0]} is {what}; expected arrays by name")
    for prefix in _PREFIXES:
        if named and all(name.startswith(prefix) for name in named):
            named = {name.removeprefix(prefix): value for name, value in named.items()}
    return {name: value if isinstance(value, Stored) else _in_memory(value) for name, value in named.items()}


def _is_tensor(value: object) -> bool:
    return isinstance(value, (Stored, np.ndarray))


def _in_memory(array: np.ndarray) -> Stored:
    array = array.astype(np.float32) if array.dtype == np.float16 else array
    return Stored(array.shape, array.dtype, lambda: array)


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """Read all tensors of a safetensors file; arguments and errors as of `open_safetensors`."""
    return {name: np.asarray(tensor) for name, tensor in open_safetensors(path).items()}


def open_safetensors(path: str | Path) -> dict[str, Stored]:
    """Open a safetensors file; fp16 and bf16 become float32 when they are read.

    Raises:
        CheckpointError: no such file, a truncated or corrupt one, or a pickle.
    """
    path = Path(path)
    if path.suffix.lower() in ENDINGS[1:]:
        raise CheckpointError(
            f"{path} is a pickle, expected .safetensors; python tools/convert_checkpoint.py --input "
            f"{path.name} --out DIR converts weights of others"
        )
    try:
        with safe_open(regular(path, WEIGHTS_BYTES), framework="np") as file:  # checks the whole header
            if (count := len(file.keys())) > TENSORS:
                raise CheckpointError(f"{path} has {count:,} tensors; the limit is {TENSORS:,}")
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = parse_json(file.read(length), path, CheckpointError)
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
    header.pop("__metadata__", None)
    for name, entry in header.items():
        if entry["dtype"] not in _KINDS:
            raise CheckpointError(
                f"{path}: tensor {name!r} is of type {entry['dtype']}; expected F32, F16, BF16, F64, BOOL or "
                "integers; convert the file to one of these"
            )
    return {
        name: in_file(path, 8 + length + entry["data_offsets"][0], _KINDS[entry["dtype"]], entry["shape"])
        for name, entry in header.items()
    }


def write_safetensors(
    path: str | Path, tensors: Mapping[str, np.ndarray | Stored], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors so that `path` is either the old file or the whole new one, never a part.

    Those that lie in files are in memory one at a time.

    Args:
        path: the file.
        tensors: tensors by name.
        metadata: texts for the header of the file.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written, or a tensor cannot be read; the
            previous file is intact.
    """
    path = Path(path)
    # The order of the safetensors package: the widest types first, so that all are aligned.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header, end = {"__metadata__": dict(metadata)} if metadata else {}, 0
    for name in order:
        tensor, begin = tensors[name], end
        end += tensor.size * tensor.dtype.itemsize
        kind = _NAMES[tensor.dtype.newbyteorder("=")]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in order:
                values = np.asarray(tensors[name])
                little = values.dtype.newbyteorder("<")
                file.write(np.ascontiguousarray(values, little).reshape(-1).view(np.uint8).data)
            file.flush()
    except OSError as error:
        size = end / 1e6
        kept = "the previous file is intact" if path.exists() else "nothing was left behind"
        raise CheckpointError(
            f"could not write {path} ({size:.1f} MB): {error.strerror or error}; {kept}. "
            f"Free some space or choose another output folder"
        ) from error
