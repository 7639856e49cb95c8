"""Positions: RoBERTa's numbering of tokens, and tables that follow the size of an image."""

from __future__ import annotations

import math

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

from unimo.errors import ConfigError


def token_positions(attention_mask: Tensor, padding_id: int = 1) -> Tensor:
    """Return RoBERTa's position ids [B, T]: tokens count from padding_id + 1, padding gets padding_id."""
    mask = attention_mask.astype("int64")
    return paddle.cumsum(mask, axis=1) * mask + padding_id


def table_grid(rows: int) -> int | None:
    """Return g for a position table of 1 + g * g rows (class row and square grid), None for other numbers."""
    grid = math.isqrt(max(0, rows - 1))
    return grid if grid and grid * grid + 1 == rows else None


def resize_positions(table: np.ndarray, new_grid: int) -> np.ndarray:
    """Resize a position table [1 + g * g, D] to [1 + new_grid * new_grid, D].

    Row 0 (class token) is kept, the square grid is interpolated bicubically with align_corners=False, as
    METER and BridgeTower do. A table of that grid is returned as the same object.

    Raises:
        ConfigError: the table without its first row is not a square grid.
    """
    old_grid = table_grid(table.shape[0])
    if old_grid is None:
        raise ConfigError(
            f"a position table of {table.shape[0]} rows is not a class row and a square grid; "
            "expected 1 + g * g rows, e.g. 197 for 14 x 14 patches"
        )
    if old_grid == new_grid:
        return table
    tensor = paddle.to_tensor(table).astype("float32")
    return interpolate_positions(tensor, old_grid, new_grid, new_grid).numpy().astype(table.dtype)


def interpolate_positions(table: Tensor, grid: int, rows: int, columns: int) -> Tensor:
    """Resize a position table [1 + grid * grid, D] to [1 + rows * columns, D], as `resize_positions`."""
    square = table[1:].reshape([1, grid, grid, -1]).transpose([0, 3, 1, 2])
    fitted = F.interpolate(square, size=[rows, columns], mode="bicubic", align_corners=False)
    return paddle.concat([table[:1], fitted.transpose([0, 2, 3, 1]).reshape([rows * columns, -1])])
