"""Finding and opening a source of region features."""

from __future__ import annotations

from pathlib import Path

from unimo.data.regions.base import RegionSource
from unimo.data.regions.grid import GridRegions
from unimo.data.regions.store import INDEX, JoinedRegions, RegionStore, StoredRegions
from unimo.data.regions.tsv import TsvRegions
from unimo.errors import ConfigError


def open_regions(name: str) -> RegionSource:
    """Open the source named by `data.regions`.

    Args:
        name: `grid`, `grid:CELLS:PIXELS`, or a path that `open_store` reads.

    Raises:
        ConfigError: malformed name of a grid.
        DataError: no features at that path, or damaged ones.
    """
    kind, *numbers = name.split(":")
    if kind == "grid" and all(number.isdigit() for number in numbers) and len(numbers) in (0, 2):
        return GridRegions(*map(int, numbers))
    if kind == "grid":
        raise ConfigError(f"data.regions={name}: expected grid or grid:CELLS:PIXELS, e.g. grid:2:16")
    return open_store(Path(name).expanduser())


def open_store(path: Path) -> StoredRegions:
    """Open stored features.

    Args:
        path: a folder written by tools/extract_features.py, a TSV file in the format of UNIMO's release, a
            folder of such files, or several of these separated by commas.

    Raises:
        DataError: no features at that path, damaged ones, or features of different detectors.
    """
    names = str(path).split(",")
    if len(names) > 1 and not path.exists():
        return JoinedRegions([open_store(Path(name.strip()).expanduser()) for name in names])
    if path.suffix == ".tsv" and path.is_file():
        return TsvRegions(path)
    if path.is_dir() and not (path / INDEX).exists() and (tables := sorted(path.glob("*.tsv"))):
        return JoinedRegions([TsvRegions(table) for table in tables])
    return RegionStore(path)
