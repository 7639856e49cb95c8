"""Files and folders that are there whole or not at all, and JSON files whose errors name them.

A file or folder gets its name only when it is complete and on the disk, so a killed process or a full disk
leaves the old one intact.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unimo.errors import UnimoError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name to write a file under; it replaces `path` when the block ends without an error.

    Several processes may replace the same file at once: each writes its own, and the last one stays.

    Raises:
        OSError: the file cannot be written or renamed; `path` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)  # makes the new name survive a power cut
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file of text in UTF-8, whole or not at all.

    Raises:
        OSError: see `replacing`.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf8")


def sync(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_folder(fresh: Path, folder: Path) -> None:
    """Flush a folder to the disk and rename it to its final name.

    An older one of that name is moved aside first and deleted last. A process that is killed between the two
    renames leaves only the older one, which `published` finds.

    Args:
        fresh: the complete folder, under a temporary name beside the final one.
        folder: the final name.

    Raises:
        OSError: a file cannot be flushed, or a folder cannot be renamed.
    """
    for path in (*fresh.rglob("*"), fresh):
        sync(path)
    older = _aside(folder)
    if folder.exists():
        shutil.rmtree(older, ignore_errors=True)
        folder.rename(older)
    fresh.rename(folder)
    sync(folder.parent)
    shutil.rmtree(older, ignore_errors=True)


def published(folder: Path) -> Path:
    """Return the folder, or the older one if `publish_folder` was killed while it replaced that."""
    older = _aside(folder)
    return older if older.is_dir() and not folder.exists() else folder


def _aside(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.old"


def parse_json(content: bytes | str, where: object, kind: type[UnimoError]) -> Any:
    """Decode one JSON value.

    Args:
        content: the text, or its UTF-8 bytes.
        where: file or line that it comes from, for messages.
        kind: type of the error that is raised.

    Raises:
        UnimoError: of type `kind`; not UTF-8 or not JSON.
    """
    try:
        return json.loads(content if isinstance(content, str) else content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise kind(f"{where}: not valid UTF-8 at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise kind(f"{where}: not valid JSON: {error}") from error


def read_json(path: str | Path, kind: type[UnimoError], what: str = "") -> Any:
    """Read a JSON file.

    Args:
        path: the file, in UTF-8.
        kind: type of the error that is raised.
        what: what the file is, for messages.

    Raises:
        UnimoError: of type `kind`; the file is missing, cannot be read, or is not JSON.
    """
    where = f"{what} {path}".lstrip()
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise kind(f"cannot read {where}: {error.strerror}") from error
    return parse_json(content, where, kind)


def read_json_object(path: str | Path, kind: type[UnimoError]) -> dict[str, Any]:
    """Read a JSON file that holds an object; arguments and errors as for `read_json`."""
    content = read_json(path, kind)
    if not isinstance(content, dict):
        raise kind(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content
