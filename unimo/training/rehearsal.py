"""What `--dry-run` checks: that all a run names is there and fits together, without building its model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from unimo import registry
from unimo.config import check_fields
from unimo.data.loading.task_data import TaskData
from unimo.data.processor import Processor, build_processor
from unimo.data.readers.base import Dataset
from unimo.data.tokenizers import load_tokenizer
from unimo.errors import CheckpointError, ConfigError, SplitError, UnimoError
from unimo.inference.evaluation import selection_of
from unimo.settings import RunConfig
from unimo.training import checkpoint, start
from unimo.training.optional_start import settle, tower_starts, without_optional
from unimo.training.run import open_processor, resolve
from unimo.weights.cards import near
from unimo.weights.named import TOWERS, card_of, converted_folder, is_of_hugging_face

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Problems:
    """Problems, each once."""

    def __init__(self) -> None:
        self.found: dict[str, type[UnimoError]] = {}

    def of(self, check: Callable[[], T]) -> T | None:
        """Return what a check returns; None if it finds something wrong."""
        try:
            return check()
        except UnimoError as error:
            self.found.setdefault(str(error), type(error))
            return None


def rehearse(run: RunConfig) -> None:
    """Check folder, tokenizer, weights and data of a run, and log what was found. Writes nothing.

    Raises:
        UnimoError: something is missing or does not fit; the message names all that was found wrong, and the
            type is that of the first.
    """
    problems = Problems()
    problems.of(lambda: check_fields(run))
    given = run
    run = problems.of(lambda: settle(given, download=False)) or without_optional(given)
    _check_towers(run, problems)
    last = problems.of(lambda: _choose_start(run))
    processor = problems.of(lambda: open_processor(run))
    if processor is not None:
        logger.info("checked: tokenizer of %d tokens", processor.tokenizer.vocab_size)
        resolved = problems.of(lambda: resolve(run, processor))
        if resolved is not None and last is not None:
            problems.of(lambda: start.check_settings(resolved, last))
        run = resolved or run
    _check_data(run, processor, problems)
    if problems.found:
        raise next(iter(problems.found.values()))("; ".join(problems.found))


def _choose_start(run: RunConfig) -> Path | None:
    """Check the output folder and where the run starts; return its own last checkpoint, if there is one."""
    output_dir = Path(run.output_dir)
    if output_dir.exists() and not output_dir.is_dir():
        raise ConfigError(f"output_dir {output_dir} is a file; expected a folder")
    last, source = start.choose_start(run, output_dir)
    logger.info("checked: output_dir %s, starting from %s", output_dir, source)
    return last if last is not None and last.parent == checkpoint.folder_of(output_dir) else None


def _check_towers(run: RunConfig, problems: Problems) -> None:
    """Check that the folders of weights that parts of the model start from are there."""
    for name, place in tower_starts(run.model).items():
        card = card_of(place)
        folder = Path(place) if card is None else converted_folder(card)
        if (folder / "model.safetensors").is_file() or is_of_hugging_face(folder):
            logger.info("checked: model.%s.init %s", name, place)
            continue
        if card is not None and card.part in TOWERS:
            logger.warning(
                "model.%s.init=%s is fetched when the run starts; now: python tools/weights.py fetch %s",
                *(name, place, place),
            )
            continue
        problem = (
            f"model.{name}.init={place}: no weights there; tools/convert_checkpoint.py writes them; "
            f"{near(place, *TOWERS)}"
        )
        problems.found.setdefault(problem, CheckpointError)


def _check_data(run: RunConfig, processor: Processor | None, problems: Problems) -> None:
    """Check that the data open, have the splits, and hold words that the tokenizer knows.

    Args:
        processor: None if there is no such tokenizer; whether its words are known is then left open.
    """
    reader = processor or build_processor(run.data, load_tokenizer("scenes"))
    selection = problems.of(lambda: selection_of(run))
    data = problems.of(lambda: registry.task_class(run.task.name).open_data(run, reader))
    if data is None or selection is None:
        return
    for corpus in data.corpora:
        problems.of(partial(data.open_split, corpus, run.data.train_split))
    for kind, corpora in data.unpaired.items():
        for corpus in corpora:
            problems.of(partial(data.open_unpaired, corpus, kind))
    if problems.found:
        return
    # Names and shares of corpora, their words, and files beside them.
    if (loader := problems.of(lambda: data.train_loader(run))) is None:
        return
    loader.close()
    found = ", ".join(f"{name} {len(dataset):,}" for name, dataset in loader.datasets.items())
    logger.info("checked: %s of %s samples", run.data.train_split, found)
    _check_held_out(run, data, selection["split"], problems)


def _check_held_out(run: RunConfig, data: TaskData, split: str, problems: Problems) -> None:
    """Check that the split to evaluate opens; a run that does not select by it may lack it."""

    def find() -> Dataset | None:
        try:
            return data.eval_dataset(split)
        except SplitError as error:
            if run.train.select_metric:
                raise
            logger.warning("no evaluation during this run: %s", error)
            return None

    if (dataset := problems.of(find)) is not None:
        logger.info("checked: %s of %d samples", split, len(dataset))
