"""The files of text generation: which files of a folder are which split.

The names of the files in a folder tell its format (`FILES`); {} is `train`, `val` or `test`, or another name
of a split that `unimo/data/splits.py` knows, maybe with the number of a shard.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from unimo.data.readers.base import Dataset, concat
from unimo.data.readers.generation import CoqaFile, JsonlFile, LinePairs, SquadQuestions, TsvFile
from unimo.data.readers.open import resolve_path
from unimo.data.splits import Split, read_split, select, split_words
from unimo.errors import DataError, SplitError
from unimo.files import listed
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
    folder = resolve_path(corpus, run.data)
    if not folder.is_dir():
        raise DataError(f"no folder {folder.absolute()}; expected files such as {_names('train', 'auto')}")
    name = corpus.name or folder.name
    found = [
        (word, kind, files)
        for word in split_words(split)
        for kind, several in [find_files(folder, word, run.task.format)]
        for files in several
    ]
    parts = []
    for word, kind, files in found:
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


def find_files(folder: Path, split: str, kind: Format = "auto") -> tuple[str, list[tuple[Path, ...]]]:
    """Find the format of a split, and its file, or its two files, of each shard.

    Raises:
        DataError: there are none, or a source without its target.
    """
    names = [path.name for path in listed(folder)]
    for known in FILES if kind == "auto" else (kind,):
        for patterns in FILES[known]:
            stems: dict[str, Split] = {}
            for before, after in (pattern.split("{}") for pattern in patterns):
                for name in names:
                    stem = name.removeprefix(before).removesuffix(after)
                    if f"{before}{stem}{after}" == name and (found := read_split(stem)) and found.alone:
                        stems[stem] = found
            chosen = [list(stems)[place] for place in select(list(stems.values()), split)]
            several = [tuple(folder / pattern.format(stem) for pattern in patterns) for stem in chosen]
            for files in several:
                if missing := [file.name for file in files if not file.is_file()]:
                    there = next(file for file in files if file.is_file())
                    raise DataError(f"{there} has no {missing[0]} beside it; expected both")
            if several:
                return known, several
    found = ", ".join(sorted(file.name for file in folder.iterdir())[:12]) or "nothing"
    raise SplitError(f"{folder} has no split {split!r}; expected {_names(split, kind)}; found: {found}")


def _names(split: str, kind: Format) -> str:
    patterns = [pattern for known in FILES if kind in ("auto", known) for pattern in FILES[known]]
    return ", ".join(" with ".join(name.format(split) for name in pattern) for pattern in patterns)
