"""Grounded attention of UNIMO-2 compared with full pairwise attention and the 1-to-1 map, in one run.

A stack of Grounded Transformer layers is timed, forward and backward: with K grounded tokens and the
attention of Fig. 2; with the same rows, each of which attends to all; and with a grounded token for each
patch and text token ("1-to-1 Map" of Tables 4 and 5). Each runs in its own process, and they take turns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unimo.benchmark import flops
from unimo.benchmark.compare import Result, alternate, doubts, ratios
from unimo.benchmark.sides import own_side
from unimo.errors import ConfigError

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
    sizes = []
    for image_size in image_sizes:
        resized = replace(config, vision=replace(config.vision, image_size=image_size))
        image = flops.image_tokens(resized)
        sizes.append(_measure_size(config, dict(settings), layers, image_size, image))
    kept = {key: value for key, value in settings.items() if key != "batch"}
    batch = {key: settings["batch"][key] for key in ("batch_size", "text_len")}
    about = {"model": config.name, "layers": layers, "layers_of_model": config.fusion.num_layers}
    return {"settings": {**kept, **batch, **about}, "sizes": sizes}


def _measure_size(
    config: Any, settings: dict[str, Any], layers: int, image_size: int, image: int
) -> dict[str, Any]:
    batch = {**settings["batch"], "image_tokens": image}
    text, rows = batch["text_len"], batch["batch_size"]
    compared = variants(config, image, text)
    with contextlib.ExitStack() as stack:
        sides = []
        for variant in compared:
            fusion = {"layers": layers, "grounded": variant.grounded, "visibility": variant.visibility}
            request = {"batch": batch, "matmul": settings["matmul"], "fusion": fusion}
            side = own_side({"name": config.name}, request, settings["threads"])
            side.name = f"{variant.name}, {image_size}"
            stack.callback(side.close)
            sides.append((side, variant.count(config, image, text, layers, rows)))
        results = alternate(sides, settings["steps"], settings["warmup"])
    return {
        "image_size": image_size,
        "image_tokens": image,
        "variants": [_plain(v, r, batch) for v, r in zip(compared, results, strict=True)],
        "time_ratios": list(ratios(results).values()),
    }


def _plain(variant: Variant, result: Result, batch: Mapping[str, int]) -> dict[str, Any]:
    image, text = batch["image_tokens"], batch["text_len"]
    return {
        **result.plain(batch),
        "name": variant.name,
        "grounded_tokens": variant.grounded,
        "rows": image + variant.grounded + text,
        "logits": variant.logits(image, text),
        "step_bytes": result.peak_bytes - result.resting_bytes,
    }


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

    rows: list[tuple[str, list[str]]] = [
        (heading, [side["name"] for side in sides]),
        ("grounded tokens", [f"{side['grounded_tokens']}" for side in sides]),
        ("logits, one layer and head", [f"{side['logits']:,}" for side in sides]),
        ("seconds a step", [f"{side['seconds_per_step']:.3f}" for side in sides]),
        ("  attention of one layer alone", [f"{_part(side, 'attention'):.4f}" for side in sides]),
        ("products alone, GFLOP/s", [f"{side['matmul_flops_per_second'] / 1e9:.0f}" for side in sides]),
        ("memory a step adds, MB", [f"{side['step_bytes'] / 1e6:.0f}" for side in sides]),
        ("peak memory of the process, MB", [f"{side['peak_bytes'] / 1e6:.0f}" for side in sides]),
        ("GFLOP a step", [f"{side['flops_per_step'] / 1e9:.1f}" for side in sides]),
        ("  attention products of these", [f"{_attention(side) / 1e9:.1f}" for side in sides]),
    ]

    def times(name: str) -> list[str]:
        return [f"{_part(side, name) / _part(first, name):.2f}" for side in others]

    def over(field: str) -> list[str]:
        return [f"{side[field] / first[field]:.2f}" for side in others]

    table: list[tuple[str, list[str]]] = [
        ("times that of grounded:", [side["name"] for side in others]),
        (
            "time, measured",
            [f"{r['median']:.2f} ({r['lowest']:.2f} to {r['highest']:.2f})" for r in size["time_ratios"]],
        ),
        ("  the same in processor time", times("processor")),
        ("operations, counted", over("flops_per_step")),
        ("attention alone, time measured", times("attention")),
        ("  the same in processor time", times("attention_processor")),
        ("  with a padding mask, in processor time", times("masked_processor")),
        (
            "attention alone, operations counted",
            [f"{_attention(side) / _attention(first):.2f}" for side in others],
        ),
        ("memory a step adds, measured", over("step_bytes")),
    ]
    return [
        *(f"{label:<36}" + "".join(f"{text:>22}" for text in texts) for label, texts in rows),
        *(f"{label:<58}" + "".join(f"{text:>22}" for text in texts) for label, texts in table),
        *doubts(sides),
    ]


def _part(side: Mapping[str, Any], name: str) -> float:
    return side["seconds_of_parts"][name]


def _attention(side: Mapping[str, Any]) -> int:
    return side["flops_by_part"]["attention"]
