"""Weights on disk: safetensors in and out, and strict loading into a layer.

Nothing here unpickles. The format is 8 bytes of header length, a JSON header, raw data; it is read
here rather than through the `safetensors` package because that one has no bf16 for NumPy, and because
a broken file should be described by its sizes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from unimo.errors import CheckpointError

if TYPE_CHECKING:
    from paddle import nn

logger = logging.getLogger(__name__)

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_NAMES = {np.dtype(kind): name for name, kind in _DTYPES.items() if name != "BF16"}
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pdparams", ".pdopt"}
_LISTED = 20
_TOWERS = {"RobertaTower": "roberta", "ClipVisionTower": "clip_vit"}


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """Read all tensors of a file, in file order; fp16 and bf16 become float32.

    Raises:
        CheckpointError: no such file, a pickle, or a truncated or corrupt file.
    """
    path = Path(path)
    refuse_pickle(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header, start = _read_header(file, path, size)
            return {
                name: _read_tensor(file, path, name, entry, start, size) for name, entry in header.items()
            }
    except OSError as error:
        raise CheckpointError(f"cannot read weights {path}: {error.strerror or error}") from error


def refuse_pickle(path: Path) -> None:
    """Stop at files that only unpickling could open.

    Raises:
        CheckpointError: the suffix is one of pickled formats; says how to convert.
    """
    if path.suffix.lower() in _PICKLES:
        raise CheckpointError(
            f"{path} is a pickle, and opening one runs whatever code its author put in; expected "
            f".safetensors. If you trust it, convert it once where torch is installed: python -c "
            f'"import torch, safetensors.torch as s; s.save_file({{k: v.clone().contiguous() for k, v in '
            f"torch.load('{path.name}', map_location='cpu', weights_only=True).items()}}, "
            f"'model.safetensors')\""
        )


def _read_header(file: BinaryIO, path: Path, size: int) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise CheckpointError(
            f"{path} is truncated or not a safetensors file: it has {size} bytes, and its header alone "
            f"would need {8 + length}; download or copy it again"
        )
    try:
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise CheckpointError(f"{path} has a corrupt header of {length} bytes: {error}") from error
    if 8 + length + end != size:
        raise CheckpointError(
            f"{path} is truncated or corrupt: its header describes {8 + length + end} bytes, the file has "
            f"{size}; download or copy it again"
        )
    return header, 8 + length


def _read_tensor(
    file: BinaryIO, path: Path, name: str, entry: Mapping[str, Any], start: int, size: int
) -> np.ndarray:
    try:
        shape, (begin, end) = [int(n) for n in entry["shape"]], entry["data_offsets"]
        kind = entry["dtype"]
        dtype = np.dtype(_DTYPES[kind])
    except (KeyError, TypeError, ValueError) as error:
        known = ", ".join(_DTYPES)
        raise CheckpointError(
            f"{path}: tensor {name!r} has a bad entry {entry}; types known: {known}"
        ) from error
    count = math.prod(shape)
    if min([0, *shape, begin]) < 0 or end - begin != count * dtype.itemsize or start + end > size:
        raise CheckpointError(
            f"{path}: tensor {name!r} of shape {shape} needs {count * dtype.itemsize} bytes, "
            f"its entry gives {begin} to {end} of {size - start}"
        )
    file.seek(start + begin)
    values = np.fromfile(file, dtype=dtype, count=count).reshape(shape)
    if kind == "BF16":  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32) if kind == "F16" else values


def write_safetensors(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write tensors so that `path` is either the old file or the whole new one, never a part.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written; the previous file is intact.
    """
    path = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise CheckpointError(f"cannot write into {path.parent}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            _write(file, tensors)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        needed = sum(np.asarray(tensor).nbytes for tensor in tensors.values())
        kept = "the previous file is intact" if path.exists() else "nothing was left behind"
        raise CheckpointError(
            f"could not write {path} ({needed / 1e6:.1f} MB): {error.strerror or error}; {kept}. "
            f"Free some space or choose another output folder"
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _write(file: BinaryIO, tensors: Mapping[str, np.ndarray]) -> None:
    header: dict[str, Any] = {}
    offset = 0
    # Wide types first: every tensor then starts at a multiple of its item size.
    order = sorted(tensors, key=lambda name: (-np.asarray(tensors[name]).itemsize, name))
    for name in order:
        array = np.asarray(tensors[name])
        if array.dtype not in _NAMES:
            raise TypeError(f"tensor {name!r}: safetensors has no type for {array.dtype}")
        end = offset + array.nbytes
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in order:
        file.write(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def tensors_of(layer: nn.Layer) -> dict[str, np.ndarray]:
    """Parameters and persistable buffers by structured name, as NumPy; bf16 becomes float32."""
    import paddle

    narrow = {paddle.bfloat16, paddle.float16}
    return {
        name: (value.astype("float32") if value.dtype in narrow else value).numpy()
        for name, value in layer.state_dict().items()
    }


def load_into(
    layer: nn.Layer, tensors: Mapping[str, np.ndarray], where: str, ignore: Iterable[str] = ()
) -> None:
    """Put `tensors` into all parameters and persistable buffers of `layer`, or change nothing.

    Vision position tables of another grid are resized (bicubic, class row kept).

    Args:
        layer: what is filled; its structured names are the names of the tensors.
        tensors: arrays by name.
        where: file or folder, for messages.
        ignore: name prefixes that may be missing or extra, e.g. `("mlm_head.",)`.

    Raises:
        CheckpointError: names every missing, extra and mis-shaped tensor.
    """
    state, ignored = layer.state_dict(), tuple(ignore)
    fitted = {name: _fit(name, tensors[name], state[name].shape) for name in state if name in tensors}
    problems = {
        "missing": [name for name in state if name not in tensors and not name.startswith(ignored)],
        "extra": [name for name in tensors if name not in state and not name.startswith(ignored)],
        "mis-shaped": [
            f"{name} (file {list(array.shape)}, model {list(state[name].shape)})"
            for name, array in fitted.items()
            if list(array.shape) != list(state[name].shape)
        ],
    }
    if any(problems.values()):
        raise CheckpointError(
            f"the weights in {where} do not fit this model; "
            + "; ".join(_listing(kind, names) for kind, names in problems.items() if names)
            + ". Check that model.name and its sizes are those the weights were made with"
        )
    for name, array in fitted.items():
        state[name].set_value(array.astype(np.float32) if array.dtype == np.float64 else array)


def _listing(kind: str, names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{len(names)} {kind}: {', '.join(names[:_LISTED])}{more}"


def _fit(name: str, array: np.ndarray, shape: list[int]) -> np.ndarray:
    """A vision position table resized to the model's grid; anything else as it is."""
    is_table = name.rpartition(".")[2] == "position_embedding" and array.ndim == len(shape) == 2
    grids = [math.isqrt(max(0, rows - 1)) for rows in (array.shape[0], shape[0])] if is_table else []
    if not is_table or array.shape[1] != shape[1] or array.shape[0] == shape[0]:
        return array
    if [grid * grid + 1 for grid in grids] != [array.shape[0], shape[0]]:
        return array
    from unimo.nn.position import resize_positions

    logger.info("%s: resized from a %d x %d grid to %d x %d", name, grids[0], grids[0], grids[1], grids[1])
    return resize_positions(array, grids[1])


def load_tower(layer: nn.Layer, directory: str | Path, drop_layers: int = 0) -> None:
    """Fill a text or vision tower from a folder that `tools/convert_checkpoint.py` wrote.

    RoBERTa's pooler may be missing there: no model here uses it.

    Args:
        layer: `RobertaTower` or `ClipVisionTower`.
        directory: holds `config.yaml` and `model.safetensors`.
        drop_layers: so many of the file's last blocks are left out on purpose (METER drops one).

    Raises:
        CheckpointError: not such a folder, another kind of tower, or other sizes.
    """
    from unimo.config import read_yaml

    folder = Path(directory)
    if not (folder / "config.yaml").is_file() or not (folder / "model.safetensors").is_file():
        raise CheckpointError(
            f"{folder} is not a folder of tower weights (config.yaml and model.safetensors); make one with "
            f"python tools/convert_checkpoint.py --from hf-roberta|hf-clip-vit ... (see --help)"
        )
    config = read_yaml(folder / "config.yaml")
    depth, blocks = config.get("num_layers", 0) - drop_layers, layer.layers
    found = (config.get("tower"), depth, config.get("num_heads"))
    wanted = (_TOWERS[type(layer).__name__], len(blocks), blocks[0].attention.num_heads)
    if found != wanted:
        texts = ["a {} tower of {} layers and {} heads".format(*kind) for kind in (found, wanted)]
        raise CheckpointError(
            f"{folder} holds {texts[0]}, the model wants {texts[1]}; give the folder of another model"
        )
    tensors = read_safetensors(folder / "model.safetensors")
    dropped = tuple(f"layers.{depth + i}." for i in range(drop_layers))
    load_into(layer, tensors, str(folder), ignore=("pooler.", *dropped))
