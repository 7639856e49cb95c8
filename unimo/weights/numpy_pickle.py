"""Arrays and plain values from a pickle, without running anything that its author put in.

Some data sets (CIFAR) and weights (`.pdparams`, Detectron2) are distributed as pickles, and unpickling calls
whatever function the file names. Here only the names that rebuild NumPy arrays and mappings are known, and
they stand for functions of this file or for plain types.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unimo.errors import DataError


def _empty_array(subtype: object, shape: object, kind: object) -> np.ndarray:
    """Return an array whose shape and type are set with its state, which comes later in the file."""
    return np.ndarray.__new__(np.ndarray, (0,), "u1")


def _scalar(kind: np.dtype, data: bytes) -> np.generic:
    """Return a NumPy number; NumPy refuses object types, whose bytes would be pointers."""
    return np.frombuffer(data, kind)[0]


def _latin1(text: str, encoding: str) -> bytes:
    """Return bytes that Python 3 wrote as text, as it does in the old protocols."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes as {encoding!r}")
    return text.encode("latin1")


# Global name in the file -> its meaning here. The array class is only an argument, so a string stands for it.
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
    """An unpickler that knows the names in `_KNOWN` and no others."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _KNOWN[module, name]


def read_numpy_pickle(path: str | Path) -> dict[str, Any]:
    """Read a mapping from a pickle of arrays, numbers, strings, bytes, lists and mappings.

    Strings of Python 2 are returned as bytes, but keys are strings.

    Raises:
        DataError: the file is missing or damaged, holds no mapping, or asks for anything else.
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
    return text_keys(content)


def text_keys(content: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a mapping with strings for keys, which are bytes in files of Python 2."""
    return {
        key.decode("utf8", "replace") if isinstance(key, bytes) else str(key): value
        for key, value in content.items()
    }
