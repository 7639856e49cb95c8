"""Timed forward and backward passes of UNIMO-2's Grounded Transformer with one kind of attention."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from unimo.benchmark.machine import timed_step


class FusionStep:
    """Layers on random image, grounded and text rows without padding, with dropout as configured.

    Args:
        model: `{"name": ..., further config fields}` of a UNIMO-2 size.
        sizes: `batch_size`; `image_tokens` and `text_len`, including class tokens.
        layers: number of layers of the Grounded Transformer.
        grounded: K, number of grounded tokens.
        visibility: `grounded` (Fig. 2) or `full` (all rows attend to all).
    """

    def __init__(
        self, model: dict[str, Any], sizes: dict[str, int], *, layers: int, grounded: int, visibility: str
    ) -> None:
        import paddle

        from unimo.config import merge_into
        from unimo.models.unimo2.grounded_attention import GroundedTransformer, Layout, understanding_views
        from unimo.nn.attention import use_fused_kernel
        from unimo.registry import model_config

        paddle.seed(0)
        changes = {key: value for key, value in model.items() if key != "name"}
        config = merge_into(
            merge_into(model_config(model["name"]), changes), {"fusion": {"num_layers": layers}}
        )
        rows, image, text = sizes["batch_size"], sizes["image_tokens"], sizes["text_len"]
        self.transformer = GroundedTransformer(config)
        self.transformer.train()
        # Without padding no mask is needed. A mask of ones would be added to every logit of full attention
        # but to few of grounded attention; its cost is measured separately.
        masked = Layout(image, grounded, text, text_mask=paddle.ones([rows, text]))
        self.views = understanding_views(Layout(image, grounded, text), visibility, rows)
        self.masked_views = understanding_views(masked, visibility, rows)
        self.inputs = [paddle.randn([rows, count, config.hidden_size]) for count in (image, grounded, text)]
        for states in self.inputs:
            states.stop_gradient = False
        # A random direction, because the gradient of a plain mean vanishes after a layer norm.
        self.direction = paddle.randn([rows, image + grounded + text, config.hidden_size])
        self.heads_first = not use_fused_kernel()
        heads, count = config.fusion.num_heads, image + grounded + text
        order = [heads, count] if self.heads_first else [count, heads]
        self.packed = [paddle.randn([rows, *order, config.hidden_size // heads]) for _ in range(3)]
        self.parameters = sum(int(np.prod(p.shape)) for p in self.transformer.parameters())

    def __call__(self) -> dict[str, float]:
        """Time one step without an update, see `timed_step`.

        Further figures are those of the attention of one layer alone: `attention`, and `masked` with a
        padding mask, with `_processor` in processor time.
        """
        answer = timed_step(self._loss)
        for tensor in (*self.inputs, *self.transformer.parameters()):
            tensor.clear_gradient()
        for name, views in (("attention", self.views), ("masked", self.masked_views)):
            answer[name], answer[f"{name}_processor"] = self._attend(views)
        return answer

    def _loss(self) -> Any:
        states, _ = self.transformer(self.transformer.join(*self.inputs), self.views)
        return (states * self.direction).mean()

    def _attend(self, views: Sequence[Any]) -> tuple[float, float]:
        """Time logits, softmax, dropout and sums of one layer, both passes: seconds and processor time."""
        import paddle

        def rows(tensor: Any, part: slice) -> Any:
            return tensor[:, :, part] if self.heads_first else tensor[:, part]

        mix = self.transformer.layers[0].attention.mix
        packed = [tensor.detach() for tensor in self.packed]
        for tensor in packed:
            tensor.stop_gradient = False
        query, key, value = packed
        start, began = time.perf_counter(), time.process_time()
        mixed = []
        for view in views:
            read = rows(key, view.keys), rows(value, view.keys)
            mixed.append(mix(rows(query, view.queries), *read, view.mask, self.heads_first)[0])
        (paddle.concat(mixed, axis=1) * self.direction).mean().backward()
        float(query.grad[0, 0, 0, 0])
        return time.perf_counter() - start, time.process_time() - began
