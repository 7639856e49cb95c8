"""Archives of released weights: files and folders only, inside one folder, up to a sensible size."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path, PurePosixPath

from unimo.errors import CheckpointError
from unimo.files import filling

ENDINGS = (".tar", ".tar.gz", ".tgz")
_GROWTH, _SPARE = 20, 1 << 26
"""Largest unpacked size: a multiple of the bytes of the archive, and a number of bytes besides. Weights are
hardly compressed."""


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a tar archive into a folder, and return the innermost folder that holds more than another one.

    Raises:
        CheckpointError: it is damaged, has members that are no files or lie outside, or is too large.
    """
    limit = _GROWTH * archive.stat().st_size + _SPARE
    try:
        with tarfile.open(archive) as tar, filling(folder) as fresh:
            for member in tar:
                if (limit := limit - member.size) < 0:
                    raise CheckpointError(f"{archive}: {member.name} makes it too large to be weights")
                _write(tar, member, fresh, archive)
            while tar.fileobj.read(1 << 20):  # to its end, where a checksum is
                pass
    except (tarfile.TarError, EOFError, OSError) as error:
        raise CheckpointError(f"cannot unpack {archive}: {error}; download it again") from error
    while len(inside := list(folder.iterdir())) == 1 and inside[0].is_dir():
        folder = inside[0]
    return folder


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, archive: Path) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not (member.isreg() or member.isdir()):
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
