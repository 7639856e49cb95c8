"""Operands of contrastive losses: vectors of a batch, kept and joined where a loss spans several batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import paddle
from paddle import Tensor

V = TypeVar("V", bound="Vectors")


@dataclasses.dataclass(frozen=True)
class Vectors:
    """Base of what a contrastive loss compares: a dataclass of tensors, or of dataclasses of tensors.

    Floating-point tensors (vectors, scores) have gradients; the others (identities, row numbers) have none.
    """

    @classmethod
    def join(cls: type[V], parts: Sequence[V]) -> V:
        """Return the vectors of several batches as those of one; a class with row numbers moves them."""
        return _join(parts)

    def leaves(self: V) -> V:
        """Return the same numbers without their graph, at least float32, to take gradients by."""

        def leaf(tensor: Tensor) -> Tensor:
            tensor = tensor.detach()
            if tensor.dtype in (paddle.float16, paddle.bfloat16):
                tensor = tensor.astype("float32")
            tensor.stop_gradient = not tensor.is_floating_point()
            return tensor

        return _map(self, leaf)

    def learned(self) -> list[Tensor]:
        """Return the floating-point tensors, in the order of the fields."""
        return [tensor for tensor in _tensors(self) if tensor.is_floating_point()]


def _map(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    return dataclasses.replace(value, **{name: _map(part, function) for name, part in vars(value).items()})


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    else:
        for part in vars(value).values():
            yield from _tensors(part)


def _join(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], Tensor):
        return paddle.concat(list(parts))
    names = vars(parts[0])
    return dataclasses.replace(
        parts[0], **{name: _join([getattr(part, name) for part in parts]) for name in names}
    )
