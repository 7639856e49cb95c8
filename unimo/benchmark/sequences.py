"""Pre-training of UNIMO with batches grouped by kind compared with naive padding, in one run on real samples.

Grouped is how UNIMO trains here: pairs, texts alone and images alone in separate passes, each padded to its
longest sequence. Naive is one form for all samples (appendix A): 1 + 100 rows of an image and 512 of a text,
with missing parts masked. Each runs in its own process; they take turns on the same batches.
"""

from __future__ import annotations

import functools
import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle

from unimo.benchmark import flops
from unimo.benchmark.compare import (
    Side,
    column,
    doubts,
    format_ratio,
    format_table,
    own_side,
    ratios,
    take_turns,
)
from unimo.benchmark.machine import timed_step
from unimo.benchmark.naive_padding import PaddedUnimo, pad_batch
from unimo.data.processor import Processor
from unimo.errors import ConfigError
from unimo.models.unimo.batches import ContrastBatch, UnifiedBatch
from unimo.registry import build_model
from unimo.settings import RunConfig, load_run_config
from unimo.tasks.base import to_tensors
from unimo.tasks.pretrain import PretrainTask
from unimo.training.optimizer import build_optimizer
from unimo.training.optional_start import without_optional
from unimo.training.run import open_processor, resolve


@dataclass(frozen=True)
class Pass:
    """Sequences of one shape in a pass through the Transformer."""

    count: int
    image: int
    """Rows of the image with [IMG]; 0 without an image."""
    text: int
    """Rows of the text."""

    @property
    def rows(self) -> int:
        """Rows of all sequences."""
        return self.count * (self.image + self.text)

    def padded(self, regions: int, tokens: int) -> Pass:
        """Return the same number of sequences in full length."""
        return Pass(self.count, 1 + regions, tokens)


def passes_of(batch: UnifiedBatch) -> list[Pass]:
    """Return the passes of a training step through the Transformer, for a batch of `UnifiedCollator`."""
    found = []
    for part in (batch.pairs, batch.texts, batch.images):
        if part is None:
            continue
        rows = text = image = 0
        if part.language is not None:
            rows, text = part.language.input_ids.shape
        if part.vision is not None:
            rows, image = part.vision.regions["mask"].shape
            image += 1
        found.append(Pass(rows, image, text))
        if part.contrast is not None:
            found += _contrasted(part.contrast)
    return found


def _contrasted(batch: ContrastBatch) -> list[Pass]:
    """Return the passes of CMCL: pairs and rewrites together; images, captions and related texts alone."""
    images, regions = batch.regions["mask"].shape
    text = batch.captions["input_ids"].shape[1]
    related = batch.related["input_ids"].shape if batch.related is not None else (0, 0)
    together = len(batch.image_row) + len(batch.rewrite_pair)
    return [
        Pass(together, 1 + regions, text),
        Pass(images, 1 + regions, 0),
        Pass(len(batch.text_ids) - related[0], 0, text),
        *([Pass(related[0], 0, related[1])] if related[0] else []),
    ]


def targets_of(batch: UnifiedBatch) -> tuple[int, int]:
    """Count the tokens and regions that a batch predicts."""
    parts = [part for part in (batch.pairs, batch.texts, batch.images) if part is not None]
    languages = [part.language for part in parts if part.language is not None]
    tokens = sum(len(part.mlm_labels) + len(part.seq2seq_labels) for part in languages)
    return tokens, sum(len(part.vision.positions) for part in parts if part.vision is not None)


def count(passes: Sequence[Pass], targets: tuple[int, int], config: Any, layers: int) -> flops.Parts:
    """Count the FLOPs of a step with `layers` layers, forward and backward.

    `targets` are the numbers of tokens and regions to predict.
    """
    text, width = config.text, config.text.hidden_size
    tokens, regions = targets
    blocks = [p.count * flops.block(p.image + p.text, width, text.intermediate_size) for p in passes]
    feature, classes = config.regions.feature_size, config.regions.num_classes
    forward = {
        "layers": layers * sum(blocks),
        "regions": sum(p.count * flops.product(p.image, feature + 5, width) for p in passes),
        "heads": flops.product(tokens, width, width + text.vocab_size)
        + flops.product(regions, width, feature + classes),
    }
    return {part: flops.TRAIN * number for part, number in forward.items()}


