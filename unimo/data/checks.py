"""What may stand in a record: the one place that decides what is a text, a path and an id.

Readers, preparations and the processor call these functions on whatever a file or a caller gives. Nothing
else is turned into text: null, NaN, numbers and lists are broken records, not the captions "None" or "5".
"""

from __future__ import annotations

import os
import unicodedata

from unimo.errors import RecordError, shown

_INVISIBLE = frozenset(("Cc", "Cf", "Zl", "Zp", "Zs"))
"""Unicode categories of characters without a glyph: controls, format marks, blanks."""
_LARGEST_ID = 2**63 - 1


def check_text(value: object, where: str = "") -> str:
    """Return a text without surrounding blanks.

    Readers decode with `surrogateescape`, so bytes that are not UTF-8 are found here too.

    Args:
        where: file and line, or whatever tells a person which value it is; empty where that is plain.

    Raises:
        RecordError: not a string, nothing but blanks and invisible characters, not valid Unicode (half of a
            surrogate pair), or with a NUL, which no text has and some libraries take for its end.
    """
    place = f"{where}: " if where else ""
    if not isinstance(value, str):
        raise RecordError(f"{place}expected a text, found {shown(value)} ({type(value).__name__})")
    text = value.strip()
    if all(unicodedata.category(character) in _INVISIBLE for character in text):
        raise RecordError(f"{place}the text is empty; give at least one word")
    if "\0" in text:
        raise RecordError(f"{place}the text has a NUL character, so it is none: {shown(text)}")
    try:
        text.encode("utf8")
    except UnicodeEncodeError as error:
        raise RecordError(f"{place}the text is not UTF-8: {shown(text)}") from error
    return text


def check_path(value: object, where: str, what: str = "a path") -> str:
    """Return a path that a file can have, as it is; blanks are part of it.

    Args:
        where, what: place and name of the value, for messages.

    Raises:
        RecordError: not a string, empty, or with characters that no file name has.
    """
    if not isinstance(value, str) or not value:
        raise RecordError(f"{where}: expected {what}, found {shown(value)}")
    try:
        possible = b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise RecordError(f"{where}: no file can have this name: {shown(value)}")
    return value


def check_id(value: object, where: str) -> int | str:
    """Return the id of an image or a question: a text, or a whole number (also as 5.0, which tables have).

    Raises:
        RecordError: anything else.
    """
    if isinstance(value, str):
        return check_text(value, where)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and abs(value) <= _LARGEST_ID and value == int(value):
        return int(value)
    raise RecordError(f"{where}: expected an id, a text or a whole number; found {shown(value)}")
