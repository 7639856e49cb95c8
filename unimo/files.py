"""Files and folders that are there whole or not at all, and files of others, which are read up to a limit.

A file or folder gets its name only when it is complete and on the disk, so a killed process or a full disk
leaves the old one intact. What a killed process leaves under a temporary name goes when the next one writes
into the same folder. What others wrote is opened only if it is a regular file of a sensible size.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from unimo.errors import ConfigError, DataError, UnimoError, shown
from unimo.limits import JSON_BYTES, JSON_DEPTH, JSON_GROUPS, LINE_BYTES

_TEMPORARY = re.compile(r"\..*\.(?P<host>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}\.tmp")
_DAY = 24 * 3600

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_IS_UTF16 = "it is UTF-16, expected UTF-8; convert it: iconv -f UTF-16 -t UTF-8 IN > OUT"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name to write a file under; it replaces `path` when the block ends without an error.

    Several processes may replace the same file at once: each writes its own, and the last one stays.

    Raises:
        OSError: the file cannot be written or renamed; `path` is as it was.
    """
    remove_leftovers(path.parent)
    temporary = path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)  # makes the new name survive a power cut
    finally:
        temporary.unlink(missing_ok=True)


@functools.cache
def _host() -> str:
    return hashlib.blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()


@functools.cache
def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes left in a folder while they replaced files; done once in a process.

    The name of a temporary file tells whose it is. Those of other machines go when a day old.
    """
    with contextlib.suppress(OSError):  # whoever writes there reports it
        for path in folder.iterdir():
            match = _TEMPORARY.fullmatch(path.name)
            if match and _is_abandoned(path, match["host"], int(match["process"])):
                path.unlink(missing_ok=True)


def _is_abandoned(path: Path, host: str, process: int) -> bool:
    if host != _host():
        return time.time() - path.stat().st_mtime > _DAY
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's
        return False
    return False


@contextlib.contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder; its files move into `folder` when the block ends without an error.

    Files of other names that are there stay. The largest move first: weights before their config. After an
    error an empty `folder` goes.

    Raises:
        OSError: the files cannot be written or renamed; `folder` is as it was.
    """
    fresh = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        if not folder.exists():
            publish_folder(fresh, folder)
            return
        for path in sorted(fresh.iterdir(), key=lambda path: -path.stat().st_size):
            sync(path)
            path.replace(folder / path.name)
        sync(folder)
    except BaseException:
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def is_at(file: IO[Any], path: Path) -> bool:
    """Return whether an opened file still has its name: it was neither removed nor moved, nor its folder."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def write_text(path: Path, text: str) -> None:
    """Write a file of text in UTF-8, whole or not at all.

    Lone surrogates, as names of files with other bytes have, are written as JSON escapes them.

    Raises:
        OSError: see `replacing`.
    """
    with replacing(path) as temporary:
        temporary.write_text(text.encode(errors="backslashreplace").decode(), encoding="utf8")


def make_folder(folder: str | Path, setting: str = "") -> Path:
    """Create a folder to write into, unless it exists, and return its path.

    Args:
        folder: its name.
        setting: setting or option that gives the name, for messages.

    Raises:
        ConfigError: it cannot be created, or no file can be written into it.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return Path(folder)
    except FileExistsError as error:
        what = f"{setting} {folder} is a file; expected a folder, new or existing: name another"
        raise ConfigError(what.lstrip()) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        what = f"{setting}: cannot make the folder {str(folder)!r:.200}, or write into it ({reason})"
        raise ConfigError(f"{what.removeprefix(': ')}; name another") from error


def make_place(path: str | Path, setting: str = "") -> Path:
    """Create the folder of a file to write, unless it exists, and return the path of the file.

    Raises:
        ConfigError: see `make_folder`; or the path is that of a folder.
    """
    path = checked_path(path, ConfigError, setting)
    make_folder(path.parent, setting)
    if path.is_dir():
        raise ConfigError(f"{setting} {path} is a folder; expected a file to write: name another".lstrip())
    return path


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


def checked_path(path: str | Path, kind: type[UnimoError], what: str = "") -> Path:
    """Return the path that a caller gave, with `~` replaced, whether or not something lies there.

    Raises:
        UnimoError: of type `kind`; no file can have this name. `what` is its beginning.
    """
    try:
        found = Path(path).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            found.lstat()
    except (OSError, ValueError, RuntimeError) as error:
        where, reason = f"{what} {shown(str(path))}".lstrip(), getattr(error, "strerror", None) or error
        raise kind(f"{where}: no file or folder can have this name ({reason}); give another") from error
    return found


