"""Mutations of files for tests/test_fuzz.py: of any bytes, and of values inside JSON, YAML and lines."""

from __future__ import annotations

import contextlib
import json
import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import yaml

Rng = np.random.Generator
Mutation = Callable[[bytes, Rng], bytes]
NUMBERS = (
    0,
    1,
    -1,
    127,
    255,
    256,
    2**15,
    2**16 - 1,
    10**6,
    2**31 - 1,
    2**31,
    2**32 - 1,
    10**12,
    2**62,
    2**63 - 1,
)
WORDS = (
    "",
    "0",
    "-1",
    "-0",
    "nan",
    "inf",
    "1e400",
    "99999999999",
    "0x10",
    "\0",
    "\t",
    " ",
    "\u00e9",
    "a" * 9000,
)


def choose(rng: Rng, items: Any) -> Any:
    """One item of a sequence."""
    return items[int(rng.integers(len(items)))]


def _span(content: bytes, rng: Rng, longest: int = 4096) -> tuple[int, int]:
    begin = int(rng.integers(len(content) + 1))
    return begin, min(len(content), begin + int(rng.integers(1, longest)))


def flip_bits(content: bytes, rng: Rng) -> bytes:
    """Flip 1 to 16 bits."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 17)) if content else 0):
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cut(content: bytes, rng: Rng) -> bytes:
    """Keep the beginning, often nearly all of it."""
    end = int(rng.integers(len(content) + 1))
    return content[: choose(rng, (0, 1, end, end, max(0, len(content) - end % 64)))]


def lengthen(content: bytes, rng: Rng) -> bytes:
    """Append zeros, noise, or the file itself."""
    return content + choose(rng, (bytes(700), rng.bytes(700), content, content[: len(content) // 3], b"\n"))


def duplicate(content: bytes, rng: Rng) -> bytes:
    """Repeat a block."""
    begin, end = _span(content, rng)
    return content[:end] + content[begin:end] * int(rng.integers(1, 20)) + content[end:]


def swap(content: bytes, rng: Rng) -> bytes:
    """Exchange two blocks."""
    a, b = sorted((_span(content, rng), _span(content, rng)))
    if a[1] > b[0]:
        return content[b[0] :] + content[: b[0]]
    return content[: a[0]] + content[slice(*b)] + content[a[1] : b[0]] + content[slice(*a)] + content[b[1] :]


def drop(content: bytes, rng: Rng) -> bytes:
    """Leave out a block."""
    begin, end = _span(content, rng, 1024)
    return content[:begin] + content[end:]


def fill(content: bytes, rng: Rng) -> bytes:
    """Overwrite a block with zeros, ones or noise."""
    begin, end = _span(content, rng, 256)
    size = end - begin
    return content[:begin] + choose(rng, (bytes(size), b"\xff" * size, rng.bytes(size))) + content[end:]


def set_number(content: bytes, rng: Rng) -> bytes:
    """Write a binary number that a length or an offset should not have."""
    value, order = choose(rng, NUMBERS), choose(rng, "<>")
    packed = struct.pack(f"{order}q", value)
    size = choose(rng, (1, 2, 4, 4, 8))
    packed = packed[:size] if order == "<" else packed[8 - size :]
    at = int(rng.integers(max(1, len(content))))
    at -= at % choose(rng, (1, 4, 8))
    return content[:at] + packed + content[at + size :]


def set_digits(content: bytes, rng: Rng) -> bytes:
    """Replace a number written in digits."""
    found = list(re.finditer(rb"-?[0-9]+", content))
    if not found:
        return flip_bits(content, rng)
    place = choose(rng, found)
    value = choose(rng, (*map(str, NUMBERS), "-5", "1" + "0" * 4400, "1e400", "NaN", "0.5", "00", ""))
    return content[: place.start()] + value.encode() + content[place.end() :]


BYTES: tuple[Mutation, ...] = (
    *(flip_bits, flip_bits, cut, lengthen, duplicate, swap, drop, fill, set_number, set_number, set_digits),
)


def _odd_value(rng: Rng) -> Any:
    deep: Any = "x"
    for _ in range(choose(rng, (3, 60, 400))):
        deep = [deep] if rng.random() < 0.5 else {"a": deep}
    values = (
        None,
        True,
        False,
        "",
        "nan",
        "\0",
        "\ud800",
        "x" * 200_000,
        "1",
        [],
        {},
        [[]],
        [None],
        {"": None},
    )
    numbers = (
        -1,
        0,
        1,
        0.5,
        -0.0,
        10**12,
        2**63,
        2**64,
        -(2**63),
        10**400,
        1e308,
        float("nan"),
        float("inf"),
    )
    return choose(rng, (deep, deep, *values, *numbers))


def mutate_value(value: Any, rng: Rng) -> Any:
    """Change one place in a tree of lists and mappings: another value, a lost, doubled or renamed entry."""
    if not isinstance(value, (list, dict)) or not value or rng.random() < 0.15:
        return _odd_value(rng)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = choose(rng, keys)
    changed = value.copy()
    if rng.random() < 0.7:
        changed[key] = mutate_value(value[key], rng)
    elif isinstance(value, list):
        action = choose(rng, ("lose", "double", "many", "swap"))
        if action == "lose":
            del changed[key]
        elif action == "double":
            changed.insert(key, value[key])
        elif action == "many":
            changed += value * 50
        else:
            changed[key], changed[0] = changed[0], changed[key]
    elif rng.random() < 0.5:
        del changed[key]
    else:
        changed[choose(rng, (*map(str, keys), *WORDS))] = changed.pop(key)
    return changed


def mutate_json(content: bytes, rng: Rng) -> bytes:
    """Change a value of a JSON file."""
    return json.dumps(mutate_value(json.loads(content), rng)).encode()


def mutate_line(content: bytes, rng: Rng) -> bytes:
    """Change a value in one line of a jsonl file."""
    lines = content.split(b"\n")
    at = int(rng.integers(max(1, len(lines) - 1)))
    lines[at] = mutate_json(lines[at], rng)
    return b"\n".join(lines)


def mutate_words(content: bytes, rng: Rng) -> bytes:
    """Replace a word between tabs, blanks and ends of lines."""
    places = list(re.finditer(rb"[^\t\n ]+", content))
    place = choose(rng, places)
    words = (
        *(word.encode() for word in WORDS),
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"a\tb",
        b"a\nb",
        b"\r",
        b"\r\n",
    )
    return content[: place.start()] + choose(rng, words) + content[place.end() :]


_BOMB = "\n".join(
    [
        "a0: &a0 [x, x, x, x, x, x, x, x, x]",
        *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)),
    ]
)
_YAML_VALUES = (
    *("&a [*a]", "&a {x: *a}", "!!python/object/apply:os.system [ls]", "!!binary =", "!!int x", "!!float []"),
    *(
        "!!set {a, b}",
        "!!omap [a]",
        "!!timestamp x",
        "!!map []",
        "!!str {}",
        "? [a]",
        "{{}: 1}",
        "{[1]: 1}",
        "*no",
    ),
    *(
        "0o17",
        "1_000",
        "12:30",
        "2026-01-01",
        ".nan",
        "-.inf",
        "~",
        "|",
        ">",
        "'",
        '"',
        "@",
        "%",
        "\t",
        "\x07",
        "---",
    ),
    *(
        "[" * 500,
        "{a: " * 500,
        "x" * 300_000,
        "1" * 5000,
        '"\\ud800"',
        '"\\0"',
        "<<: 5",
        "!!null x",
        "!!bool 7",
    ),
)


def mutate_yaml(content: bytes, rng: Rng) -> bytes:
    """Change a value of a YAML file, as data or as text; aliases that multiply, tags, unfinished brackets."""
    if rng.random() < 0.5:
        changed = json.dumps(mutate_value(yaml.safe_load(content), rng))  # JSON is YAML
        with contextlib.suppress(RecursionError):
            changed = choose(rng, (changed, yaml.safe_dump(json.loads(changed))))
        return changed.encode()
    lines = content.decode().split("\n")
    at = int(rng.integers(len(lines)))
    key, colon, _ = lines[at].partition(":")
    changed_line = choose(rng, (f"{key}{colon} {choose(rng, _YAML_VALUES)}", choose(rng, _YAML_VALUES)))
    lines[at : at + 1] = choose(rng, ([changed_line], [changed_line, lines[at]], [_BOMB, f"{key}: *a9"]))
    return "\n".join(lines).encode("utf8", "surrogatepass")
