"""Mutations for tests/test_fuzz.py that know a format: the change is one that a plain check lets pass."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import pickletools
import sqlite3
import struct
import tarfile
import tempfile
import zlib
from pathlib import Path

from fuzz_bytes import BYTES, NUMBERS, WORDS, Rng, choose, flip_bits, mutate_value, set_number

# Fields of a tar header: begin and end.
_TAR_FIELDS = (
    (0, 100),
    (100, 108),
    (124, 136),
    (124, 136),
    (136, 148),
    (148, 156),
    (156, 157),
    (257, 265),
    (345, 500),
)


def mutate_tar(content: bytes, rng: Rng) -> bytes:
    """Change a field of a header, mostly with a checksum that fits, or the records of a pax header."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        member = choose(rng, tar.getmembers())
    begin, end = choose(rng, _TAR_FIELDS)
    at = choose(rng, (member.offset, member.offset, member.offset_data - 512))
    header = bytearray(content[at : at + 512])
    size = end - begin
    number = choose(rng, NUMBERS)
    value = choose(
        rng,
        (
            *(
                b"%o" % abs(number),
                b"-1",
                b" ",
                b"9999",
                b"0o17",
                b"+7",
                b"1_0",
                b"\0",
                b"7" * size,
                b"x",
                b"L",
            ),
            *(b"\x80" + struct.pack(">q", number).rjust(size - 1, b"\0"), b"\xff" * size, rng.bytes(size)),
        ),
    )
    header[begin:end] = value[:size].ljust(size, b"\0")
    if rng.random() < 0.9 and begin != 148:
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    changed = content[:at] + bytes(header) + content[at + 512 :]
    if member.pax_headers and rng.random() < 0.5:
        inner = content[member.offset + 512 : member.offset + 1024]
        changed = content[: member.offset + 512] + choose(rng, BYTES)(inner, rng)[:512].ljust(512, b"\0")
        changed += content[member.offset + 1024 :]
    return changed


def mutate_safetensors(content: bytes, rng: Rng) -> bytes:
    """Change a value of the header (type, shape, offsets, names), or its length."""
    size = int.from_bytes(content[:8], "little")
    if rng.random() < 0.2:
        return struct.pack("<q", choose(rng, NUMBERS)) + content[8:]
    header = json.loads(content[8 : 8 + size])
    name = choose(rng, list(header))
    entry = header[name]
    change = choose(rng, ("any", "type", "shape", "offsets"))
    if change == "any" or not isinstance(entry, dict) or "dtype" not in entry:
        header = mutate_value(header, rng)
    elif change == "type":
        entry["dtype"] = choose(
            rng, ("F64", "F16", "BF16", "I8", "U64", "BOOL", "F8_E4M3", "C64", "X", "F4", "")
        )
    elif change == "shape":
        entry["shape"] = choose(
            rng, ([], [0], entry["shape"][::-1], [2**40, 2**40], [*entry["shape"], 1], [-1])
        )
    else:
        entry["data_offsets"] = [choose(rng, (0, 4, 8, 64, 2**40)), choose(rng, (0, 4, 8, 64, 2**40))]
    written = json.dumps(header).encode()
    return struct.pack("<Q", len(written)) + written + content[8 + size :]


def mutate_pickle(content: bytes, rng: Rng) -> bytes:
    """Lose, double, exchange or change steps, or call something that is not of NumPy."""
    places = [at for _, _, at in pickletools.genops(content)] + [len(content)]
    steps = [content[begin:end] for begin, end in zip(places[:-1], places[1:], strict=True)]
    for _ in range(int(rng.integers(1, 4))):
        at, other = int(rng.integers(len(steps))), int(rng.integers(len(steps)))
        action = choose(rng, ("lose", "double", "swap", "bytes", "insert"))
        if action == "lose":
            del steps[at]
        elif action == "double":
            steps.insert(at, steps[other])
        elif action == "swap":
            steps[at], steps[other] = steps[other], steps[at]
        elif action == "bytes":
            steps[at] = choose(rng, (flip_bits, set_number))(steps[at], rng)
        else:
            steps.insert(at, choose(rng, _STEPS))
        if len(steps) < 2:
            break
    return b"".join(steps)