def regular(path: str | Path, limit: int | None = None) -> Path:
    """Return the path of a regular file, before it is opened.

    Opening a pipe waits for a writer, and a device such as /dev/zero has no end.

    Args:
        limit: largest size in bytes; None for files that are read in parts or through a memory map.

    Raises:
        OSError: there is no such file, it is of another kind, or it is larger; `strerror` says which.
    """
    path = Path(path)
    try:
        state = path.stat()
    except ValueError as error:  # a NUL, or a surrogate that no file name has
        raise OSError(errno.EINVAL, f"no file can have this name ({error})", str(path)) from error
    if stat.S_ISDIR(state.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe, socket or device; expected a regular file", str(path))
    if limit is not None and state.st_size > limit:
        raise OSError(errno.EFBIG, f"it has {state.st_size:,} bytes; the limit is {limit:,}", str(path))
    return path


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is none of the data: `.name`, or what macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def listed(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the files and folders in a folder that match a pattern, sorted, without hidden ones."""
    return sorted(path for path in folder.glob(pattern) if not is_hidden(path.name))


def read_bytes(path: str | Path, limit: int) -> bytes:
    """Read a whole regular file of at most `limit` bytes.

    Raises:
        OSError: it cannot be read, see `regular`.
    """
    with open(regular(path, limit), "rb") as file:
        return file.read(os.fstat(file.fileno()).st_size)


def read_text(path: str | Path, limit: int, kind: type[UnimoError], what: str = "") -> str:
    """Read a whole text in UTF-8, without a byte order mark.

    Args:
        path: a regular file of at most `limit` bytes.
        kind: type of the error that is raised.
        what: what the file is, for messages.

    Raises:
        UnimoError: of type `kind`; the file is missing, cannot be read, or is not UTF-8.
    """
    where = f"{what} {path}".lstrip()
    try:
        content = read_bytes(path, limit)
    except OSError as error:
        raise kind(f"cannot read {where}: {error.strerror}") from error
    return decode(content, where, kind)


def decode(content: bytes, where: object, kind: type[UnimoError]) -> str:
    """Decode UTF-8, without the byte order mark that Windows programs put before it.

    Raises:
        UnimoError: of type `kind`; not UTF-8.
    """
    if content.startswith(_UTF16):
        raise kind(f"{where}: {_IS_UTF16}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise kind(f"{where}: not valid UTF-8 at byte {error.start}") from error


def read_lines(path: str | Path) -> Iterator[bytes]:
    """Yield the lines of a regular file with their ends; errors are those of `located_lines`."""
    return (line for _, line in located_lines(path))


def located_lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """Yield the first byte and the content of each line of a regular file, with its end.

    A byte order mark before a line (in files that were joined there is one in the middle) is none of it.

    Raises:
        DataError: the file cannot be read, is UTF-16, or a line is longer than `LINE_BYTES`.
    """
    number = begin = 0
    try:
        with open(regular(path), "rb") as file:
            while line := file.readline(LINE_BYTES + 1):
                number += 1
                if len(line) > LINE_BYTES:
                    raise DataError(f"{path}, line {number}: more than {LINE_BYTES:,} bytes, the limit")
                if number == 1 and line.startswith(_UTF16):
                    raise DataError(f"{path}: {_IS_UTF16}")
                text = line.removeprefix(codecs.BOM_UTF8)
                yield begin + len(line) - len(text), text
                begin += len(line)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def parse_json(content: bytes | str, where: object, kind: type[UnimoError]) -> Any:
    """Decode one JSON value, whose lists and objects are nested at most `JSON_DEPTH` times.

    Args:
        content: the text, or its UTF-8 bytes.
        where: file or line that it comes from, for messages.
        kind: type of the error that is raised.

    Raises:
        UnimoError: of type `kind`; not UTF-8, not JSON, or nested deeper.
    """
    text = content if isinstance(content, str) else decode(content, where, kind)
    try:
        groups = text.count("[") + text.count("{")
        if groups > JSON_GROUPS:
            raise ValueError(f"{groups:,} lists and objects; the limit is {JSON_GROUPS:,}")
        value = json.loads(text)
        if groups > JSON_DEPTH:
            _check_depth(value)
        return value
    except (ValueError, RecursionError) as error:
        raise kind(f"{where}: not valid JSON: {error}") from error


def _check_depth(value: Any) -> None:
    """Raise RecursionError if a JSON value is nested too deep for functions that call themselves."""
    level = [value]
    for _ in range(JSON_DEPTH):
        level = [
            item
            for group in level
            if isinstance(group, (list, dict))
            for item in (group.values() if isinstance(group, dict) else group)
            if isinstance(item, (list, dict))
        ]
        if not level:
            return
    raise RecursionError(f"its lists and objects are nested more than {JSON_DEPTH} times")


def read_json(path: str | Path, kind: type[UnimoError], what: str = "") -> Any:
    """Read a JSON file.

    Args:
        path: the file, in UTF-8.
        kind: type of the error that is raised.
        what: what the file is, for messages.

    Raises:
        UnimoError: of type `kind`; the file is missing, cannot be read, or is not JSON.
    """
    return parse_json(read_text(path, JSON_BYTES, kind, what), f"{what} {path}".lstrip(), kind)


def read_json_object(path: str | Path, kind: type[UnimoError]) -> dict[str, Any]:
    """Read a JSON file that holds an object; arguments and errors as for `read_json`."""
    content = read_json(path, kind)
    if not isinstance(content, dict):
        raise kind(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content
