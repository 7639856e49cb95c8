"""Tar shards in the format of webdataset and img2dataset: members of a sample share the name up to the dot.

    000017.jpg   the image (jpg, jpeg, png, webp or avif)
    000017.txt   one caption, UTF-8
    000017.json  instead of txt: the keys of `readers/jsonl.py`, or a list of such objects; beside txt or with
                 images alone only its `split` counts

Opening a shard reads its headers (and the json members, to count their texts); images are read by
position when needed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unimo.data.readers.base import Dataset, Kind, check_index, read_at
from unimo.data.readers.jsonl import MAY_SAY_SPLIT, count_samples, record_fields, split_item
from unimo.data.record import Record
from unimo.data.splits import check_said_split, read_split
from unimo.errors import DataError, RecordError, shown
from unimo.files import decode, parse_json, regular
from unimo.limits import IMAGE_BYTES, LINE_BYTES, TAR_HEADER_BYTES

log = logging.getLogger(__name__)
IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "avif")
Span = tuple[int, int]
NOTHING: Span = (-1, 0)
BLOCK = 512
_REGULAR = (b"0", b"\0", b"7")
_ABOUT_NEXT = (b"L", b"K", b"x", b"g")
"""Kinds of headers that tell something about the next one: long names and pax records."""
_CHECKSUM = slice(148, 156)
_OCTAL, _DECIMAL = re.compile(rb"[0-7]+"), re.compile(rb"[0-9]{1,18}")


def tar_files(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield (name, offset of the content, size) of each regular file, in order; ustar, GNU or pax headers.

    The headers are read in one pass that skips the contents. The standard library's `tarfile` gives the same
    list (a test compares them) in several times the time, which would be minutes at every start with a corpus
    of some hundred shards.

    Raises:
        DataError: missing, compressed, truncated or damaged file, or a sparse member.
    """
    try:
        file = open(regular(path), "rb", buffering=0)
    except OSError as error:
        raise DataError(f"no tar shard {path}: {error.strerror}") from error
    with file:
        total = os.fstat(file.fileno()).st_size
        offset, longer_name, pax = 0, b"", {}
        while offset < total:
            header = os.pread(file.fileno(), BLOCK, offset)
            if len(header) == BLOCK and not any(header):
                return
            _check(header, path, offset)
            kind, place, where = header[156:157], offset + BLOCK, f"{path}, header at byte {offset}"
            size = _size(header[124:136], kind, pax, where)
            offset = place + -(-size // BLOCK) * BLOCK
            if offset > total:
                raise DataError(f"{path} is truncated: {total} bytes, its headers need {offset}")
            if kind == b"L":
                longer_name = os.pread(file.fileno(), size, place).rstrip(b"\0")
            elif kind == b"x":
                pax = _pax_records(os.pread(file.fileno(), size, place), where)
            elif kind not in _ABOUT_NEXT:
                if kind in _REGULAR:
                    name = pax.get(b"path") or longer_name or _name(header)
                    yield name.decode("utf8", "surrogateescape"), place, size
                longer_name, pax = b"", {}
    if total == 0:
        raise DataError(f"{path} is not a complete, uncompressed tar file: it has 0 bytes")
    log.warning("%s has no end mark; it may be truncated between two files", path)


def _check(header: bytes, path: Path, offset: int) -> None:
    """Raise DataError unless the header contains its own checksum."""
    stated = header[_CHECKSUM].strip(b" \0")
    actual = sum(header) - sum(header[_CHECKSUM]) + 8 * ord(" ")
    if len(header) < BLOCK or not _OCTAL.fullmatch(stated) or int(stated, 8) != actual:
        raise DataError(f"{path} is not a complete, uncompressed tar file: no header at byte {offset}")


def _size(field: bytes, kind: bytes, pax: Mapping[bytes, bytes], where: str) -> int:
    """Return the size of what follows a header.

    Args:
        field: octal text, or GNU's base 256 after a set first bit, used from 8 GiB on.
        pax: records about this member, of which one may be the size in decimal text.

    Raises:
        DataError: a negative size or none, a sparse member, or a header about the next one that is too long.
    """
    if kind == b"S" or any(key.startswith(b"GNU.sparse.") for key in pax):
        raise DataError(f"{where}: a sparse member; pack the shard again without --sparse")
    in_pax = None if kind in _ABOUT_NEXT else pax.get(b"size")
    text = field.strip(b" \0") or b"0"
    if in_pax is not None and _DECIMAL.fullmatch(in_pax):
        size = int(in_pax)
    elif in_pax is None and field[0] == 0x80:
        size = int.from_bytes(field[1:], "big")
    elif in_pax is None and _OCTAL.fullmatch(text):
        size = int(text, 8)
    else:
        given = shown(field if in_pax is None else in_pax)
        raise DataError(f"{where}: {given} is no size; the file is damaged")
    if kind in _ABOUT_NEXT and size > TAR_HEADER_BYTES:
        raise DataError(f"{where}: a name or records of {size:,} bytes; the limit is {TAR_HEADER_BYTES:,}")
    return size


def _name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _pax_records(content: bytes, where: str) -> dict[bytes, bytes]:
    """Parse lines of `LENGTH KEY=VALUE`, where LENGTH is that of the whole line.

    Raises:
        DataError: a line of another form.
    """
    records, begin, end = {}, 0, len(content.rstrip(b"\0"))
    while begin < end:
        length = content[begin : begin + 20].partition(b" ")[0]
        behind = begin + int(length) if _DECIMAL.fullmatch(length) else 0
        key, found, value = content[begin + len(length) + 1 : behind - 1].partition(b"=")
        if not begin + len(length) < behind <= end or not found or content[behind - 1] != ord("\n"):
            raise DataError(f"{where}: {shown(content[begin : begin + 40])} is no pax record")
        records[key] = value
        begin = behind
    return records


class TarDataset(Dataset):
    """One uncompressed tar shard.

    A name with an image but no text, or the reverse, counts as one broken sample.

    Raises:
        DataError: missing, compressed, truncated or damaged shard.
    """

    def __init__(self, path: str | Path, kind: Kind, name: str = "") -> None:
        self.path = Path(path)
        self.kind, self.may_share = kind, kind != "texts"
        self.name = name or self.path.stem
        # Flat arrays: millions of small objects would cost gigabytes.
        self._key_ends, self._spans = array("q", [0]), array("q")
        self._key_text = bytearray()
        self._keys, self._which = array("q"), array("i")
        # Shards whose names say no split are of train.
        self._split = read_split(self.path.stem) or read_split("train")
        texts = classes = 0
        for number, (key, parts) in enumerate(_scan(self.path).items()):
            image = next((parts[suffix] for suffix in IMAGE_SUFFIXES if suffix in parts), NOTHING)
            # img2dataset writes its bookkeeping to json and the caption to txt.
            use_txt = "txt" in parts and (kind in ("pairs", "texts") or "json" not in parts)
            text = parts["txt"] if use_txt else parts.get("json", NOTHING)
            count = 1
            if (image != NOTHING or kind == "texts") and text != NOTHING and not use_txt:
                # One that is too large is one broken sample.
                content = read_at(self.path, *text, LINE_BYTES) if text[1] <= LINE_BYTES else b""
                count = count_samples(content, kind)
            self._key_text += key.encode("utf8", "surrogateescape")
            self._key_ends.append(len(self._key_text))
            self._spans.extend((*image, *text, *parts.get("json", NOTHING), int(use_txt)))
            self._keys.extend([number] * count)
            self._which.extend(range(count))
            texts += text != NOTHING
            classes += "cls" in parts
        if classes and not texts and kind != "images":
            raise DataError(
                f"{self.path} has classes (cls) and no texts (txt, json): unpack it, and put the pictures "
                "into train/<class>/ for image classification or a corpus with a prompt; they can be read as "
                "images alone"
            )

    def __len__(self) -> int:
        return len(self._keys)

    def count_images(self) -> int:
        """Return the number of names, each of which has one image."""
        return 0 if self.kind == "texts" else len(self._key_ends) - 1

    def count_texts(self) -> int:
        return 0 if self.kind == "images" else len(self)

    def __getitem__(self, index: int) -> Record:
        check_index(index, len(self))
        where = self._key(index)[1]
        image_id = self.image_id(index)
        if self.kind == "images":
            self._check_split(index, where)
            return Record(image_id, self.name, images=(self.image_source(index),), image_id=image_id)
        text_at, text_size, *_, is_txt = self._span(index)[2:]
        if text_at < 0:
            raise RecordError(f"{where}: no text (txt or json)")
        content = read_at(self.path, text_at, text_size, LINE_BYTES)
        if is_txt:
            self._check_split(index, where)
            item = {"text": " ".join(decode(content, where, RecordError).split())}
        else:
            item = parse_json(content, where, RecordError)
        sample = split_item(item, self.kind, where)[self._which[index]]
        check_said_split(sample.get("split"), self._split, where)
        sample_id = self.sample_id(index)
        fields = record_fields(sample, self.kind, where, sample_id)
        if self.kind != "texts":
            fields |= {"images": (self.image_source(index),), "image_id": image_id}
        return Record(sample_id, self.name, **fields)

    def image_id(self, index: int) -> str:
        check_index(index, len(self))
        return f"{self.path.stem}:{self._key(index)[0]}"

    def sample_id(self, index: int) -> str:
        name = self.image_id(index)
        return name if self.kind == "images" else f"{name}#{self._which[index]}"

    def image_source(self, index: int) -> bytes:
        check_index(index, len(self))
        where = self._key(index)[1]
        offset, size = self._span(index)[:2]
        if offset < 0:
            raise RecordError(f"{where}: no image ({', '.join(IMAGE_SUFFIXES)})")
        if size == 0:
            raise RecordError(f"{where}: the image has 0 bytes")
        return read_at(self.path, offset, size, IMAGE_BYTES)

    def _check_split(self, index: int, where: str) -> None:
        """Check what a json member says of the split, where nothing else of it is read."""
        place, size = self._span(index)[4:6]
        if place < 0 or size > LINE_BYTES:
            return
        content = read_at(self.path, place, size, LINE_BYTES)
        items: Any = None
        if MAY_SAY_SPLIT.search(content):
            with contextlib.suppress(RecordError):  # bookkeeping that is no JSON does no harm
                items = parse_json(content, where, RecordError)
        for item in items if isinstance(items, list) else [items]:
            if isinstance(item, Mapping):
                check_said_split(item.get("split"), self._split, where)

    def _key(self, index: int) -> tuple[str, str]:
        """Return the common name of a sample's members, and file and name for messages."""
        number = self._keys[index]
        begin, end = self._key_ends[number], self._key_ends[number + 1]
        key = self._key_text[begin:end].decode("utf8", "replace")
        return key, f"{self.path}, {key}"

    def _span(self, index: int) -> array[int]:
        """Return offset and size of the image, the text and the json, and 1 if the text is a txt."""
        number = self._keys[index]
        return self._spans[number * 7 : number * 7 + 7]


def _scan(path: Path) -> dict[str, dict[str, Span]]:
    """Return (offset, size) by name up to the first dot and lower-case suffix, in the order of the shard."""
    found: dict[str, dict[str, Span]] = {}
    for name, offset, size in tar_files(path):
        folder, slash, file_name = name.rpartition("/")
        stem, dot, suffix = file_name.partition(".")
        if stem and dot:
            found.setdefault(f"{folder}{slash}{stem}", {})[suffix.lower()] = (offset, size)
    return found
