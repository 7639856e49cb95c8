"""Cost of retrieval: N pictures and N texts by vectors, by fusing all pairs, and by fusing the first K only.

Vectors take 2 N passes through the network, fusion N^2, which is the reason for VLMo's dual encoder (sections
1 and 4.4). Between them are two stages: vectors choose K results of each query, which the fusion re-ranks.
What that costs is measured on random inputs; what it loses, on held-out `scenes` with a trained model.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import paddle

from unimo.benchmark.compare import batch_of, format_table
from unimo.errors import ConfigError
from unimo.inference import loading
from unimo.inference.evaluation import processor_changes, run_of
from unimo.inference.zero_shot import open_matcher
from unimo.models.base import Model
from unimo.registry import create_model, list_models, task_class
from unimo.tasks.retrieval.batches import RetrievalBatch
from unimo.tasks.retrieval.matching import Gallery, MatchingTask, score_pairs
from unimo.tasks.retrieval.task import RetrievalConfig, RetrievalTask

logger = logging.getLogger(__name__)
BATCH = 50
"""Pairs that are encoded at a time."""
DUAL = (16, 8, 4, 2, 1)
"""Parts of the largest gallery whose vectors are measured."""
FUSED = (32, 16, 8)
"""Parts of the largest gallery whose pairs are all fused."""
FIRST = (2, 4, 8, 16, 24)
"""Numbers of results of each query that are re-ranked."""
LEAST_SECONDS = 1.0
"""Processor time below which a measurement is repeated and averaged."""


def measure(
    model: str,
    overrides: Sequence[str] = (),
    *,
    largest: int = 4000,
    text_len: int | None = None,
    first: Sequence[int] = FIRST,
) -> dict[str, Any]:
    """Measure the cost and, with a trained model, what re-ranking the first K loses against fusing all pairs.

    Args:
        model: registered model, with random weights, or directory of a pre-trained or fine-tuned one.
        overrides: settings of the run of that directory, such as `data.scenes.val_images=200`.
        largest: most pictures whose vectors are measured; all pairs of an eighth of them are fused.
        text_len: tokens of each random text; None for 50, or as many as fit.
        first: numbers of results of each query that are re-ranked.

    Returns:
        Plain data: `settings`; `dual` and `fused`, each with `seconds` of processor time by `count`, and the
        `exponent`; `two_stage`, a list, empty for random weights.

    Raises:
        ConfigError, CapabilityError: the model is unknown, its vectors do not rank, or a number does not fit.
        CheckpointError: the directory holds no model that learned contrast and matching.
    """
    if largest < max(FUSED):
        raise ConfigError(
            f"--largest is {largest}; all pairs of 1/{max(FUSED)} of them are fused: {max(FUSED)} or more"
        )
    if model in list_models():
        if overrides:
            raise ConfigError(
                f"{overrides[0]}: {model} has random weights and reads no data; give a directory"
            )
        paddle.seed(0)
        task: MatchingTask = RetrievalTask.create(create_model(model), RetrievalConfig(loss="itc", rerank=1))
        task.eval()
        stages = []
    else:
        count = largest // min(FUSED)
        if max(first) > count:
            raise ConfigError(
                f"the first {max(first)} of {count} results: the gallery is smaller; raise --largest"
            )
        words = ["data.path=scenes", f"data.scenes.val_images={count}", "data.scenes.captions_per_image=1"]
        task, stages = two_stages(model, [*words, *overrides], first)
    length = batch_of([task.model.config], BATCH, text_len)["text_len"]
    with paddle.no_grad():
        dual = _series(task, [largest // part for part in DUAL], length, fuses=False)
        fused = _series(task, [largest // part for part in FUSED], length, fuses=True)
    about = {"model": model, "text_len": length, "largest": largest}
    return {"settings": about, "dual": dual, "fused": fused, "two_stage": stages}


def _series(task: MatchingTask, counts: Sequence[int], length: int, fuses: bool) -> dict[str, Any]:
    """Measure galleries of several sizes, and fit the exponent."""
    seconds = []
    for count in counts:
        seconds.append(processor_time(task, count, length, fuses))
        way = "all pairs" if fuses else "vectors"
        logger.info("%s of %d pictures and texts: %.2f s of processor time", way, count, seconds[-1])
    return {"count": list(counts), "seconds": seconds, "exponent": exponent(counts, seconds)}


def processor_time(task: MatchingTask, count: int, length: int, fuses: bool) -> float:
    """Measure the processor time in seconds of scoring `count` random texts with as many pictures.

    Args:
        length: tokens of a text.
        fuses: fuse all pairs, after the vectors; otherwise the vectors are all.
    """
    own, task.config = task.config, replace(task.config, rerank=int(fuses), exhaustive=fuses)
    batches = list(random_pairs(task.model, count, length))
    taken: list[float] = []
    try:
        score_pairs(task, Gallery.collect(task, batches[:1]))  # an allocator settles
        while sum(taken) < LEAST_SECONDS:
            began = time.process_time()
            score_pairs(task, Gallery.collect(task, batches))
            taken.append(time.process_time() - began)
    finally:
        task.config = own
    return sum(taken) / len(taken)


def random_pairs(model: Model, count: int, length: int) -> Iterator[RetrievalBatch]:
    """Yield `count` pairs of texts of `length` tokens and pictures, in batches of `BATCH` that are equal."""
    rng, side = np.random.default_rng(0), model.config.vision.image_size
    ids = rng.integers(5, model.config.text.vocab_size, (BATCH, length))
    pixels = rng.standard_normal((BATCH, 3, side, side), dtype=np.float32)
    for start in range(0, count, BATCH):
        rows = np.arange(start, min(start + BATCH, count))
        names = [str(row) for row in rows]
        yield RetrievalBatch(
            images=pixels[: len(rows)],
            input_ids=ids[: len(rows)],
            attention_mask=np.ones_like(ids[: len(rows)]),
            image_group=rows,
            sample_ids=names,
            image_ids=names,
        )


def exponent(counts: Sequence[int], seconds: Sequence[float]) -> float:
    """Fit the exponent p of seconds = c N^p by least squares of the logarithms."""
    return float(np.polyfit(np.log(counts), np.log(seconds), 1)[0])


def two_stages(
    directory: str, overrides: Sequence[str], first: Sequence[int]
) -> tuple[MatchingTask, list[dict[str, Any]]]:
    """Rank a split by vectors, by re-ranking the first K, and by fusing all pairs.

    Returns:
        The task, and a row for each way: `way`, `first`, number of `fused` pairs and their `share`, processor
        time of scoring in `seconds`, `tr_r1` and `ir_r1` in percent.
    """
    is_tuned = loading.read_model_config(directory)["task"]["name"] == "retrieval"
    run = run_of(directory, overrides, "" if is_tuned else "retrieval")
    config = replace(run.task, rerank=max(first), exhaustive=False)
    if is_tuned:
        task, processor = loading.load_task(directory, processor_changes(run), config)
    else:
        task, processor = open_matcher(directory, processor_changes(run), config)
    data = task_class("retrieval").open_data(run, processor)
    rows: list[dict[str, Any]] = []
    with paddle.no_grad():
        gallery = Gallery.collect(task, data.eval_loader("val", run, 0, 1, run.train.eval_batch_size))
        ways = [("vectors", 0), *(("two stages", count) for count in first), ("all pairs", None)]
        for way, count in ways:
            task.config = replace(
                config, rerank=max(first) if count is None else count, exhaustive=count is None
            )
            began = time.process_time()
            scores = score_pairs(task, gallery)
            taken, chosen = time.process_time() - began, gallery.candidates(count)
            recall = {name: gallery.recall(scores)[name] for name in ("tr_r1", "ir_r1")}
            shares = {"fused": int(chosen.sum()), "share": float(chosen.mean()), "seconds": taken}
            rows.append({"way": way, "first": count, **shares, **recall})
    task.config = config
    return task, rows


def format_report(content: Mapping[str, Any]) -> str:
    """Format the tables of processor times, and of two stages if there are any."""
    about = content["settings"]
    lines = [
        f"{about['model']}: N pictures, N texts of {about['text_len']} tokens, processor time in seconds"
    ]
    for name, label in (("dual", "vectors, 2 N passes"), ("fused", "all pairs fused, N x N")):
        part = content[name]
        table = [
            (label, [f"N = {count:,}" for count in part["count"]]),
            (f"  N to the power of {part['exponent']:.2f}", [f"{value:.2f}" for value in part["seconds"]]),
        ]
        lines += ["", *format_table(table, 28, 12)]
    if content["two_stage"]:
        table = [("ranked by", ["fused pairs", "share", "seconds", "text R@1", "image R@1"])]
        for row in content["two_stage"]:
            label = f"{row['way']}, first {row['first']}" if row["first"] else row["way"]
            cells = [f"{row['fused']:,}", f"{row['share']:.1%}", f"{row['seconds']:.1f}"]
            table.append((label, [*cells, f"{row['tr_r1']:.1f}", f"{row['ir_r1']:.1f}"]))
        lines += ["", *format_table(table, 28, 12)]
    return "\n".join(lines)
