"""Layers and functions with Paddle's meaning, without its slow CPU kernels.

Paddle 3.3.1 reduces a gradient over rows (bias of a product, scale and shift of a norm) one element at a
time, adds tensors of different shapes as slowly, and draws one random number a call for dropout. On 1280x512
floats, one core, milliseconds forward / backward:

    nn.Linear(512, 512)  6.0 / 14.3      here 6.3 / 11.3
    nn.LayerNorm(512)    0.8 / 7.9       here 1.9 / 2.6
    F.dropout            9.1 / 1.0       here 1.8 / 0.9

On attention logits of 192x4x47x47 floats, a mask of 192x1x1x47 and a bias of 1x4x47x47:

    logits + mask        20.3 / 3.0       here 2.3 / 2.1
    logits + bias        19.0 / 24.6      here 3.0 / 3.3

On 5x50265 floats `F.log_softmax` takes 1490 / 1490, and here 1.5 / 1.0; besides, Paddle cuts results off at
-64, and here they are exact.

The same sums are products with a row of ones, normalizing rows is batch normalization with the rows as
channels, and NumPy draws 64 random bits at a time. Elsewhere than on a CPU Paddle's own kernels run.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.autograd import PyLayer


def _sum_rows(rows: Tensor) -> Tensor:
    """Sum [..., D] over all but the last axis, to [D]."""
    rows = rows.reshape([-1, rows.shape[-1]])
    return paddle.matmul(paddle.ones([1, rows.shape[0]], rows.dtype), rows)[0]


class _AddBias(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        ctx.x_needs_gradient, ctx.bias_needs_gradient = not x.stop_gradient, not bias.stop_gradient
        return x + bias

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        # Paddle wants None for what needs no gradient.
        return grad if ctx.x_needs_gradient else None, _sum_rows(grad) if ctx.bias_needs_gradient else None


class _Scale(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.x_needs_gradient = not x.stop_gradient
        return x * weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensor()
        return grad * weight if ctx.x_needs_gradient else None, _sum_rows(grad * x)


class _ScaleShift(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.x_needs_gradient, ctx.weight_needs_gradient = not x.stop_gradient, not weight.stop_gradient
        return x * weight + bias

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensor()
        to_x = grad * weight if ctx.x_needs_gradient else None
        if not ctx.weight_needs_gradient:
            return to_x, None, None
        return to_x, _sum_rows(grad * x), _sum_rows(grad)


@functools.lru_cache(maxsize=64)
def _row_statistics(rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return scale 1, shift 0 and two tensors in which batch_norm keeps its running statistics."""
    return paddle.ones([rows]), paddle.zeros([rows]), paddle.zeros([rows]), paddle.ones([rows])


_uses_paddle = False
_gradients_follow = False


@contextlib.contextmanager
def paddle_kernels() -> Iterator[None]:
    """Run Paddle's own kernels inside a `with` block.

    `paddle.grad` fails at layers written in Python that return gradients of parameters when it was asked for
    those of an input.
    """
    global _uses_paddle
    before, _uses_paddle = _uses_paddle, True
    try:
        yield
    finally:
        _uses_paddle = before


@contextlib.contextmanager
def no_gradients_yet() -> Iterator[None]:
    """Compute without gradients inside a `with` block, but by the kernels that run with them.

    A second forward pass, with gradients, then gives the same bits.
    """
    global _gradients_follow
    before, _gradients_follow = _gradients_follow, True
    try:
        with paddle.no_grad():
            yield
    finally:
        _gradients_follow = before


def _is_slow(x: Tensor, *parameters: Tensor | None) -> bool:
    """Return whether Paddle's slow backward kernel would run, on a CPU."""
    has_gradients = paddle.is_grad_enabled() or _gradients_follow
    if _uses_paddle or not (has_gradients and x.place.is_cpu_place() and x.size):
        return False
    return any(p is not None and not p.stop_gradient for p in parameters)


def add_bias(x: Tensor, bias: Tensor) -> Tensor:
    """Add a bias [D] to x [..., D]."""
    return _AddBias.apply(x, bias) if _is_slow(x, bias) else x + bias


def scale_columns(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply x [..., D] by weight [D]."""
    return _Scale.apply(x, weight) if _is_slow(x, weight) else x * weight


def add_mask(logits: Tensor, mask: Tensor) -> Tensor:
    """Add a mask or a bias [B or 1, H or 1, Q or 1, S] to attention logits [B, H, Q, S]."""
    if _uses_paddle or not logits.place.is_cpu_place() or mask.shape == logits.shape:
        return logits + mask
    if mask.shape == [1, *logits.shape[1:]]:
        return add_bias(logits.flatten(1), mask.flatten()).reshape(logits.shape)
    return logits + (mask.expand(logits.shape) if mask.stop_gradient else mask)


def dropout(x: Tensor, probability: float, training: bool) -> Tensor:
    """Zero each element with `probability` (to 1/65536) and scale the rest to keep the mean.

    The mask follows from Paddle's generator, as with `F.dropout`.
    """
    if not training or not probability:
        return x
    if not x.place.is_cpu_place():
        return F.dropout(x, probability)
    seed = paddle.randint(0, 2**31 - 1, [1]).item()
    bits = np.random.SFC64(seed).random_raw(-(-x.size // 4)).view(np.uint16)[: x.size]
    dropped = round(probability * 65536)
    scale = np.float32(65536 / (65536 - dropped))
    mask = (bits >= dropped).astype(np.float32) * scale
    return x * paddle.to_tensor(mask.reshape(x.shape)).astype(x.dtype)


def log_softmax(x: Tensor) -> Tensor:
    """Compute the logarithms of the softmax over the last axis of [..., C], x - max - log sum exp(x - max).

    The maximum cancels in the gradient, softmax(x) apart, so none flows through it.
    """
    if not x.place.is_cpu_place():
        return F.log_softmax(x)
    shifted = x - x.max(-1, keepdim=True).detach()
    return shifted - shifted.exp().sum(-1, keepdim=True).log()


class Linear(nn.Linear):
    """`paddle.nn.Linear`: x [..., in] -> x W + b [..., out]."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to [..., in]."""
        if self.bias is None or not _is_slow(x, self.bias):
            return F.linear(x, self.weight, self.bias)
        return add_bias(paddle.matmul(x, self.weight), self.bias)


class LayerNorm(nn.LayerNorm):
    """`paddle.nn.LayerNorm` over the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize [..., D] over D."""
        if not _is_slow(x, self.weight, self.bias):
            return super().forward(x)
        rows = x.reshape([1, -1, x.shape[-1]])
        one, zero, mean, variance = _row_statistics(rows.shape[1])
        normal = F.batch_norm(rows, mean, variance, one, zero, training=True, epsilon=self._epsilon)
        return _ScaleShift.apply(normal.reshape(x.shape), self.weight, self.bias)
