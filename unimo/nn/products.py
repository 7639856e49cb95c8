"""Counts of the floating-point operations of matrix products, taken while a model runs.

A product of [m, k] and [k, n] is 2 m k n operations; norms, softmax, activations and updates are not counted.
In training each factor that learns, or that something before it learns through, costs the product again:
a linear layer between others costs three times its forward pass, a frozen one once or twice.

Every product of the library goes through one of four functions of Paddle, which are replaced while counting.
`paddle.flops` knows types of layers only, and sees no attention.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import Tensor


@dataclass
class Products:
    """Operations of the matrix products of a piece of work."""

    forward: int = 0
    """Of the forward pass."""
    training: int = 0
    """Of the forward and backward pass, with that which recomputation adds."""

    def add(self, operations: int, *factors: Tensor) -> None:
        """Count one product.

        Args:
            operations: those of the product itself.
            factors: both factors; those that need a gradient cost a product each. Without gradients inside a
                pass that has them, a block is computed once more (`run_block`), then with all gradients.
        """
        self.forward += operations
        if paddle.is_grad_enabled():
            self.training += operations * (1 + sum(not factor.stop_gradient for factor in factors))
        else:
            self.training += operations * (2 + len(factors) if self.recomputes else 1)

    recomputes: bool = False
    """Whether products without gradients are those of blocks that are computed again."""


@contextlib.contextmanager
def count_products(recomputes: bool = False) -> Iterator[Products]:
    """Count the matrix products inside a `with` block: `matmul`, `linear`, convolutions and attention.

    Args:
        recomputes: the work is the forward pass of a model with `set_recompute`.
    """
    found = Products(recomputes=recomputes)
    places: list[tuple[Any, str, Callable[..., Tensor]]] = [
        (paddle, "matmul", _matmul),
        (F, "linear", _linear),
        (F.conv, "_conv_nd", _convolution),
        (F, "scaled_dot_product_attention", _attention),
    ]
    before = [(place, name, getattr(place, name)) for place, name, _ in places]

    is_inside = False

    def counted(real: Callable[..., Tensor], count: Callable[..., None]) -> Callable[..., Tensor]:
        def product(*arguments: Any, **options: Any) -> Tensor:
            nonlocal is_inside
            if is_inside:  # on a CPU fused attention is made of products
                return real(*arguments, **options)
            is_inside = True
            try:
                result = real(*arguments, **options)
            finally:
                is_inside = False
            count(found, result, *arguments, **options)
            return result

        return product

    try:
        for (place, name, count), (_, _, real) in zip(places, before, strict=True):
            setattr(place, name, counted(real, count))
        yield found
    finally:
        for place, name, real in before:
            setattr(place, name, real)


def _matmul(
    found: Products, result: Tensor, x: Tensor, y: Tensor, transpose_x: bool = False, *_: Any, **__: Any
) -> None:
    inner = x.shape[-2 if transpose_x and x.ndim > 1 else -1]
    found.add(2 * result.size * inner, x, y)


def _linear(found: Products, result: Tensor, x: Tensor, weight: Tensor, *_: Any, **__: Any) -> None:
    found.add(2 * result.size * weight.shape[0], x, weight)


def _convolution(found: Products, result: Tensor, x: Tensor, weight: Tensor, *_: Any, **__: Any) -> None:
    found.add(2 * result.size * math.prod(weight.shape[1:]), x, weight)


def _attention(
    found: Products, result: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> None:
    """Count logits and weighted sums of [B, Q, H, D], [B, S, H, D] and [B, S, H, D]."""
    each = 2 * query.size * key.shape[1]
    found.add(each, query, key)
    found.add(each, query if not query.stop_gradient else key, value)
