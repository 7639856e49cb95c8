"""Runs that start from a file of released weights: a model directory is made of it first."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from unimo import distributed, registry
from unimo.errors import CheckpointError
from unimo.inference import loading
from unimo.inference.release import convert_release
from unimo.settings import RunConfig

logger = logging.getLogger(__name__)


def with_model_directory(run: RunConfig, folder: Path) -> RunConfig:
    """Return the run with a model directory in place of a file that `init_from` names. Collective.

    What is in `folder` already is not made again.

    Args:
        run: the run. Its tokenizer becomes that of the directory; `auto` is that of `scenes`.
        folder: where to put the directory.

    Raises:
        CheckpointError: the file is none of those that the model's paper converts.
    """
    file, kinds = Path(run.init_from), registry.paper_of(run.model.name).converters
    if not (run.init_from and file.is_file() and kinds):
        return run
    distributed.setup(run.train)
    distributed.on_first(lambda: _convert(run, file, folder, list(kinds)))
    return replace(run, init_from=str(folder))


def _convert(run: RunConfig, file: Path, folder: Path, kinds: list[str]) -> None:
    if (folder / loading.WEIGHTS).is_file():
        return
    tokenizer = "scenes" if run.data.tokenizer == "auto" else run.data.tokenizer
    problems: dict[str, None] = {}
    for kind in kinds:
        try:
            convert_release(kind, file, tokenizer, folder)
        except CheckpointError as error:
            problems[str(error)] = None
        else:
            logger.info("init_from=%s is read as %s, and is in %s", file, kind, folder)
            return
    raise CheckpointError(
        f"init_from={file} is none of the files that {run.model.name} starts from ({', '.join(kinds)}): "
        f"{' '.join(problems)}"
    )