def measure(
    recipe: str, settings: Mapping[str, Any], overrides: Sequence[str], *, layers: int
) -> dict[str, Any]:
    """Measure both sides in turn on the batches of a run.

    Args:
        recipe: recipe of pre-training a UNIMO.
        settings: `batch_size`, `steps`, `warmup`, `threads`, `matmul`.
        overrides: overrides of the recipe: corpora, tokenizer, regions.
        layers: of the Transformer that are built.

    Returns:
        Plain data: `settings`, `kinds` of the samples, the figures of both `sides`, and `time_ratio`.

    Raises:
        ConfigError, DataError: invalid settings or data.
    """
    size, warmup = settings["batch_size"], settings["warmup"]
    words = [f"train.batch_size={size}", f"train.micro_batch_size={size}", "data.num_workers=0", *overrides]
    run, processor = open_run(recipe, words)
    config, whole = run.model, run.model.text.num_layers
    if not 1 <= layers <= whole:
        raise ConfigError(f"--layers is {layers}, expected 1 to the {whole} of {config.name}")
    full = run.data.max_regions, run.data.max_text_len
    batches = read_batches(run, processor, warmup + settings["steps"])
    measured = batches[warmup:]
    shapes = {"grouped": [passes_of(batch) for batch in measured]}
    shapes["naive"] = [[one.padded(*full) for one in passes] for passes in shapes["grouped"]]
    words.append(f"model.text.num_layers={layers}")

    def opened() -> Iterator[tuple[Side, flops.Parts]]:
        for name, passes in shapes.items():
            sequences = {"overrides": words, "padded": name == "naive"}
            request = {"batch": {"batches": len(batches)}, "matmul": settings["matmul"]}
            side = own_side({"name": recipe}, {**request, "sequences": sequences}, settings["threads"])
            side.name = name
            yield side, _work(passes, measured, config, layers)

    sides = take_turns(opened(), settings, {"batch_size": size})
    for side in sides:
        passes = shapes[side["name"]]
        side["rows"] = _mean([sum(one.rows for one in step) for step in passes])
        side["flops_of_whole_model"] = sum(_work(passes, measured, config, whole).values())
    about = {"model": config.name, "layers": layers, "layers_of_model": whole, "overrides": list(overrides)}
    return {
        "settings": {**settings, **about, "regions": full[0], "tokens": full[1]},
        "sequences": _mean([sum(one.count for one in passes) for passes in shapes["grouped"]]),
        "kinds": _kinds(measured),
        "sides": sides,
        "time_ratio": ratios(sides)["naive"],
    }


def _work(
    shapes: Sequence[Sequence[Pass]], batches: Sequence[UnifiedBatch], config: Any, layers: int
) -> flops.Parts:
    """Compute the mean FLOPs over the batches."""
    pairs = zip(shapes, batches, strict=True)
    counted = [count(passes, targets_of(batch), config, layers) for passes, batch in pairs]
    return {part: _mean([one[part] for one in counted]) for part in counted[0]}


def _mean(values: Sequence[int]) -> int:
    return round(statistics.mean(values))


def _kinds(batches: Sequence[UnifiedBatch]) -> dict[str, int]:
    """Count the samples of each kind in all batches."""
    found = dict.fromkeys(("pairs", "texts", "images"), 0)
    for batch in batches:
        for kind in found:
            part = getattr(batch, kind)
            if part is not None:
                first = part.language.input_ids if part.language is not None else part.vision.regions["mask"]
                found[kind] += len(first)
    return found


