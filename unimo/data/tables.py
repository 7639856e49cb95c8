"""Arrow files, opened so that nothing in them can crash the process or fill its memory.

pyarrow trusts a file: offsets beyond a buffer end the process when a value is read, and compressed buffers
are unpacked to whatever size they state. Here the stated sizes are added up before anything is unpacked, and
all offsets and indices of the columns that are read are checked once, when a file is opened. Values are not
touched by that.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa

from unimo.errors import DataError
from unimo.files import regular
from unimo.limits import TABLE_TEXT_BYTES, UNPACKED_BYTES, UNPACKED_RATIO

_STREAM_START = 8
"""Bytes before the first message: the magic word and its padding."""
_CONTINUES = b"\xff" * 4
"""Begins every message, and so a file that is a stream of messages alone, as `datasets` writes it."""
_BUFFER = 16
"""Bytes that describe a buffer: where it lies in the body of its message, and its length."""
_HEADER, _BATCH_BUFFERS, _BATCH_COMPRESSION, _DICTIONARY_BATCH = 2, 2, 3, 1
"""Numbers of fields in Arrow's format of messages, `Message.fbs`."""
_OF_DAMAGE = (
    pa.ArrowException,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    MemoryError,
    struct.error,
)
"""Errors that pyarrow raises about damaged files, among them names of columns that are no UTF-8."""


def column_names(path: Path) -> list[str]:
    """Read the column names of an Arrow file, from its footer only.

    Raises:
        DataError: missing, truncated or damaged file.
    """
    try:
        return pa.ipc.open_file(pa.memory_map(str(regular(path)))).schema.names
    except _OF_DAMAGE as error:
        raise _damaged(path, error) from error


def open_table(path: Path, columns: Collection[str] = ()) -> tuple[pa.MemoryMappedFile, pa.Table]:
    """Open an Arrow file and check those columns that are read.

    Args:
        columns: names of those that are read, where the file has them; all when empty.

    Returns:
        The memory map, at its start, and the table, whose values still lie in it unless they are compressed.

    Raises:
        DataError: missing, truncated or damaged file, or one that would be many times larger in memory.
    """
    try:
        memory = pa.memory_map(str(regular(path)))
        footer = pa.ipc.open_file(memory)
        _check_unpacked(memory, footer.num_record_batches, path)
        names = footer.schema.names
        chosen = [number for number, name in enumerate(names) if not columns or name in columns]
        memory.seek(_STREAM_START)
        options = pa.ipc.IpcReadOptions(included_fields=chosen)
        table = pa.ipc.open_stream(memory, options=options).read_all()
        memory.seek(0)
        table.validate()
        for name, column in zip(table.column_names, table.columns, strict=True):
            if name != "image" and column.nbytes > TABLE_TEXT_BYTES:
                raise DataError(
                    f"{path}: column {name} has {column.nbytes:,} bytes; the limit is {TABLE_TEXT_BYTES:,}"
                )
            for chunk in column.chunks:
                _as_bytes(chunk).validate(full=True)
        return memory, table
    except _OF_DAMAGE as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"no Arrow file {path}")
    if os.path.isfile(path) and path.open("rb").read(4) == _CONTINUES:
        return DataError(
            f"{path} is an Arrow stream, expected an Arrow file, which can be read from any place; convert "
            "it: pyarrow.ipc.new_file(OUT, table.schema).write(table) with "
            "table = pyarrow.ipc.open_stream(IN).read_all()"
        )
    size = path.stat().st_size if os.path.exists(path) else 0
    reason = getattr(error, "strerror", None) or error
    return DataError(
        f"{path} ({size} bytes) is not a complete Arrow file: {reason}; "
        "copy it again or rebuild it with tools/prepare_data.py"
    )


def _as_bytes(array: pa.Array) -> pa.Array:
    """Return an array with bytes for texts, which is checked without decoding them.

    A text that is not UTF-8 is a matter of its own record.
    """
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        plain = pa.binary() if pa.types.is_string(kind) else pa.large_binary()
        return pa.Array.from_buffers(plain, len(array), array.buffers(), array.null_count, array.offset)
    if kind == pa.string_view():
        counts = (array.null_count, array.offset)
        return pa.Array.from_buffers(pa.binary_view(), len(array), array.buffers(), *counts)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        items = _as_bytes(array.values)
        make = pa.list_ if pa.types.is_list(kind) else pa.large_list
        own, counts = array.buffers()[:2], (array.null_count, array.offset)
        return pa.Array.from_buffers(make(items.type), len(array), own, *counts, children=[items])
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(array.indices, _as_bytes(array.dictionary), safe=False)
    return array


def _check_unpacked(memory: pa.MemoryMappedFile, batches: int, path: Path) -> None:
    """Add up the sizes that compressed buffers state for themselves.

    Raises:
        DataError: they would be many times larger than the file, or the file ends within a message.
    """
    unpacked, limit, found = 0, UNPACKED_BYTES + UNPACKED_RATIO * memory.size(), 0
    for message in _messages(memory):
        found += message.type == "record batch"
        body = memoryview(message.body) if message.body is not None else memoryview(b"")
        for begin, length in _compressed(memoryview(message.metadata), message.type == "dictionary"):
            if length < 0 or begin < 0 or begin + length > len(body):
                raise pa.ArrowInvalid("a buffer lies outside of its message")
            if length:
                unpacked += max(length, struct.unpack_from("<q", body, begin)[0])
        if unpacked > limit:
            raise DataError(
                f"{path} ({memory.size():,} bytes) would take {unpacked:,} bytes or more in memory; the "
                f"limit is {limit:,}; write it again without compression"
            )
    if found != batches:
        raise pa.ArrowInvalid(f"{found} batches, and {batches} in its footer")


def _messages(memory: pa.MemoryMappedFile) -> Iterator[pa.Message]:
    memory.seek(_STREAM_START)
    while True:
        try:
            yield pa.ipc.read_message(memory)
        except EOFError:
            return


def _compressed(message: memoryview, is_dictionary: bool) -> Iterator[tuple[int, int]]:
    """Yield begin and length of the buffers of a message if they are compressed.

    A message is a flatbuffer: a table begins with the distance back to a list of distances to its fields; a
    field that is a table or a list holds the distance to it.
    """

    def number(kind: str, place: int) -> int:
        if place < 0:
            raise struct.error("a place before the message")
        return struct.unpack_from(kind, message, place)[0]

    def field(table: int, which: int) -> int:
        fields = table - number("<i", table)
        there = 4 + 2 * which < number("<H", fields)
        distance = number("<H", fields + 4 + 2 * which) if there else 0
        return table + distance + number("<I", table + distance) if distance else 0

    batch = field(number("<I", 0), _HEADER)
    if is_dictionary:
        batch = batch and field(batch, _DICTIONARY_BATCH)
    if batch and field(batch, _BATCH_COMPRESSION):
        buffers = field(batch, _BATCH_BUFFERS)
        for place in range(number("<I", buffers) if buffers else 0):
            at = buffers + 4 + place * _BUFFER
            yield number("<q", at), number("<q", at + 8)
