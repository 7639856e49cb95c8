"""Pictures of any size through a model that reads squares: windows that overlap, and the mean of them."""

from __future__ import annotations

from collections.abc import Callable

import paddle
from paddle import Tensor


def window_starts(length: int, size: int, stride: int) -> list[int]:
    """Return where windows of `size` pixels begin along a side, `stride` apart; the last ends with the side.

    Args:
        length: of the side, at least `size`.
    """
    count = -(-(length - size) // stride) + 1
    return [min(number * stride, length - size) for number in range(count)]


def slide(score: Callable[[Tensor], Tensor], pixels: Tensor, size: int, stride: int) -> Tensor:
    """Compute the logits [B, classes, h, w] of pictures, each pixel the mean over the windows that show it.

    Args:
        score: logits [B, classes, S, S] of windows [B, 3, S, S].
        pixels: [B, 3, h, w], both sides at least S long.
        size, stride: S, and the distance of neighbouring windows.
    """
    height, width = pixels.shape[2:]
    total, seen = None, paddle.zeros([1, 1, height, width])
    for top in window_starts(height, size, stride):
        for left in window_starts(width, size, stride):
            rows, columns = slice(top, top + size), slice(left, left + size)
            logits = score(pixels[:, :, rows, columns])
            if total is None:
                total = paddle.zeros([*logits.shape[:2], height, width])
            total[:, :, rows, columns] += logits.astype("float32")
            seen[:, :, rows, columns] += 1.0
    return total / seen
