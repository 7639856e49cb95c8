"""Folders that hand a model over to others: whole or not at all, and never a mixture of two."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from unimo.errors import CheckpointError
from unimo.files import checked_path, publish_folder


def check_replaceable(folder: str | Path, marks: Sequence[str], what: str) -> Path:
    """Return a folder that may be written: a new or empty one, or an older `what`, which has all files
    `marks` and will be replaced.

    Raises:
        CheckpointError: it is a file, or holds something else.
    """
    folder = checked_path(folder, CheckpointError, "the folder to write,")
    is_ours = all((folder / name).is_file() for name in marks)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not is_ours):
        raise CheckpointError(
            f"{folder} exists and is not {what}, which it would be replaced by; choose another folder to "
            "write"
        )
    return folder


@contextlib.contextmanager
def replacing_folder(folder: Path, purpose: str = "") -> Iterator[Path]:
    """Yield a temporary folder that takes the place of `folder` when the block ends without an error.

    Args:
        folder: the folder.
        purpose: verb and object that an error says after "cannot"; empty for `write {folder}`.

    Raises:
        CheckpointError: it cannot be written; what was there is intact.
    """
    fresh = folder.with_name(f".{folder.name}.writing")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        yield fresh
        publish_folder(fresh, folder)
    except OSError as error:
        raise CheckpointError(f"cannot {purpose or f'write {folder}'}: {error}; free some space") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
