"""Reading the inputs of preparation, with messages for a person who mistyped a path."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unimo.data.images.open import open_image
from unimo.errors import DataError, RecordError

_CHECK_SIZE = 32


def check_folder(path: str | Path, what: str) -> Path:
    """The folder as a Path.

    Raises:
        DataError: it does not exist.
    """
    path = Path(path)
    if not path.is_dir():
        raise DataError(f"no folder {path} with {what}; give the folder that holds them")
    return path


@dataclass
class ImageFolder:
    """Image files of a corpus, and which of those asked for could not be used.

    Args:
        root: the folder.
        max_missing_rate: share of the images asked for that may be missing or broken.
    """

    root: Path
    max_missing_rate: float = 0.01
    missing: set[str] = field(default_factory=set)
    broken: dict[str, str] = field(default_factory=dict)
    _sound: set[str] = field(default_factory=set)

    def read(self, *candidates: str) -> bytes | None:
        """Bytes of the first candidate that exists, relative to the root; None (and counted) if unusable.

        An image is decoded once, at low resolution, to know that it is whole.
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
        """Fail before anything is written when too many images are missing.

        Raises:
            DataError: more than `max_missing_rate` of `wanted` (candidate names each) are missing.
        """
        total = 0
        lost = []
        for candidates in wanted:
            total += 1
            if not any((self.root / name).is_file() for name in candidates):
                lost.append(candidates[0])
        if total and len(lost) == total:
            raise DataError(
                f"annotations without images: none of the {total} annotated images is in {self.root}, "
                f"for example {lost[0]}; give their folder with --images"
            )
        self._check_rate(lost, total, "missing from")

    def check_rate(self) -> None:
        """Fail when too many of the images read so far were missing or broken."""
        lost = [*self.missing, *self.broken]
        self._check_rate(lost, len(lost) + len(self._sound), "missing or broken in")

    def _check_rate(self, lost: list[str], total: int, how: str) -> None:
        if total and len(lost) / total > self.max_missing_rate:
            raise DataError(
                f"{len(lost)} of {total} images are {how} {self.root} "
                f"({len(lost) / total:.1%}, allowed {self.max_missing_rate:.1%}), for example {lost[0]}; "
                "complete the folder or raise --max-missing-rate"
            )

    def report(self) -> dict[str, Any]:
        """Counts for summary.json, with the first few names."""
        examples = [f"{name}: not found" for name in sorted(self.missing)[:5]]
        examples += [f"{name}: {reason}" for name, reason in sorted(self.broken.items())[:5]]
        return {
            "images_missing": len(self.missing),
            "images_broken": len(self.broken),
            "examples": examples,
        }
