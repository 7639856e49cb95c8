"""Archives of released weights: files and folders only, inside one folder, up to a sensible size."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path, PurePosixPath

from unimo.errors import CheckpointError
from unimo.files import filling
from unimo.limits import TAR_HEADER_BYTES, TENSORS

ENDINGS = (".tar", ".tar.gz", ".tgz")
_GROWTH, _SPARE = 20, 1 << 26
"""Largest unpacked size: a multiple of the bytes of the archive, and a number of bytes besides. Weights are
hardly compressed."""


_ABOUT_NEXT = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
"""Members with a long name or records about the next one, which tarfile reads whole."""


class _Member(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> _Member:
        """Read a header, and refuse one that would take any memory."""
        member = super().frombuf(buf, encoding, errors)
        if member.type in _ABOUT_NEXT and member.size > TAR_HEADER_BYTES:
            raise tarfile.TarError(
                f"a name or records of {member.size:,} bytes; the limit is {TAR_HEADER_BYTES:,}"
            )
        return member


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a tar archive into a folder, and return the innermost folder that holds more than another one.

    Raises:
        CheckpointError: it is damaged, has members that are no files or lie outside, or is too large.
    """
    limit = _GROWTH * archive.stat().st_size + _SPARE
    try:
        with tarfile.open(archive, tarinfo=_Member) as tar, filling(folder) as fresh:
            for count, member in enumerate(tar):
                if count == TENSORS or (limit := limit - member.size) < 0:
                    raise CheckpointError(f"{archive}: {member.name} makes it too large to be weights")
                _write(tar, member, fresh, archive)
            while block := tar.fileobj.read(1 << 20):  # to its end, where a checksum is
                if (limit := limit - len(block)) < 0:
                    raise CheckpointError(f"{archive}: what follows its members makes it too large")
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"cannot unpack {archive}: {error}; download it again") from error
    while len(inside := list(folder.iterdir())) == 1 and inside[0].is_dir():
        folder = inside[0]
    return folder


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, archive: Path) -> None:
    path = PurePosixPath(member.name)
    if (
        path.is_absolute()
        or ".." in path.parts
        or member.issparse()
        or not (member.isreg() or member.isdir())
    ):
        raise CheckpointError(
            f"{archive}: its member {member.name} is no file or folder inside of it; nothing was unpacked"
        )
    target = folder / path
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tar.extractfile(member) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file)
