"""Finding and opening the files of a GLUE task, which no other corpus has to load."""

from __future__ import annotations

import logging
from pathlib import Path

from unimo.data.readers.base import Dataset, concat
from unimo.data.readers.glue import FOLDERS, TASKS, GlueFile, GlueName
from unimo.data.readers.open import resolve_path
from unimo.data.scenes.texts import SceneTexts
from unimo.data.splits import Split, read_split, select, split_words
from unimo.errors import DataError, SplitError
from unimo.files import listed
from unimo.settings import CorpusConfig, DataConfig

log = logging.getLogger(__name__)


def open_glue(corpus: CorpusConfig, split: str, data: DataConfig, dataset: GlueName) -> Dataset:
    """Open one split of a GLUE task.

    Args:
        corpus: the folder of its files, a folder that contains it under its GLUE name, or `scenes`.
        split: `train`, `val` (GLUE's dev), `test`, or several joined by `+`. For MNLI `val` and `test` are
            the matched and the mismatched file; `val_matched`, for example, is one of them.

    Raises:
        DataError: no such folder or split, or a file that `GlueFile` refuses.
    """
    if corpus.path == "scenes":
        return concat([SceneTexts(dataset, word, data.scenes) for word in split_words(split)], "scenes")
    path = resolve_path(corpus, data)
    folder = next((path / each for each in FOLDERS[dataset] if (path / each).is_dir()), path)
    if not folder.is_dir():
        raise DataError(
            f"no folder {folder.absolute()}; expected the files of GLUE's {dataset} (train.tsv, ...)"
        )
    name = corpus.name or folder.name
    parts = [
        GlueFile(file, TASKS[dataset], name, part, needs_labels="test" not in word.lower())
        for word in split_words(split)
        for file, part in _files(folder, word, dataset)
    ]
    whole = concat(parts, name)
    log.info("%s, %s: %d samples of %s in %d files", name, split, len(whole), dataset, len(parts))
    return whole


def _files(folder: Path, split: str, dataset: GlueName) -> list[tuple[Path, str]]:
    """Find the files of one split, each with its part (`matched`, `mismatched` or empty)."""
    if dataset == "ax":
        named = listed(folder, "diagnostic.tsv") or listed(folder, "AX.tsv")
        files = [(file, Split("test", "test")) for file in named]
    else:
        # MRPC is also read as its authors distribute it.
        named = listed(folder, "*.tsv") or listed(folder, "msr_paraphrase_*.txt")
        files = [(file, found) for file in named if (found := read_split(file.stem))]
    chosen = [files[place] for place in select([found for _, found in files], split)]
    if not chosen:
        there = ", ".join(file.name for file, _ in files) or "no .tsv files"
        raise SplitError(f"{folder} has no split {split!r} of GLUE files; found: {there}")
    return [(file, found.part) for file, found in chosen]
