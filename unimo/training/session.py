"""A run in its output folder: one process at a time, from the last checkpoint to the end."""

from __future__ import annotations

import contextlib
import fcntl
import logging
from collections.abc import Iterator
from pathlib import Path

from unimo import distributed
from unimo.errors import CheckpointError
from unimo.files import write_text
from unimo.training import checkpoint
from unimo.training.loop import fit
from unimo.training.state import TrainState

logger = logging.getLogger(__name__)
CONFIG = "config.yaml"


@contextlib.contextmanager
def only_run_in(output_dir: Path) -> Iterator[None]:
    """Keep a second process from training in the same folder; the lock is released when this process ends.

    Raises:
        CheckpointError: another process holds the lock.
    """
    if distributed.rank() != 0:
        yield
        return
    output_dir.mkdir(parents=True, exist_ok=True)
    with (output_dir / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(
                f"another process is training in {output_dir}; end it, or choose another output folder"
            ) from error
        except OSError:  # file systems without locks
            logger.debug("%s cannot be locked", output_dir)
        yield


def carry_out(state: TrainState, last: Path | None, config: str) -> None:
    """Train from the checkpoint `last`, if any, to the end, or until a callback asks to stop.

    Call it inside `only_run_in`. `config` is the text for the `config.yaml` of the output folder. Errors are
    those of `checkpoint.restore` and `fit`.
    """
    if last is not None:
        checkpoint.restore(state, last)
        logger.info("resuming after step %d of %d", state.step, state.run.train.max_steps)
    if distributed.rank() == 0:
        checkpoint.remove_unfinished(state.output_dir)
        write_text(state.output_dir / CONFIG, config)
    distributed.barrier()
    try:
        fit(state)
    finally:
        state.loader.close()
