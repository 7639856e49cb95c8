"""Sizes of tensors, in Python and in exported programs."""

from __future__ import annotations

import paddle
from paddle import Tensor


def length(x: Tensor, axis: int) -> int | Tensor:
    """Return the size of an axis: a number, or where a program that is exported leaves it open, the tensor
    that holds it when the program runs."""
    known = x.shape[axis]
    return known if known >= 0 else paddle.shape(x)[axis]
