"""Tensors that stay in their file until they are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unimo.errors import CheckpointError

_MOST_AXES = 32
"""Axes that an array of NumPy 1 may have."""


class Stored:
    """A tensor of a file: its shape and type are known, `np.asarray` reads its values.

    Attributes:
        shape: lengths of its axes.
        dtype: type of the values once they are read.
        is_read: whether the values were asked for.
        is_there: whether the file has it; one that it may lack has a shape and no values.
    """

    def __init__(
        self, shape: Sequence[int], dtype: Any, read: Callable[[], np.ndarray] | None = None
    ) -> None:
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.is_read, self.is_there = False, read is not None
        self._read = read

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def T(self) -> Stored:  # noqa: N802, NumPy's name
        """The tensor with its axes in reverse order."""
        return Stored(self.shape[::-1], self.dtype, (lambda: np.asarray(self).T) if self.is_there else None)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read the values; they are not kept.

        Raises:
            CheckpointError: the file lacks them, or they cannot be read.
        """
        if self._read is None:
            raise CheckpointError(
                f"a tensor {list(self.shape)} that is missing makes part of another one, which cannot start "
                "at random; leave out --allow-missing"
            )
        self.is_read = True
        values = self._read()
        return values if dtype is None else values.astype(dtype, copy=False)


def in_file(path: Path, offset: int, kind: str, shape: Sequence[int], strides: Sequence[int] = ()) -> Stored:
    """Return a tensor whose values lie in a file one after the other, little endian.

    Halves become float32 when they are read.

    Args:
        path: the file.
        offset: byte of its first value.
        kind: type in NumPy's notation, such as `f4`; `bf16`, which NumPy lacks, is the upper half of an `f4`.
        shape: lengths of its axes.
        strides: steps between its values along each axis, in values; empty for row by row.

    Raises:
        CheckpointError: no array has this shape.
    """
    raw = np.dtype("u2" if kind == "bf16" else kind).newbyteorder("<")
    if len(shape) > _MOST_AXES or math.prod(max(side, 1) for side in shape) * raw.itemsize >= 1 << 63:
        raise CheckpointError(f"{path}: the shape of a tensor is that of no array: {list(shape[:40])}")
    count = math.prod(shape)
    if strides and count:
        count = 1 + sum((side - 1) * step for side, step in zip(shape, strides, strict=True))

    def read() -> np.ndarray:
        values = _read_values(path, offset, raw, count)
        if kind == "bf16":
            values = values.astype(np.uint32)
            values <<= 16
            values = values.view(np.float32)
        elif kind == "f2":
            values = values.astype(np.float32)
        if not strides or not count:
            return values.reshape(shape)
        steps = [step * values.itemsize for step in strides]
        return np.lib.stride_tricks.as_strided(values, shape, steps)

    return Stored(shape, "f4" if kind in ("bf16", "f2") else kind, read)


def _read_values(path: Path, offset: int, kind: np.dtype, count: int) -> np.ndarray:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            values = np.fromfile(file, kind, count)
    except OSError as error:
        raise CheckpointError(f"cannot read weights {path}: {error.strerror}") from error
    except MemoryError as error:
        size = path.stat().st_size
        raise CheckpointError(f"{path} has {size:,} bytes and does not fit into memory") from error
    if len(values) != count:
        raise CheckpointError(f"{path} is truncated: it ends inside of a tensor; download or copy it again")
    return values
