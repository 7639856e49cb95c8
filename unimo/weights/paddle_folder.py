"""Weights in a folder with one file for each parameter, as static-graph Paddle 1.x and 2.x wrote them.

The name of a file is that of the parameter. Its content, little endian: uint32 0; uint64 number of sequence
levels, then for each a uint64 size and so many bytes; uint32 0; int32 size of a protobuf message, whose field
1 is the data type and whose field 2 repeats the dimensions; the values, row by row.

Nothing unpickles, and Paddle is not needed (its own reader finds nothing in such folders since 3.0).
"""

from __future__ import annotations

import logging
import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from unimo.errors import CheckpointError

logger = logging.getLogger(__name__)

DTYPES = {2: "int32", 3: "int64", 4: "float16", 5: "float32", 6: "float64"}
# What training leaves beside the parameters: accumulators of Adam, fp32 copies of fp16 weights, rates,
# counters and loss scales; and tables of the decoder that blocks repeated trigrams.
NOT_WEIGHTS = re.compile(
    r"_(moment[12]|beta[12]_pow_acc|fp32_master)_\d+$|^@\w+@$|^(scheduled_)?learning_rate(_\d+)?$"
    r"|^(num_(good|bad)_steps|loss_scaling)(_\d+)?$|^duplicated_trigram_blocking_"
)
_MOST_LEVELS, _LONGEST_MESSAGE, _MOST_AXES, _LARGEST_AXIS = 16, 1024, 8, 2**31 - 1
_VARINT, _BYTES = 0, 2
_AGAIN = "download or copy it again"


def read_folder(folder: str | Path) -> dict[str, np.ndarray]:
    """Read all parameters of a folder; fp16 becomes float32.

    What training or decoding left there, hidden files and folders are skipped.

    Raises:
        CheckpointError: no such folder, no parameters in it, or a file that is damaged or none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "a file; if it is an archive, unpack it (tar -xzf)" if folder.exists() else "no such folder"
        raise CheckpointError(f"{folder}: {found}; expected a folder with one file for each parameter")
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise CheckpointError(f"cannot read the folder {folder}: {error.strerror}") from error
    files = [path for path in inside if path.is_file() and not path.name.startswith(".")]
    kept = [path for path in files if not NOT_WEIGHTS.search(path.name)]
    if not kept:
        folders = ", ".join(path.name for path in inside if path.is_dir())
        found = f"only the folders {folders}; give one of them" if folders else "none; was it unpacked?"
        raise CheckpointError(f"{folder}: expected one file for each parameter, found {found}")
    if len(kept) < len(files):
        skipped = len(files) - len(kept)
        logger.info("%s: %d files of optimizer, counters and decoder skipped", folder, skipped)
    return {path.name: read_parameter(path) for path in kept}


def read_parameter(path: str | Path) -> np.ndarray:
    """Read one file; fp16 becomes float32.

    Raises:
        CheckpointError: it cannot be read, is cut short, or is no such file.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            kind, shape = _read_header(file, path)
            dtype, count = np.dtype(kind).newbyteorder("<"), math.prod(shape)
            found = path.stat().st_size - file.tell()
            if found != count * dtype.itemsize:
                problem = "is truncated" if found < count * dtype.itemsize else "is longer than it says"
                raise CheckpointError(
                    f"{path} {problem}: expected {count * dtype.itemsize:,} bytes of values ({kind} "
                    f"{list(shape)}), found {found:,}; {_AGAIN}"
                )
            values = np.fromfile(file, dtype, count).reshape(shape)
    except OSError as error:
        raise CheckpointError(f"cannot read the parameter {path}: {error.strerror}") from error
    return values.astype("float32" if kind == "float16" else kind, copy=False)


def _read_header(file: BinaryIO, path: Path) -> tuple[str, tuple[int, ...]]:
    """Data type and shape; leaves the file at its first value."""
    _check_version(file, path, "format")
    levels = _take(file, path, "<Q")
    if levels > _MOST_LEVELS:
        raise CheckpointError(
            f"{path} says that it has {levels} sequence levels, expected 0 to {_MOST_LEVELS}; {_AGAIN}"
        )
    for _ in range(levels):
        _take_bytes(file, path, _take(file, path, "<Q"))
    _check_version(file, path, "tensor")
    length = _take(file, path, "<i")
    if not 0 < length <= _LONGEST_MESSAGE:
        raise CheckpointError(
            f"{path} says that its description has {length} bytes, expected 1 to {_LONGEST_MESSAGE}; {_AGAIN}"
        )
    message = _take_bytes(file, path, length)
    try:
        kinds, dims = _parse(message)
    except ValueError as error:
        raise CheckpointError(
            f"{path} has a damaged description of its tensor: expected a data type and dimensions, "
            f"{error}; {_AGAIN}"
        ) from error
    if len(kinds) != 1 or kinds[0] not in DTYPES:
        known = ", ".join(f"{code} ({name})" for code, name in DTYPES.items())
        raise CheckpointError(
            f"{path} has data type {', '.join(map(str, kinds)) or 'none'}, expected one of {known}; save the "
            "weights as float32"
        )
    if len(dims) > _MOST_AXES or not all(1 <= dim <= _LARGEST_AXIS for dim in dims):
        raise CheckpointError(
            f"{path} has dimensions {dims[: _MOST_AXES + 1]}, expected at most {_MOST_AXES} of 1 to "
            f"{_LARGEST_AXIS}; {_AGAIN}"
        )
    return DTYPES[kinds[0]], tuple(dims)


def _check_version(file: BinaryIO, path: Path, what: str) -> None:
    version = _take(file, path, "<I")
    if version != 0:
        raise CheckpointError(
            f"{path} has {what} version {version}, expected 0: static-graph Paddle did not save it; move "
            "files of other kinds out of the folder"
        )


def _take(file: BinaryIO, path: Path, kind: str) -> int:
    (number,) = struct.unpack(kind, _take_bytes(file, path, struct.calcsize(kind)))
    return number


def _take_bytes(file: BinaryIO, path: Path, count: int) -> bytes:
    left = path.stat().st_size - file.tell()
    if count > left:
        raise CheckpointError(
            f"{path} is truncated: expected {count:,} more bytes of its header, found {left:,}; {_AGAIN}"
        )
    return file.read(count)


def _parse(message: bytes) -> tuple[list[int], list[int]]:
    """Data types and dimensions of a protobuf message; dimensions may be packed or not."""
    kinds: list[int] = []
    dims: list[int] = []
    for number, value in _fields(message):
        values = [value] if isinstance(value, int) else list(_varints(value))
        if number == 1:
            kinds += values
        elif number == 2:
            dims += values
    return kinds, dims


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value, at = _varint(message, at)
        if key & 7 == _VARINT:
            yield key >> 3, value
        elif key & 7 == _BYTES and at + value <= len(message):
            yield key >> 3, message[at : at + value]
            at += value
        else:
            raise ValueError(f"found a field {key >> 3} of kind {key & 7} at byte {at}")


def _varints(message: bytes) -> Iterator[int]:
    at = 0
    while at < len(message):
        value, at = _varint(message, at)
        yield value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number at a place, seven bits a byte, the lowest first, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("found its end in the middle of a number")
        value |= (message[at] & 0x7F) << shift
        at += 1
        if message[at - 1] < 0x80:
            return value, at
    raise ValueError(f"found a number of more than 10 bytes at byte {at}")
