"""Grounded attention of UNIMO-2 compared with full pairwise attention and the 1-to-1 map, in one run.

A stack of Grounded Transformer layers is timed, forward and backward: with K grounded tokens and the
attention of Fig. 2; with the same rows, each of which attends to all; and with a grounded token for each
patch and text token ("1-to-1 Map" of Tables 4 and 5). Each runs in its own process, and they take turns.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unimo.benchmark import flops
from unimo.benchmark.compare import Side, column, doubts, format_table, own_side, ratios, take_turns
from unimo.benchmark.machine import timed_step
from unimo.config import merge_into
from unimo.errors import ConfigError
from unimo.registry import model_config

IMAGE_SIZES = (224, 384)
"""Sizes of pre-training and fine-tuning (section 4)."""


@dataclass(frozen=True)
class Variant:
    """One kind of attention."""

    name: str
    visibility: str
    grounded: int
    """Number of grounded tokens."""

    def logits(self, image: int, text: int) -> int:
        """Count the query-key pairs of one layer and head."""
        rows = image + self.grounded + text
        if self.visibility == "full":
            return rows * rows
        return image * (image + self.grounded) + self.grounded * rows + text * (self.grounded + text)

    def count(self, config: Any, image: int, text: int, layers: int, batch_size: int) -> flops.Parts:
        """Count the FLOPs of a step, forward and backward, of `linear` layers and `attention`."""
        width, inner = config.fusion.hidden_size, config.fusion.intermediate_size
        rows = image + self.grounded + text
        linear = flops.product(rows, width, 4 * width) + 2 * flops.product(rows, width, inner)
        attention = flops.attention(1, self.logits(image, text), width)
        scale = flops.TRAIN * layers * batch_size
        return {"linear": scale * linear, "attention": scale * attention}


def variants(config: Any, image: int, text: int) -> list[Variant]:
    """Return the three kinds for `image` and `text` rows, including class tokens, which are not grounded."""
    chosen = config.grounding.num_tokens
    return [
        Variant("grounded", "grounded", chosen),
        Variant("full pairwise", "full", chosen),
        Variant("1-to-1 map", "grounded", image - 1 + text - 1),
    ]


def measure(
    config: Any, settings: Mapping[str, Any], *, layers: int, image_sizes: Sequence[int] = IMAGE_SIZES
) -> dict[str, Any]:
    """Measure the variants in turn at each image size.

    Args:
        config: config of a UNIMO-2 size.
        settings: `batch` with `batch_size` and `text_len`; `matmul`, `threads`, `steps`.
        layers: number of layers of the stack.
        image_sizes: sides of the image in pixels.

    Returns:
        Plain data: `settings` and, for each image size, the figures of each variant.

    Raises:
        ConfigError: more layers than the model has, or none.
    """
    if not 1 <= layers <= config.fusion.num_layers:
        raise ConfigError(
            f"--layers is {layers}, expected 1 to the {config.fusion.num_layers} of {config.name}"
        )
    sizes = [
        _measure_size(replace(config, vision=replace(config.vision, image_size=size)), settings, layers)
        for size in image_sizes
    ]
    kept = {key: value for key, value in settings.items() if key != "batch"}
    batch = {key: settings["batch"][key] for key in ("batch_size", "text_len")}
    about = {"model": config.name, "layers": layers, "layers_of_model": config.fusion.num_layers}
    return {"settings": {**kept, **batch, **about}, "sizes": sizes}


def _measure_size(config: Any, settings: Mapping[str, Any], layers: int) -> dict[str, Any]:
    image, size = flops.image_tokens(config), config.vision.image_size
    batch = {**settings["batch"], "image_tokens": image}
    text, rows = batch["text_len"], batch["batch_size"]
    compared = variants(config, image, text)

    def opened() -> Iterator[tuple[Side, flops.Parts]]:
        for variant in compared:
            fusion = {"layers": layers, "grounded": variant.grounded, "visibility": variant.visibility}
            request = {"batch": batch, "matmul": settings["matmul"], "fusion": fusion}
            side = own_side({"name": config.name}, request, settings["threads"])
            side.name = f"{variant.name}, {size}"
            yield side, variant.count(config, image, text, layers, rows)

    taken = take_turns(opened(), settings, batch)
    figures = [
        {
            **side,
            "name": variant.name,
            "grounded_tokens": variant.grounded,
            "rows": image + variant.grounded + text,
            "logits": variant.logits(image, text),
            "step_bytes": side["peak_bytes"] - side["resting_bytes"],
        }
        for variant, side in zip(compared, taken, strict=True)
    ]
    time_ratios = list(ratios(taken).values())
    return {"image_size": size, "image_tokens": image, "variants": figures, "time_ratios": time_ratios}


def format_report(content: Mapping[str, Any]) -> str:
    """Format for each image size a table of the variants, with measured and counted ratios."""
    about = content["settings"]
    lines = [
        f"Grounded Transformer of {about['model']}: {about['layers']} of its {about['layers_of_model']} "
        f"layers, forward and backward, batch {about['batch_size']}, fp32, threads: {about['threads']}, "
        f"median of {about['steps']} steps"
    ]
    for size in content["sizes"]:
        lines += ["", *_format_size(size, about["text_len"])]
    return "\n".join(lines)


def _format_size(size: Mapping[str, Any], text_len: int) -> list[str]:
    sides = size["variants"]
    first, others = sides[0], sides[1:]
    heading = f"{size['image_size']} px: {size['image_tokens'] - 1} patches, {text_len} text tokens"
    names, shown = [side["name"] for side in sides], functools.partial(column, sides)
    products = [side["flops_by_part"]["attention"] for side in sides]

    def over(field: str) -> list[str]:
        return [f"{side[field] / first[field]:.2f}" for side in others]

    def times(part: str) -> list[str]:
        alone = [side["seconds_of_parts"][part] for side in sides]
        return [f"{seconds / alone[0]:.2f}" for seconds in alone[1:]]

    alone = [f"{side['seconds_of_parts']['attention']:.4f}" for side in sides]
    rows = [
        (heading, names),
        ("grounded tokens", shown("grounded_tokens", ".0f")),
        ("logits, one layer and head", shown("logits", ",.0f")),
        ("seconds a step", shown("seconds_per_step", ".3f")),
        ("  attention of one layer alone", alone),
        ("products alone, GFLOP/s", shown("matmul_flops_per_second", ".0f", 1e9)),
        ("memory a step adds, MB", shown("step_bytes", ".0f", 1e6)),
        ("peak memory of the process, MB", shown("peak_bytes", ".0f", 1e6)),
        ("GFLOP a step", shown("flops_per_step", ".1f", 1e9)),
        ("  attention products of these", [f"{count / 1e9:.1f}" for count in products]),
    ]
    measured = [f"{r['median']:.2f} ({r['lowest']:.2f} to {r['highest']:.2f})" for r in size["time_ratios"]]
    compared = [
        ("times that of grounded:", names[1:]),
        ("time, measured", measured),
        ("  the same in processor time", times("processor")),
        ("operations, counted", over("flops_per_step")),
        ("attention alone, time measured", times("attention")),
        ("  the same in processor time", times("attention_processor")),
        ("  with a padding mask, in processor time", times("masked_processor")),
        ("attention alone, operations counted", [f"{count / products[0]:.2f}" for count in products[1:]]),
        ("memory a step adds, measured", over("step_bytes")),
    ]
    return [*format_table(rows, 36, 22), *format_table(compared, 58, 22), *doubts(sides)]


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

        from unimo.models.unimo2.grounded_attention import GroundedTransformer, Layout, understanding_views
        from unimo.nn.attention import use_fused_kernel

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
