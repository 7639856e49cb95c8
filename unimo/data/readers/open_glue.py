"""Finding and opening the files of a GLUE task."""

from __future__ import annotations

import logging
from pathlib import Path

from unimo.data.readers.base import ConcatDataset, Dataset
from unimo.data.readers.glue import FOLDERS, TASKS, GlueFile, GlueName
from unimo.data.scenes.glue import SceneTexts
from unimo.errors import DataError
from unimo.settings import CorpusConfig, DataConfig

log = logging.getLogger(__name__)


def open_glue(corpus: CorpusConfig, split: str, data: DataConfig, dataset: GlueName) -> Dataset:
    """One split of a GLUE task.

    Args:
        corpus: the folder of its files, a folder that holds it under its GLUE name, or `scenes`.
        split: `train`, `val` (GLUE's dev), `test`, or several joined by `+`. For MNLI `val` and `test` are
            the matched and the mismatched file; `val_matched` and the like are one of them.
        data: gives the root of relative paths and the size of `scenes`.
        dataset: which task.

    Raises:
        DataError: no such folder or split, or what `GlueFile` refuses.
    """
    if corpus.path == "scenes":
        return SceneTexts(dataset, split, data.scenes)
    path = Path(corpus.path).expanduser()
    path = Path(data.root).expanduser() / path if data.root else path
    folder = path / FOLDERS[dataset] if (path / FOLDERS[dataset]).is_dir() else path
    if not folder.is_dir():
        raise DataError(
            f"no folder {folder.absolute()}; expected the files of GLUE's {dataset} (train.tsv, ...)"
        )
    name = corpus.name or folder.name
    parts = [
        GlueFile(file, TASKS[dataset], name, part, needs_labels="test" not in word)
        for word in split.split("+")
        for file, part in _files(folder, word)
    ]
    whole = parts[0] if len(parts) == 1 else ConcatDataset(parts, name)
    log.info("%s, %s: %d samples of %s in %d files", name, split, len(whole), dataset, len(parts))
    return whole


def _files(folder: Path, split: str) -> list[tuple[Path, str]]:
    """Files of one split, each with its part (`matched`, `mismatched` or nothing)."""
    stem, _, part = split.partition("_")
    name = "dev" if stem == "val" else stem
    parts = [part] if part else ["", "matched", "mismatched"]
    files = [(folder / f"{name}{'_' * bool(each)}{each}.tsv", each) for each in parts]
    found = [(file, each) for file, each in files if file.is_file()]
    if found:
        return found
    there = ", ".join(sorted(file.name for file in folder.glob("*.tsv"))) or "no .tsv files"
    raise DataError(f"{folder} has no split {split!r} of GLUE files; found: {there}")
