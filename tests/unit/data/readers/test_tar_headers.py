"""The header scan against the standard library, for all formats that it writes."""

import io
import tarfile

import pytest

from unimo.data.readers.tar import tar_files
from unimo.errors import DataError

NAMES = [
    "a.jpg",
    "./b/c.txt",
    "x" * 99,
    "y" * 100,
    "z" * 101 + ".txt",
    "d/" * 70 + "e.jpg",
    "Grün/ü.txt",
    "w" * 300,
]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_equals_tarfile(tmp_path, form):
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w", format=form, pax_headers={"comment": "global"}) as tar:
        for number, name in enumerate(NAMES):
            if form == tarfile.USTAR_FORMAT and len(name.encode()) > 100 and "/" not in name:
                continue
            info = tarfile.TarInfo(name)
            info.size = [0, 1, 511, 512, 513, 1024, 7, 5000][number]
            tar.addfile(info, io.BytesIO(bytes([65 + number]) * info.size))
            for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE):
                other = tarfile.TarInfo(f"other{number}")
                other.type, other.linkname = kind, "q" * 150 if form != tarfile.USTAR_FORMAT else "q"
                tar.addfile(other)
    with tarfile.open(path) as tar:
        expected = [(m.name, m.offset_data, m.size) for m in tar if m.isfile()]
    assert list(tar_files(path)) == expected and len(expected) >= 5


def test_sizes_beyond_octal(tmp_path, caplog):
    # A sparse file: 9 GB by header and length, nothing on the disk.
    info = tarfile.TarInfo("big.jpg")
    info.size = 9 << 30
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / f"{form}.tar"
        header = info.tobuf(form)
        with open(path, "wb") as file:
            file.write(header)
            file.truncate(len(header) + info.size)
        assert list(tar_files(path)) == [("big.jpg", len(header), 9 << 30)]
        assert f"{path} has no end mark" in caplog.text


def test_empty_archive_and_empty_file(tmp_path):
    with tarfile.open(tmp_path / "none.tar", "w"):
        pass
    assert list(tar_files(tmp_path / "none.tar")) == []
    (tmp_path / "zero.tar").touch()
    with pytest.raises(DataError, match="0 bytes"):
        list(tar_files(tmp_path / "zero.tar"))


def test_damaged_header(tmp_path):
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("a.jpg", "b.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 600
            tar.addfile(info, io.BytesIO(b"x" * 600))
    content = bytearray(path.read_bytes())
    content[512 + 1024 + 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="no header at byte 1536"):
        list(tar_files(path))
