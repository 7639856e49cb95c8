"""Between layers and tensors by name: strict loading into a layer or a tower, and the tensors of one."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from unimo.config import coerce, read_yaml
from unimo.errors import CheckpointError
from unimo.weights.cards import near
from unimo.weights.files import open_safetensors
from unimo.weights.name_map import Tensors, describe
from unimo.weights.named import TOWERS, tower_folder
from unimo.weights.stored import Stored

logger = logging.getLogger(__name__)
_TOKEN_TYPE, _POSITION = "embeddings.token_type.weight", "embeddings.position.weight"


def tensors_of(layer: nn.Layer) -> dict[str, np.ndarray]:
    """Return parameters and persistable buffers by structured name; fp16 and bf16 become float32."""
    return {name: np.asarray(value) for name, value in open_layer(layer).items()}


def open_layer(layer: nn.Layer) -> dict[str, Stored]:
    """Return what `tensors_of` returns, each copied only when it is asked for."""
    narrow = {paddle.bfloat16, paddle.float16}

    def stored(value: paddle.Tensor) -> Stored:
        kind = "float32" if value.dtype in narrow else str(value.dtype).rpartition(".")[2]
        return Stored(value.shape, kind, lambda: value.astype(kind).numpy())

    return {name: stored(value) for name, value in layer.state_dict().items()}


def load_into(
    layer: nn.Layer, tensors: Tensors, where: str, ignore: Iterable[str] = ()
) -> dict[str, tuple[list[int], list[int]]]:
    """Load tensors into all parameters and persistable buffers of a layer, or change nothing.

    A sublayer with a method `fit_table(name, table)` is asked to resize what was stored in another shape, as
    positions of an image are; it returns the table as it is where that cannot be done.

    Args:
        layer: the layer to fill; its structured names are the names of the tensors.
        where: file or folder, for messages.
        ignore: prefixes of names that may be missing or extra, e.g. `("mlm_head.",)`.

    Returns:
        Name of each tensor that was resized -> its shape in the file and in the layer.

    Raises:
        CheckpointError: names what is missing, extra, mis-shaped or of another type, as integers are.
    """
    state, ignored = layer.state_dict(), tuple(ignore)
    owners = dict(layer.named_sublayers(include_self=True))
    fitted, resized, misshaped, mistyped = {}, {}, [], []
    for name, parameter in state.items():
        if name not in tensors:
            continue
        place, _, own = name.rpartition(".")
        array, wanted = tensors[name], list(parameter.shape)
        if is_whole(array) != is_whole(parameter):
            mistyped.append(f"{name} (file {array.dtype}, model {parameter.dtype})")
            continue
        fit = getattr(owners.get(place), "fit_table", None)
        if list(array.shape) != wanted and fit is not None:
            array = fit(own, np.asarray(array))
        if list(array.shape) != wanted:
            misshaped.append(f"{name} (file {list(tensors[name].shape)}, model {wanted})")
        elif array.shape != tensors[name].shape:
            resized[name] = (list(tensors[name].shape), wanted)
            logger.info("%s: resized from %s to %s", name, *resized[name])
        fitted[name] = array
    problems = {
        "missing": [name for name in state if name not in tensors and not name.startswith(ignored)],
        "extra": [name for name in tensors if name not in state and not name.startswith(ignored)],
        "mis-shaped": misshaped,
        "of another type": mistyped,
    }
    if any(problems.values()):
        raise CheckpointError(
            f"the weights in {where} do not fit this model; {describe(problems)}. "
            "Check that model.name, its sizes and task.* are those the weights were made with"
        )
    for name, array in fitted.items():
        state[name].set_value(np.asarray(array, "float32" if array.dtype == np.float64 else array.dtype))
    return resized


def is_whole(tensor: np.ndarray | Stored | paddle.Tensor) -> bool:
    """Return whether the numbers of an array or tensor are no floats: integers or bool."""
    return "float" not in str(tensor.dtype)


def load_tower(
    tower: nn.Layer, directory: str | Path, drop_layers: int = 0, ignore: tuple[str, ...] = ()
) -> None:
    """Fill a text or vision tower from a folder that `tools/convert_checkpoint.py` wrote, or by name.

    RoBERTa's pooler may be missing there: no model here uses it. Its one token type, a constant, is added
    to the positions when the tower has none.

    Args:
        tower: the layer to fill. Its `tower_kind` is the kind of folder that it reads (key `tower` of
            `config.yaml`), its `layers` are the blocks.
        directory: the folder, or the name of a card, see `unimo.weights.named`.
        drop_layers: number of last blocks in the file that are left out on purpose (METER drops one).
        ignore: prefixes of names that only the file or only the tower has.

    Raises:
        CheckpointError: not such a folder, another kind of tower, or other sizes.
    """
    folder = tower_folder(directory)
    if not (folder / "config.yaml").is_file() or not (folder / "model.safetensors").is_file():
        raise CheckpointError(
            f"{folder} is not a folder of tower weights (config.yaml and model.safetensors); make one with "
            "python tools/convert_checkpoint.py --from ... (see --help), "
            f"or name {near(directory, *TOWERS)}"
        )
    config = read_yaml(folder / "config.yaml")
    depth = coerce(config.get("num_layers", 0), int, f"{folder / 'config.yaml'}: num_layers") - drop_layers
    blocks = tower.layers
    found = (config.get("tower"), depth, config.get("num_heads"))
    wanted = (tower.tower_kind, len(blocks), blocks[0].attention.num_heads)
    if found != wanted:
        texts = ["a {} tower of {} layers and {} heads".format(*kind) for kind in (found, wanted)]
        raise CheckpointError(
            f"{folder} holds {texts[0]}, the model wants {texts[1]}; give the folder of another model"
        )
    tensors: dict[str, np.ndarray | Stored] = {**open_safetensors(folder / "model.safetensors")}
    if {_TOKEN_TYPE, _POSITION} <= tensors.keys() and _TOKEN_TYPE not in tower.state_dict():
        token_type = tensors.pop(_TOKEN_TYPE)
        if token_type.shape != (1, *tensors[_POSITION].shape[1:]):
            raise CheckpointError(f"{folder}: {_TOKEN_TYPE} is {list(token_type.shape)}, expected one row")
        tensors[_POSITION] = np.asarray(tensors[_POSITION]) + np.asarray(token_type)
    dropped = tuple(f"layers.{depth + i}." for i in range(drop_layers))
    random = tuple(str(name) for name in config.get("random") or ())
    if random:
        logger.warning("%s starts at random: %s, which the converted file lacked", folder, ", ".join(random))
    load_into(tower, tensors, str(folder), ignore=("pooler.", *ignore, *dropped, *random))
