"""Between layers and tensors by name: strict loading into a layer, and the tensors of one."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import numpy as np
import paddle
from paddle import nn

from unimo.errors import CheckpointError
from unimo.weights.name_map import Tensors, describe

logger = logging.getLogger(__name__)


@runtime_checkable
class FitsTables(Protocol):
    """A layer with tables that follow a size, such as positions of an image, and may be stored in another."""

    def fit_table(self, name: str, table: np.ndarray) -> np.ndarray:
        """Return a stored parameter in the size of the layer's own, or as it is where that cannot be done.

        Args:
            name: its name within the layer.
            table: the stored values.
        """


def tensors_of(layer: nn.Layer) -> dict[str, np.ndarray]:
    """Return parameters and persistable buffers by structured name; fp16 and bf16 become float32."""
    narrow = {paddle.bfloat16, paddle.float16}
    return {
        name: (value.astype("float32") if value.dtype in narrow else value).numpy()
        for name, value in layer.state_dict().items()
    }


def load_into(layer: nn.Layer, tensors: Tensors, where: str, ignore: Iterable[str] = ()) -> None:
    """Load tensors into all parameters and persistable buffers of a layer, or change nothing.

    A sublayer that `FitsTables` is asked to resize what was stored in another shape.

    Args:
        layer: the layer to fill; its structured names are the names of the tensors.
        tensors: arrays by name.
        where: file or folder, for messages.
        ignore: prefixes of names that may be missing or extra, e.g. `("mlm_head.",)`.

    Raises:
        CheckpointError: names what is missing, extra or mis-shaped.
    """
    state, ignored = layer.state_dict(), tuple(ignore)
    owners = dict(layer.named_sublayers(include_self=True))
    fitted, misshaped = {}, []
    for name, parameter in state.items():
        if name not in tensors:
            continue
        place, _, own = name.rpartition(".")
        array, owner, wanted = tensors[name], owners.get(place), list(parameter.shape)
        if list(array.shape) != wanted and isinstance(owner, FitsTables):
            array = owner.fit_table(own, array)
        if list(array.shape) != wanted:
            misshaped.append(f"{name} (file {list(tensors[name].shape)}, model {wanted})")
        elif array.shape != tensors[name].shape:
            logger.info("%s: resized from %s to %s", name, list(tensors[name].shape), wanted)
        fitted[name] = array
    problems = {
        "missing": [name for name in state if name not in tensors and not name.startswith(ignored)],
        "extra": [name for name in tensors if name not in state and not name.startswith(ignored)],
        "mis-shaped": misshaped,
    }
    if any(problems.values()):
        raise CheckpointError(
            f"the weights in {where} do not fit this model; {describe(problems)}. "
            "Check that model.name and its sizes are those the weights were made with"
        )
    for name, array in fitted.items():
        state[name].set_value(array.astype(np.float32) if array.dtype == np.float64 else array)
