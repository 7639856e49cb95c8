"""Weights in a folder with one file for each parameter, as static-graph Paddle 1.x and 2.x wrote them.

The name of a file is that of the parameter. Its content, little endian: uint32 0; uint64 number of sequence
levels, then for each a uint64 size and that many bytes; uint32 0; int32 size of a protobuf message of type
`VarType.TensorDesc`, which Paddle still ships (its own reader finds nothing in such folders since 3.0); the
values, row by row.

Nothing is unpickled.
"""

from __future__ import annotations

import logging
import math
import re
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from unimo.errors import CheckpointError
from unimo.files import checked_path, regular
from unimo.limits import WEIGHTS_BYTES
from unimo.weights.stored import Stored, in_file

logger = logging.getLogger(__name__)

DTYPES = {2: "int32", 3: "int64", 4: "float16", 5: "float32", 6: "float64"}
# Left beside the parameters by training: accumulators of Adam, fp32 copies of fp16 weights, learning rates,
# counters and loss scales. Left by decoding: tables that block repeated trigrams.
NOT_WEIGHTS = re.compile(
    r"_(moment[12]|beta[12]_pow_acc|fp32_master)_\d+$|^@\w+@$|^(scheduled_)?learning_rate(_\d+)?$"
    r"|^(num_(good|bad)_steps|loss_scaling)(_\d+)?$|^duplicated_trigram_blocking_"
)
_MOST_LEVELS, _LONGEST_MESSAGE, _MOST_AXES, _LARGEST_AXIS = 16, 1024, 8, 2**31 - 1
_AGAIN = "download or copy it again"


def open_folder(folder: str | Path) -> dict[str, Stored]:
    """Open all parameters of a folder; fp16 becomes float32.

    Hidden files, folders, and files left by training or decoding are skipped.

    Raises:
        CheckpointError: no such folder, no parameters in it, or a file that is damaged or of another format.
    """
    folder = checked_path(folder, CheckpointError, "the folder")
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
    return {path.name: open_parameter(path) for path in kept}


def open_parameter(path: str | Path) -> Stored:
    """Open one file; fp16 becomes float32.

    Raises:
        CheckpointError: it cannot be read, is truncated, or is of another format.
    """
    path = Path(path)
    try:
        with regular(path, WEIGHTS_BYTES).open("rb") as file:
            kind, shape = _read_header(file, path)
            dtype, count = np.dtype(kind).newbyteorder("<"), math.prod(shape)
            found = path.stat().st_size - file.tell()
            if found != count * dtype.itemsize:
                problem = "is truncated" if found < count * dtype.itemsize else "is longer than it says"
                raise CheckpointError(
                    f"{path} {problem}: expected {count * dtype.itemsize:,} bytes of values ({kind} "
                    f"{list(shape)}), found {found:,}; {_AGAIN}"
                )
            begin = file.tell()
    except OSError as error:
        raise CheckpointError(f"cannot read the parameter {path}: {error.strerror}") from error
    return in_file(path, begin, dtype.str[1:], shape)


def _read_header(file: BinaryIO, path: Path) -> tuple[str, tuple[int, ...]]:
    """Read data type and shape; the file is then at its first value."""
    from google.protobuf.message import DecodeError
    from paddle.base.proto.framework_pb2 import VarType

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
    message, description = _take_bytes(file, path, length), VarType.TensorDesc()
    try:
        # Unlike `ParseFromString` this allows a missing data type, for which there is a better message.
        description.MergeFromString(message)
    except DecodeError as error:
        raise CheckpointError(
            f"{path} has a damaged description of its tensor: expected a data type and dimensions, found "
            f"{message[:16].hex(' ')}; {_AGAIN}"
        ) from error
    # There is none where Paddle does not know the number in the file.
    kind = description.data_type if description.HasField("data_type") else None
    dims = list(description.dims)
    if kind not in DTYPES:
        known = ", ".join(f"{code} ({name})" for code, name in DTYPES.items())
        raise CheckpointError(
            f"{path} has data type {kind or 'none'}, expected one of {known}; save the weights as float32"
        )
    if len(dims) > _MOST_AXES or not all(1 <= dim <= _LARGEST_AXIS for dim in dims):
        raise CheckpointError(
            f"{path} has dimensions {dims[: _MOST_AXES + 1]}, expected at most {_MOST_AXES} of 1 to "
            f"{_LARGEST_AXIS}; {_AGAIN}"
        )
    return DTYPES[kind], tuple(dims)


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
