"""Headers of tar shards that are wrong in their sizes: one error that names the place, no endless loop."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from unimo import limits
from unimo.data.readers.tar import TarDataset, tar_files
from unimo.errors import DataError, RecordError


def header(size: bytes, kind: bytes = b"0", name: bytes = b"a.jpg") -> bytes:
    """A tar header with these bytes in the field of the size."""
    content = bytearray(tarfile.TarInfo(name.decode()).tobuf(tarfile.USTAR_FORMAT))
    content[124:136] = size.ljust(12, b"\0")
    content[156:157] = kind
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content)
    return bytes(content)


def block(content: bytes) -> bytes:
    return content.ljust(-(-len(content) // 512) * 512, b"\0")


END = bytes(1024)
BAD_SIZES = [
    b"-0000001000", b"-1", b"+1", b"0x10", b"0o10", b"1_0", b"19", b"8", b"abc", b"1 1", b"1\x001", b"\xb2",
    b"\xff" * 12, b"\xff" * 11 + b"\x00", b"\x81" + b"\0" * 11, b"\xc0" + b"\0" * 11, b"1e3", b"1.0",
    "١".encode(),
]  # fmt: skip


@pytest.mark.parametrize("size", BAD_SIZES, ids=repr)
@pytest.mark.parametrize("kind", [b"0", b"5", b"x", b"L", b"g"], ids=repr)
def test_sizes_that_are_none(tmp_path: Path, size: bytes, kind: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(header(size, kind) + block(b"x" * 100) + END)
    with pytest.raises(DataError, match=r"a\.tar, header at byte 0: .* is no size"):
        list(tar_files(path))


@pytest.mark.parametrize(
    "records",
    [
        b"14 size=-1024\n", b"8 size=\n", b"10 size=x\n", b"12 size=0x1\n", b"12 size=1_0\n", b"11 size=-1\n",
        b"11 size= 1\n", b"11 size=+1\n", b"12 size=1.0\n", b"30 size=" + b"9" * 21 + b"\n",
        b"0 path=a\n", b"-9 path=a\n", b"5 path=a\n", b"99 path=a\n", b"x path=a\n", b" path=a\n", b"path",
        b"9 path:ab\n", b"9 path=abc", b"9" * 30 + b" a=b\n", b"\n\n\n", b"1_0 path=a\n", b"7 path\n",
        "١٠ path=a\n".encode(),
    ],
    ids=repr,
)  # fmt: skip
def test_pax_records_of_another_form(tmp_path: Path, records: bytes) -> None:
    path = tmp_path / "a.tar"
    about = header(b"%o" % len(records), b"x", b"x") + block(records)
    path.write_bytes(about + header(b"144") + block(b"x" * 100) + END)
    with pytest.raises(DataError, match=r"a\.tar, header at byte .* is no (size|pax record)"):
        list(tar_files(path))


def test_sizes_of_zero_and_beyond_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(
        header(b"0") + header(b"", name=b"b.jpg") + header(b"   3 ", name=b"c.jpg") + block(b"x") + END
    )
    assert [(name, size) for name, _, size in tar_files(path)] == [("a.jpg", 0), ("b.jpg", 0), ("c.jpg", 3)]
    for size in (b"77777777777", b"\x80" + b"\0" * 5 + b"\xff" * 6, b"\x80" + b"\xff" * 11):
        path.write_bytes(header(size) + END)
        with pytest.raises(DataError, match="is truncated"):
            list(tar_files(path))


@pytest.mark.parametrize("kind", [b"x", b"L", b"K", b"g"], ids=repr)
def test_headers_about_headers_are_short(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "a.tar"
    with open(path, "wb") as file:
        file.write(header(b"%o" % (limits.TAR_HEADER_BYTES + 1), kind))
        file.truncate(4 << 30)
    with pytest.raises(DataError, match="records of 1,048,577 bytes; the limit is 1,048,576"):
        list(tar_files(path))


def test_sparse_members(tmp_path: Path) -> None:
    for number, key in enumerate(
        (b"GNU.sparse.major=1", b"GNU.sparse.map=0,9", b"GNU.sparse.realsize=99999999")
    ):
        record = b"%d %s\n" % (len(key) + 4, key)
        path = tmp_path / f"{number}.tar"
        path.write_bytes(header(b"%o" % len(record), b"x") + block(record) + header(b"0") + END)
        with pytest.raises(DataError, match="a sparse member; pack the shard again without --sparse"):
            list(tar_files(path))
    path.write_bytes(header(b"0", b"S") + END)
    with pytest.raises(DataError, match="sparse member"):
        list(tar_files(path))


def test_members_larger_than_any_sample(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with open(path, "wb") as file:
        for name, size in (
            ("1.jpg", limits.IMAGE_BYTES + 1),
            ("1.txt", 1),
            ("2.jpg", 1),
            ("2.json", 200 << 20),
        ):
            file.write(header(b"%o" % size, name=name.encode()))
            file.seek(-(-size // 512) * 512, os.SEEK_CUR)
        file.truncate(file.tell() + 1024)
    data = TarDataset(path, "pairs")
    assert len(data) == 2
    with pytest.raises(RecordError, match=f"the limit is {limits.IMAGE_BYTES:,}"):
        data.image_source(0)
    with pytest.raises(RecordError, match=f"the limit is {limits.LINE_BYTES:,}"):
        data[1]
