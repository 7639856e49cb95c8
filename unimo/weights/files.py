"""Weights on disk: safetensors in and out (by the `safetensors` package), and strict loading into a layer.

Nothing here unpickles.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.numpy import save_file

from unimo.errors import CheckpointError
from unimo.files import replacing

if TYPE_CHECKING:
    from paddle import nn

logger = logging.getLogger(__name__)

_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pdparams", ".pdopt"}
_LISTED = 20
_TOWERS = {
    "RobertaTower": "roberta",
    "ClipVisionTower": "clip_vit",
    "VitTower": "vit",
    "GroundedTransformer": "roberta",
}


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """Read all tensors of a file; fp16 and bf16 become float32.

    Raises:
        CheckpointError: no such file, a pickle, or a truncated or corrupt file.
    """
    path = Path(path)
    refuse_pickle(path)
    try:
        with safe_open(path, framework="np") as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}
            brain = _read_bf16(path) if "BF16" in kinds.values() else {}
            return {
                name: brain[name] if kind == "BF16" else _read_tensor(file, path, name, kind)
                for name, kind in kinds.items()
            }
    except OSError as error:
        reason = error if path.exists() else "No such file"
        raise CheckpointError(f"cannot read weights {path}: {reason}") from error
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is truncated or not a safetensors file: it has {path.stat().st_size} bytes "
            f"({error}); download or copy it again"
        ) from error


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


def _read_bf16(path: Path) -> dict[str, np.ndarray]:
    """The bf16 tensors of a file, which NumPy has no type for: their bits are the upper half of a float32."""
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


def write_safetensors(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write tensors so that `path` is either the old file or the whole new one, never a part.

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
            save_file(dense, temporary)
            temporary.chmod(mode)
    except (OSError, SafetensorError) as error:
        size = sum(tensor.nbytes for tensor in dense.values()) / 1e6
        reason = str(error).removeprefix("Error while serializing: I/O error: ")
        kept = "the previous file is intact" if path.exists() else "nothing was left behind"
        raise CheckpointError(
            f"could not write {path} ({size:.1f} MB): {reason}; {kept}. "
            f"Free some space or choose another output folder"
        ) from error


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


def load_tower(
    layer: nn.Layer, directory: str | Path, drop_layers: int = 0, ignore: tuple[str, ...] = ()
) -> None:
    """Fill a text or vision tower from a folder that `tools/convert_checkpoint.py` wrote.

    RoBERTa's pooler may be missing there: no model here uses it. Its one token type, a constant, is added
    to the positions when the tower has none.

    Args:
        layer: `RobertaTower`, `ClipVisionTower`, `VitTower`, or a `GroundedTransformer`, whose layers are
            those of RoBERTa.
        directory: holds `config.yaml` and `model.safetensors`.
        drop_layers: so many of the file's last blocks are left out on purpose (METER drops one).
        ignore: name prefixes of what only the file or only `layer` has.

    Raises:
        CheckpointError: not such a folder, another kind of tower, or other sizes.
    """
    from unimo.config import read_yaml

    folder = Path(directory)
    if not (folder / "config.yaml").is_file() or not (folder / "model.safetensors").is_file():
        raise CheckpointError(
            f"{folder} is not a folder of tower weights (config.yaml and model.safetensors); make one with "
            f"python tools/convert_checkpoint.py --from hf-roberta|hf-clip-vit|hf-vit ... (see --help)"
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
    token_type = "embeddings.token_type.weight"
    if token_type in tensors and token_type not in layer.state_dict():
        tensors["embeddings.position.weight"] = tensors["embeddings.position.weight"] + tensors.pop(
            token_type
        )
    dropped = tuple(f"layers.{depth + i}." for i in range(drop_layers))
    load_into(layer, tensors, str(folder), ignore=("pooler.", *ignore, *dropped))
