"""Inputs of preparation: folders and image files, with messages that help when a path is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unimo.data.images.open import open_image
from unimo.data.prepare.writer import ArrowWriter
from unimo.errors import DataError, RecordError

_CHECK_SIZE = 32
Row = tuple[tuple[str, ...], Mapping[str, Any]]


def check_folder(path: str | Path, what: str) -> Path:
    """Return the path of an existing folder.

    Raises:
        DataError: it does not exist.
    """
    path = Path(path)
    if not path.is_dir():
        raise DataError(f"no folder {path} with {what}; give the folder that holds them")
    return path


@dataclass
class ImageFolder:
    """The image files of a corpus, with a record of missing and broken ones.

    Args:
        max_missing_rate: share of the requested images that may be missing or broken.
    """

    root: Path
    max_missing_rate: float = 0.01
    missing: set[str] = field(default_factory=set)
    broken: dict[str, str] = field(default_factory=dict)
    _sound: set[str] = field(default_factory=set)

    def read(self, *candidates: str) -> bytes | None:
        """Read the first existing candidate, relative to the root; None (and counted) if it is unusable.

        An image is decoded once, at low resolution, to check that it is complete.
        """
        name = next((name for name in candidates if (self.root / name).is_file()), None)
        if name is None:
            self.missing.add(candidates[0])
            return None
        try:
            content = (self.root / name).read_bytes()
            if name not in self._sound:
                open_image(content, target=_CHECK_SIZE)
                self._sound.add(name)
        except (OSError, RecordError) as error:
            self.broken[name] = str(error)
            return None
        return content

    def check_present(self, wanted: Iterable[tuple[str, ...]]) -> None:
        """Check before anything is written that enough images exist.

        Args:
            wanted: candidate names of each image.

        Raises:
            DataError: more than `max_missing_rate` of them are missing.
        """
        found = [(names[0], any((self.root / name).is_file() for name in names)) for names in wanted]
        total, lost = len(found), [name for name, is_there in found if not is_there]
        if total and len(lost) == total:
            raise DataError(
                f"annotations without images: none of the {total} annotated images is in {self.root}, "
                f"for example {lost[0]}; give their folder with --images"
            )
        self._check_rate(lost, total, "missing from")

    def write(self, writer: ArrowWriter, rows: Iterable[Row], texts: str) -> int:
        """Write the rows of a file, without those whose image is unusable.

        Args:
            writer: the file.
            rows: candidate names of the image, and the other columns.
            texts: column with a list of texts.

        Returns:
            Number of texts.

        Raises:
            DataError: more than `max_missing_rate` of the images read so far were missing or broken, or the
                file cannot be written; it is removed then.
        """
        count = 0
        with writer:
            for names, columns in rows:
                image = self.read(*names)
                if image is not None:
                    writer.write({"image": image, **columns})
                    count += len(columns[texts])
            lost = [*self.missing, *self.broken]
            self._check_rate(lost, len(lost) + len(self._sound), "missing or broken in")
        return count

    def _check_rate(self, lost: list[str], total: int, how: str) -> None:
        if total and len(lost) / total > self.max_missing_rate:
            raise DataError(
                f"{len(lost)} of {total} images are {how} {self.root} "
                f"({len(lost) / total:.1%}, allowed {self.max_missing_rate:.1%}), for example {lost[0]}; "
                "complete the folder or raise --max-missing-rate"
            )

    def report(self) -> dict[str, Any]:
        """Return counts for summary.json, with the first few names."""
        examples = [f"{name}: not found" for name in sorted(self.missing)[:5]]
        examples += [f"{name}: {reason}" for name, reason in sorted(self.broken.items())[:5]]
        return {"images_missing": len(self.missing), "images_broken": len(self.broken), "examples": examples}
