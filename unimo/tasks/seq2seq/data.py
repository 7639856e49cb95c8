"""The files of text generation: which files of a folder are which split.

The names of the files in a folder tell its format (`FILES`); {} is `train`, `val` (or `valid`, `dev`,
`validation`) or `test`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from unimo.data.readers.base import Dataset, concat
from unimo.data.readers.generation import CoqaFile, JsonlFile, LinePairs, SquadQuestions, TsvFile
from unimo.data.splits import split_words
from unimo.errors import DataError
from unimo.settings import CorpusConfig
from unimo.tasks.seq2seq.config import Format

if TYPE_CHECKING:
    from unimo.settings import RunConfig

logger = logging.getLogger(__name__)
FILES: dict[str, tuple[tuple[str, ...], ...]] = {
    "coqa": (("coqa-{}-v1.0.json",),),
    "squad_qg": (("{}-v1.1.json",), ("{}.json",)),
    "lines": (
        ("{}.source", "{}.target"),
        ("{}.src", "{}.tgt"),
        ("{}.src.txt", "{}.tgt.txt"),
        ("{}.article.txt", "{}.title.txt"),
        ("{}.article.filter.txt", "{}.title.filter.txt"),
    ),
    "tsv": (("{}.tsv",),),
    "jsonl": (("{}.jsonl",),),
}
"""Format -> names that its files may have; two names are those of source and target."""
STEMS = {"val": ("val", "valid", "dev", "validation")}


def open_generation(corpus: CorpusConfig, split: str, run: RunConfig) -> Dataset:
    """Open one split of a corpus of texts to write.

    Args:
        corpus: a folder, or `scenes`.
        split: `train`, `val`, `test` or another that file names have, or several joined by `+`.
        run: config with the section of the task, the root of relative paths and the size of `scenes`.

    Raises:
        DataError: no such folder or split, or files that cannot be used.
    """
    if corpus.path == "scenes":
        from unimo.data.scenes.texts import SceneWriting

        written = [SceneWriting(word, run.data.scenes, run.task.dialog) for word in split_words(split)]
        return concat(written, "scenes")
    folder = Path(run.data.root).expanduser() / Path(corpus.path).expanduser()
    if not folder.is_dir():
        raise DataError(f"no folder {folder.absolute()}; expected files such as {_names('train', 'auto')}")
    name = corpus.name or folder.name
    parts = []
    for word in split_words(split):
        kind, files = find_files(folder, word, run.task.format)
        if kind == "lines":
            parts.append(LinePairs((files[0], files[1]), name))
        elif kind == "tsv":
            parts.append(TsvFile(files[0], name, run.task.tokenized_input, splits_turns=run.task.dialog))
        else:
            reader = {"coqa": CoqaFile, "squad_qg": SquadQuestions, "jsonl": JsonlFile}[kind]
            parts.append(reader(files[0], name))
        logger.info("%s, %s: %d samples of %s in %s", name, word, len(parts[-1]), kind, files[0].name)
        if not len(parts[-1]):
            raise DataError(f"{files[0]} has no samples")
    return concat(parts, name)


def find_files(folder: Path, split: str, kind: Format = "auto") -> tuple[str, tuple[Path, ...]]:
    """Find format and files of a split.

    Raises:
        DataError: there are none, or a source without its target.
    """
    for known in FILES if kind == "auto" else (kind,):
        for patterns in FILES[known]:
            for stem in STEMS.get(split, (split,)):
                files = tuple(folder / pattern.format(stem) for pattern in patterns)
                there = [file for file in files if file.is_file()]
                if there and len(there) < len(files):
                    missing = next(file for file in files if file not in there)
                    raise DataError(f"{there[0]} has no {missing.name} beside it; expected both")
                if there:
                    return known, files
    found = ", ".join(sorted(file.name for file in folder.iterdir())[:12]) or "nothing"
    raise DataError(f"{folder} has no split {split!r}; expected {_names(split, kind)}; found: {found}")


def _names(split: str, kind: Format) -> str:
    patterns = [pattern for known in FILES if kind in ("auto", known) for pattern in FILES[known]]
    return ", ".join(" with ".join(name.format(split) for name in pattern) for pattern in patterns)
