"""Scores of a model directory on a split of its data, or of other data."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from unimo import distributed
from unimo.config import merge_plain, parse_overrides
from unimo.data.loading.known_words import unknown_words
from unimo.data.loading.loader import RATE_CHECK_AFTER, EvalLoader, RecordCounter
from unimo.data.loading.task_data import TaskData
from unimo.data.processor import ProcessorConfig
from unimo.data.splits import common, split_words, validation_split
from unimo.errors import ConfigError, DataError
from unimo.files import make_place
from unimo.inference.loading import find_model, load_task, read_model_config
from unimo.metrics.average import gather_objects
from unimo.progress import tracked
from unimo.registry import task_class
from unimo.settings import RunConfig, build_run_config, named_section, with_mode
from unimo.tasks.base import Batch, Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation."""

    run: RunConfig
    """Config that it ran with."""
    metrics: dict[str, float]
    records: list[dict[str, Any]]
    """One row per sample: the answer, label or ranking (pre-training has none)."""
    samples: int
    """Number of texts that were evaluated; broken records do not count."""
    split: str
    """Split that they are of."""


def evaluate(
    directory: str | Path,
    split: str = "",
    task: str = "",
    overrides: Sequence[str] = (),
    blank_images: bool = False,
) -> Evaluation:
    """Evaluate a model directory.

    Args:
        directory: model directory or run folder.
        split: split of the data that the model was trained on, unless `overrides` name others; empty for the
            one that was evaluated during training.
        task: expected task; empty for any.
        overrides: words such as `data.path=DIR` over the config of the directory; not its model.
        blank_images: replace every image by one colour, to measure what can be answered without looking.

    Raises:
        ConfigError: the directory is of another task, or an override is wrong.
        CheckpointError, DataError: no such model or data.
    """
    run = run_of(directory, overrides)
    if task and task != run.task.name:
        raise ConfigError(
            f"{directory} was trained on {run.task.name!r}, not on {task!r}; try --task {run.task.name}, or "
            f"fine-tune first: python tools/finetune.py --task {task} --init {directory}"
        )
    split = split or selection_of(run)["split"]
    trained = run_of(directory).data
    seen = common(split, split_words(trained.train_split))
    if seen and trained.path == run.data.path and trained.pairs == run.data.pairs:
        logger.warning("%s was trained on %s; scores of %s are not of held-out data", directory, seen, split)
    distributed.setup(run.train)
    layer, processor = load_task(directory, processor_changes(run, blank_images), config=run.task)
    return measure(layer, task_class(run.task.name).open_data(run, processor, layer.metadata), split, run)


