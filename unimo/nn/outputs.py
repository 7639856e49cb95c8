"""`Encoded`: the result of every model, whatever its architecture.

Shapes: B batch, T text length, V visual length, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import paddle
from paddle import Tensor


@dataclass(frozen=True)
class Encoded:
    """Named tensors of a forward pass; those that a pass does not compute are None.

    All tensors have the batch first, so that rows can be picked (`select`), whatever the model.
    """

    text: Tensor | None = None
    """[B, T, D_t] last states of the text tower."""
    image: Tensor | None = None
    """[B, V, D_v] last states of the image tower, class token first."""
    text_mask: Tensor | None = None
    """[B, T] 1 = token, 0 = padding."""
    image_mask: Tensor | None = None
    """[B, V] 1 = real, None = all real."""
    fused_text: Tensor | None = None
    """[B, T, D] text states after fusion."""
    fused_image: Tensor | None = None
    """[B, V, D] image states after fusion."""
    grounded: Tensor | None = None
    """[B, K, D] states of the grounded tokens after fusion (UNIMO-2)."""
    grounded_ids: Tensor | None = None
    """[B, K] row of the dictionary that each grounded token is."""
    pooled: Tensor | None = None
    """[B, P] one vector for each pair, which classifiers read."""
    text_layers: tuple[Tensor, ...] = ()
    """Text tower states, embeddings first; on request."""
    image_layers: tuple[Tensor, ...] = ()
    """Image tower states, embeddings first; on request."""
    attentions: Mapping[str, Tensor] = field(default_factory=dict)
    """Name of the attention -> [B, H, queries, keys]; on request."""
    links: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors of a tower besides its last state that the model's own `fuse` reads."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Encoded:
        """Apply `function` to every tensor."""
        changes = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, tuple):
                changes[item.name] = tuple(function(tensor) for tensor in value)
            elif isinstance(value, Mapping):
                changes[item.name] = {key: function(tensor) for key, tensor in value.items()}
            elif value is not None:
                changes[item.name] = function(value)
        return replace(self, **changes)

    def select(self, rows: Tensor) -> Encoded:
        """Return the batch rows `rows` (int tensor [N], repeats allowed) of every tensor."""
        return self.map(lambda tensor: paddle.gather(tensor, rows, axis=0))


def concat_rows(parts: Sequence[Encoded]) -> Encoded:
    """Join encodings along the batch; shorter ones get rows of zeros, which their masks, zero too, hide."""
    tensors: list[list[Tensor]] = [[] for _ in parts]
    for part, found in zip(parts, tensors, strict=True):
        part.map(lambda tensor, found=found: found.append(tensor) or tensor)
    joined = iter([_concat(same) for same in zip(*tensors, strict=True)])
    return parts[0].map(lambda _: next(joined))


def _concat(tensors: Sequence[Tensor]) -> Tensor:
    if tensors[0].ndim < 2:
        return paddle.concat(list(tensors))
    longest = max(tensor.shape[1] for tensor in tensors)
    padded = []
    for tensor in tensors:
        size, length, *others = tensor.shape
        missing = paddle.zeros([size, longest - length, *others], tensor.dtype)
        padded.append(tensor if length == longest else paddle.concat([tensor, missing], axis=1))
    return paddle.concat(padded)