_STEPS = (
    *(
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1/0'\ntR.",
        b"cnumpy\ndtype\n(S'O'\ntR.",
        b"R",
        b"b",
        b"0",
    ),
    *(
        b"cnumpy\ndtype\n(S'f4'\nI00\nI01\ntR(I3\nS'<'\n(S'x'\ntNNI-1\nI-1\nI63\ntb",
        b"cnumpy\nload\n",
        b"\x81",
        b"o",
    ),
    *(
        b"2",
        b"1",
        b"(",
        b"t",
        b"l",
        b"d",
        b"}",
        b"]",
        b"a",
        b"e",
        b"s",
        b"u",
        b"N",
        b"I-1\n",
        b"L" + b"9" * 5000 + b"L\n",
    ),
    *(
        b"h\x00",
        b"j\xff\xff\xff\xff",
        b"q\xff",
        b"\x8e" + b"\xff" * 8,
        b"T\xff\xff\xff\x7f",
        b"\x8d" + b"\xff" * 7 + b"\x00",
    ),
)


def mutate_sqlite(content: bytes, rng: Rng) -> bytes:
    """Change cells, drop tables and rows of a database, which stays a sound one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "base"
        path.write_bytes(content)
        base = sqlite3.connect(path)
        tables = [name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        table = choose(rng, tables)
        columns = [row[1] for row in base.execute(f"PRAGMA table_info({table})")]
        column = choose(rng, columns)
        values = (
            None,
            -1,
            2**62,
            1.5,
            float("inf"),
            "",
            "x",
            "\0",
            "[]",
            "null",
            "-5",
            "1e999",
            "[" * 500,
            b"",
            b"\xff\xff",
            b"x",
        )
        value = choose(rng, (*values, b"\xff" * 1000))
        noted = ("about",) if "about" in tables else ()
        action = choose(rng, ("one", "one", "all", "drop", "delete", "column", "negate", "text", *noted))
        commands = {
            "one": (
                f"UPDATE OR REPLACE {table} SET {column} = ? WHERE {column} = (SELECT {column} FROM {table})",
                (value,),
            ),
            "all": (f"UPDATE OR REPLACE {table} SET {column} = ?", (value,)),
            "drop": (f"DROP TABLE {table}", ()),
            "delete": (f"DELETE FROM {table} WHERE abs(random() % 2)", ()),
            "column": (f"ALTER TABLE {table} RENAME COLUMN {column} TO other", ()),
            "negate": (f"UPDATE OR REPLACE {table} SET {column} = -{column} - 5", ()),
            "text": (f"UPDATE OR REPLACE {table} SET {column} = CAST(x'ff00c328' AS TEXT)", ()),
            "about": (
                "UPDATE about SET value = ?",
                (choose(rng, (*NUMBERS, *WORDS, "null", '"3"', "{}", "1e400")),),
            ),
        }
        with contextlib.suppress(sqlite3.IntegrityError):  # a key takes no other types
            base.execute(*commands[action])
        base.commit()
        base.close()
        return path.read_bytes()


def mutate_regions_line(content: bytes, rng: Rng) -> bytes:
    """Change a column of one line of a region TSV, the numbers inside base64 included."""
    lines = content.split(b"\n")
    at = int(rng.integers(max(1, len(lines) - 1)))
    columns = lines[at].split(b"\t")
    which = int(rng.integers(len(columns)))
    if which >= 4 and rng.random() < 0.8:
        columns[which] = base64.b64encode(choose(rng, BYTES)(base64.b64decode(columns[which]), rng))
    else:
        columns[which] = choose(
            rng, (*(word.encode() for word in WORDS), b"1e9", b"-3", b"1.5", b"9" * 5000, b"\xff")
        )
    lines[at] = b"\t".join(columns)
    return b"\n".join(lines)


def mutate_png(content: bytes, rng: Rng) -> bytes:
    """Change a chunk and give it the checksum that goes with it."""
    chunks, at = [], 8
    while at + 8 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    which = int(rng.integers(len(chunks)))
    kind, data = chunks[which]
    if kind == b"IDAT" and rng.random() < 0.5:
        data = zlib.compress(choose(rng, BYTES)(zlib.decompress(data), rng))
    else:
        data = choose(rng, BYTES)(data, rng)
    chunks[which] = kind, data
    return content[:8] + b"".join(
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        for kind, data in chunks
    )
