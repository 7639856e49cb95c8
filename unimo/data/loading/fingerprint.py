"""Fingerprints of what samples are made of: cheap, and independent of where files lie and how old they are.

That of a corpus covers the number of samples and up to 256 of them, spread evenly, so it changes when a
corpus or a shard of it is replaced, reordered or prepared in another way. One corrected caption among
millions goes unnoticed. The same samples stand for all that files beside the corpus add to them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unimo.errors import RecordError
from unimo.files import regular

_SAMPLES = 256
_BYTES = 1 << 16
"""Bytes at the start of a picture that are read, besides its size."""


def fingerprint(dataset: Sequence[Any], added: Callable[[Any], Any] | None = None) -> str:
    """Compute the fingerprint of a data set with random access.

    A data set whose items do not hold what is learned from has `describe(index)`, which returns that.

    Args:
        added: returns what another source adds to an item; the fingerprint is then of that alone.
    """
    size, found = len(dataset), hashlib.blake2b(digest_size=16)
    read = getattr(dataset, "describe", dataset.__getitem__)
    for index in sorted({number * (size - 1) // (_SAMPLES - 1) for number in range(_SAMPLES)}):
        try:
            item = read(index)
            parts = list(_parts(item if added is None else added(item)))
        except (RecordError, OSError):
            parts = [b"broken"]
        for part in parts:
            found.update(b"%d:" % len(part) + part)
    return f"{size}-{found.hexdigest()}"


def _picture(path: Path) -> Iterator[bytes]:
    # Not the path: a corpus may move.
    with open(regular(path), "rb") as file:
        yield b"%d" % path.stat().st_size
        yield file.read(_BYTES)


def _parts(value: Any) -> Iterator[bytes]:
    if isinstance(value, Path):
        yield from _picture(value)
    elif isinstance(value, bytes):
        yield value
    elif isinstance(value, np.ndarray):
        yield np.ascontiguousarray(value).tobytes()
    elif dataclasses.is_dataclass(value):
        held = {
            item.name: getattr(value, item.name) for item in dataclasses.fields(value) if _says(item, value)
        }
        yield from _parts(held)
    elif isinstance(value, Mapping):
        yield from _parts(list(value.items()))
    elif isinstance(value, (list, tuple)):
        yield b"%d" % len(value)
        for part in value:
            yield from _parts(part)
    elif value is None or isinstance(value, (str, int, float, np.generic)):
        yield repr(value).encode("utf8", "surrogatepass")
    else:
        yield type(value).__name__.encode()  # what it shows of itself may be its address


def _says(item: dataclasses.Field[Any], value: Any) -> bool:
    """Whether a field is not at its default: a field that a later release adds changes nothing by itself."""
    held = getattr(value, item.name)
    default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
    return isinstance(held, np.ndarray) or type(held) is not type(default) or bool(held != default)