def format_report(content: Mapping[str, Any]) -> str:
    """Format a table of both sides, and measured and counted ratios."""
    about, (grouped, naive), ratio = content["settings"], content["sides"], content["time_ratio"]
    kinds = ", ".join(f"{number} {kind}" for kind, number in content["kinds"].items())
    shown = functools.partial(column, content["sides"])
    rows = [
        ("", [grouped["name"], naive["name"]]),
        ("rows of all sequences", shown("rows", ",.0f")),
        ("samples/s", shown("samples_per_second", ".3f")),
        ("seconds a step", shown("seconds_per_step", ".2f")),
        ("peak memory, GB", shown("peak_bytes", ".2f", 1e9)),
        ("GFLOP a step", shown("flops_per_step", ",.1f", 1e9)),
        ("products alone, GFLOP/s", shown("matmul_flops_per_second", ".1f", 1e9)),
    ]
    counted, whole = (naive[name] / grouped[name] for name in ("flops_per_step", "flops_of_whole_model"))
    return "\n".join(
        [
            f"Pre-training of {about['model']}, {about['layers']} of its {about['layers_of_model']} layers: "
            f"forward, backward, AdamW; fp32, threads: {about['threads']}",
            f"{about['steps']} steps of {about['batch_size']} samples ({kinds} in all), on average "
            f"{content['sequences']} sequences a step; naive: {about['regions']} regions + "
            f"{about['tokens']} tokens",
            *format_table(rows, 26, 14),
            f"grouped makes {format_ratio('naive', ratio)}",
            f"operations, counted: {counted:.2f} times; with all layers {whole:.2f} times",
            *doubts((grouped, naive)),
        ]
    )


def open_run(recipe: str, overrides: Sequence[str]) -> tuple[RunConfig, Processor]:
    """Open the pre-training run of a recipe, with the sizes that follow from its data.

    Raises:
        ConfigError: unknown recipe or setting, or a model that does not read regions.
        DataError: no such data.
    """
    run = without_optional(load_run_config(recipe, "pretrain", list(overrides)))
    if not hasattr(run.model, "regions"):
        raise ConfigError(f"sequences of regions and tokens are measured on a UNIMO, not on {run.model.name}")
    processor = open_processor(run)
    return resolve(run, processor), processor


def read_batches(run: RunConfig, processor: Processor, count: int) -> list[UnifiedBatch]:
    """Read the first `count` training batches of a run, as NumPy arrays.

    Raises:
        DataError: a corpus cannot be opened, or has too many broken records.
    """
    loader = PretrainTask.open_data(run, processor).train_loader(run)
    try:
        return list(itertools.islice(loader, count))
    finally:
        loader.close()


class SequenceStep:
    """Training steps with clipping and AdamW on the batches of a run, one after the other and again.

    Args:
        model: `{"name": recipe}`.
        sizes: `batches`, the number of batches.
        overrides: overrides of the recipe.
        padded: pad all samples to `data.max_regions` and `data.max_text_len`, with pseudo images and texts.
    """

    def __init__(
        self, model: dict[str, Any], sizes: dict[str, int], *, overrides: Sequence[str], padded: bool
    ) -> None:
        run, processor = open_run(model["name"], overrides)
        paddle.seed(run.seed)
        self.batches = read_batches(run, processor, sizes["batches"])
        self.task = PretrainTask(build_model(run.model), run.task)
        self.task.train()
        self.model: Any = self.task.model
        if padded:
            full = run.data.max_regions, run.data.max_text_len
            self.model = PaddedUnimo(self.model, *full)
            padding = run.model.text.padding_id
            self.batches = [pad_batch(batch, *full, padding) for batch in self.batches]
        self.optimizer = build_optimizer(self.task, run.optim)
        self.parameters = sum(int(np.prod(parameter.shape)) for parameter in self.task.parameters())
        self.done = 0

    def loss(self, number: int) -> paddle.Tensor:
        """Compute the loss of batch `number`."""
        objective = self.task.objective
        losses, _ = objective.losses(self.model, to_tensors(self.batches[number]))
        return objective.total(losses)

    def __call__(self) -> dict[str, float]:
        """Take the next step and time it, see `timed_step`."""
        number = self.done % len(self.batches)
        self.done += 1
        return timed_step(lambda: self.loss(number), self.optimizer)