def measure(layer: Task, data: TaskData, split: str, run: RunConfig) -> Evaluation:
    """Evaluate an opened task on a split of opened data, over all ranks.

    Raises:
        DataError: too many records of the split, or all, are broken.
    """
    rank, world_size = distributed.rank(), distributed.world_size()
    batches = data.eval_loader(split, run, rank, world_size, run.train.eval_batch_size)
    if problem := unknown_words(data.processor.tokenizer, split, batches.dataset):
        logger.warning("%s: the scores say little of a model that cannot read them", problem)
    records: list[dict[str, Any]] = []
    seen: list[str] = []

    def note_samples(batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            seen.extend(batch.sample_ids)
            yield batch

    most = run.train.eval_max_batches or None
    total = min(len(batches), most) if most else len(batches)
    metrics = layer.evaluate(
        note_samples(tracked(itertools.islice(batches, most), f"evaluating {split}", total, unit="batches")),
        lambda prediction: records.extend(prediction.get("records", [])),
    )
    judge_records(batches, split)
    found = records, len(seen)
    parts = gather_objects(found) if data.share_eval else [found]
    # Ranks read samples in turn, so this is the order of the split (but for records that were broken).
    turns = itertools.chain.from_iterable(itertools.zip_longest(*(part for part, _ in parts)))
    samples = sum(count for _, count in parts)
    if not samples:
        raise DataError(f"the split {split} has no samples to evaluate")
    joined = [record for record in turns if record is not None]
    return Evaluation(run, metrics, joined, samples, split)


def judge_records(batches: EvalLoader, split: str) -> None:
    """Judge the broken records of a pass over a split, those of all ranks together. Collective.

    Raises:
        DataError: more than `data.max_bad_rate` of at least 100 were broken, or all of any number.
    """
    own = batches.counter.state_dict()
    counter = RecordCounter(batches.counter.max_bad_rate)
    for state in gather_objects(own) if batches.world_size > 1 else [own]:
        counter.read.update(state["read"])
        counter.bad.update(state["bad"])
    if counter.bad.total() and counter.bad.total() == counter.read.total():
        raise DataError(f"all records of the split {split} are broken; the log names the first and why")
    counter.check(RATE_CHECK_AFTER)


def selection_of(run: RunConfig) -> dict[str, str]:
    """Return how a run chooses its checkpoint: `selection`, the `split` it is evaluated on, `train_split`.

    Raises:
        ConfigError: as `validation_split`.
    """
    split = validation_split(run.data, task_class(run.task.name).paper_selection)
    return {"selection": run.data.selection, "split": split, "train_split": run.data.train_split}


def processor_changes(run: RunConfig, blank_images: bool = False) -> dict[str, Any]:
    """Return the fields of a processor as the data section of a run has them."""
    changes = {item.name: getattr(run.data, item.name) for item in fields(ProcessorConfig)}
    return changes | {"blank_images": run.data.blank_images or blank_images}


def model_changes(run: RunConfig) -> dict[str, Any]:
    """Return the fields of a model config that `run_of` lets overrides change."""
    return {"mode": run.model.mode} if hasattr(run.model, "mode") else {}


def run_of(directory: str | Path, overrides: Sequence[str] = (), task: str = "") -> RunConfig:
    """Return the run config that a model directory was saved with, under `overrides`.

    Args:
        directory: model directory or run folder.
        overrides: words such as `data.path=DIR`; `task.mode` for a model that was pre-trained in all modes.
        task: task to take with its defaults instead of the saved one.

    Raises:
        ConfigError: an override is wrong, or would change the model.
    """
    changes = parse_overrides(list(overrides))
    if "model" in changes:
        raise ConfigError(
            "model.* belongs to the weights and cannot be overridden here; try data.* or train.*"
        )
    saved = read_model_config(directory)
    if "mode" in named_section(changes.get("task"), "task"):
        if saved["task"]["name"] != "pretrain" or saved["task"].get("modes") != "both":
            raise ConfigError(
                f"task.mode: {directory} was trained in one mode, which cannot be overridden here; leave it "
                "out, or give a model that was pre-trained in both"
            )
        changes = with_mode(changes | {"model": {}}, saved["model"]["name"])
    # Sections that the config of a run does not have.
    content = {name: section for name, section in saved.items() if name not in ("metadata", "processor")}
    if task:
        content["task"] = {"name": task}
    return build_run_config(merge_plain(content, changes))


def write_predictions(path: str | Path, evaluation: Evaluation) -> Path:
    """Write the records of an evaluation in the format of the task (`Task.write_records`).

    Raises:
        ConfigError: the task makes no records, or the file cannot be written.
    """
    task = evaluation.run.task.name
    if not evaluation.records:
        raise ConfigError(f"task {task!r} writes no predictions; leave out --predictions")
    path = make_place(path, "--predictions")
    task_class(task).write_records(path, evaluation.records)
    return path


def describe(directory: str | Path, evaluation: Evaluation, blank_images: bool) -> dict[str, Any]:
    """Return what `tools/evaluate.py` prints: the scores, what was evaluated, and how it was chosen."""
    run, trained = evaluation.run, run_of(directory).data
    task = task_class(run.task.name)
    corpora = next(filter(None, task.corpora(run).values()), [])
    left_out = {"scores_left_out": list(task.left_out)} if task.left_out else {}
    return left_out | {
        "task": run.task.name,
        "model": run.model.name,
        "directory": str(find_model(directory)),
        "data": [corpus.path for corpus in corpora],
        "split": evaluation.split,
        "train_split": trained.train_split,
        "selection": trained.selection,
        "blank_images": blank_images,
        "samples": evaluation.samples,
        "metrics": evaluation.metrics,
    }
