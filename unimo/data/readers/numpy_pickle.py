"""Arrays and plain values out of a pickle, without running anything that its author put in.

Some data sets (CIFAR) are distributed as pickles, and unpickling calls whatever function the file names.
Here only the names that rebuild NumPy arrays and mappings are known, and they stand for functions of this
file or for plain types.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unimo.errors import DataError


def _empty_array(subtype: object, shape: object, kind: object) -> np.ndarray:
    """What an array is before its state is set; its real shape and type come with the state."""
    return np.ndarray.__new__(np.ndarray, (0,), "u1")


def _scalar(kind: np.dtype, data: bytes) -> np.generic:
    """A number of NumPy; object types, which would hold whatever the bytes say, are refused by NumPy."""
    return np.frombuffer(data, kind)[0]


def _latin1(text: str, encoding: str) -> bytes:
    """Bytes that Python 3 wrote in the old protocols."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes as {encoding!r}")
    return text.encode("latin1")


# Global name in the file -> what it means here. The array class is only ever an argument, so it is a mark.
_KNOWN: Mapping[tuple[str, str], Callable[..., Any] | str] = {
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("collections", "OrderedDict"): dict,
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
}


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that knows `_KNOWN` and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _KNOWN[module, name]


def read_numpy_pickle(path: str | Path) -> dict[str, Any]:
    """The mapping in a pickle of arrays, numbers, strings, bytes, lists and mappings.

    Strings of Python 2 come as bytes, but keys are strings.

    Raises:
        DataError: missing or damaged file, no mapping, or a pickle that asks for anything else.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            content = _ArrayUnpickler(file, encoding="bytes").load()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} was not opened: {error}; expected a pickle of NumPy arrays, strings, lists and mappings "
            "only. Download it again from its owner, or take another format: safetensors for weights, the "
            "binary version of a data set"
        ) from error
    except Exception as error:  # damaged pickles raise nearly anything
        raise DataError(f"{path} is not a complete pickle: {error}; download it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a mapping, found {type(content).__name__}")
    return {key.decode("utf8", "replace") if isinstance(key, bytes) else str(key): value
            for key, value in content.items()}  # fmt: skip
