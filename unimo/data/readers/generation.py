"""Samples of text generation: the record, and the formats with one sample a line.

    lines   two files with one text a line: sources and targets
    tsv     a header with `tgt` (or `target`), optionally `knowledge`, and one or more columns of sources
    jsonl   {"source": "...", "target": "..."}; either may be a list: columns, and several references

Lines are located when a file is opened and decoded when read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimo.data.readers.base import TextDataset, check_index, check_text
from unimo.data.readers.lines import LineFile
from unimo.data.record import Record
from unimo.errors import DataError, RecordError
from unimo.files import parse_json

TARGETS = ("tgt", "target")
KNOWLEDGE = "knowledge"


@dataclass(frozen=True)
class GenerationRecord(Record):
    """A source and the texts to generate from it."""

    sources: tuple[str, ...] = ()
    """Columns of the source, e.g. passage and answer; the turns of a dialog, the newest last."""
    knowledge: str | None = None
    """Background of a dialog; without dialogs a column before the others."""
    references: tuple[str, ...] = ()
    """Correct targets; training reads one of them."""
    is_tokenized: bool = False
    """Whether texts are GPT-2 ids in decimal, separated by blanks, as in UNIMO's released files."""
    turn_id: int | None = None
    """Number of the turn of a dialog, whose id is `question_id`."""


class LinePairs(TextDataset):
    """Sources in one file, their targets in the same lines of another.

    Raises:
        DataError: a file cannot be read, or their numbers of lines differ.
    """

    def __init__(self, files: tuple[Path, Path], name: str) -> None:
        self.name = name
        self._sources, self._targets = (LineFile(file, keep=lambda number, line: True) for file in files)
        if len(self._sources) != len(self._targets):
            raise DataError(
                f"{files[0]} has {len(self._sources)} lines and {files[1]} has {len(self._targets)}; "
                "expected the target of each source in the line of the same number"
            )

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, index: int) -> GenerationRecord:
        check_index(index, len(self))
        return GenerationRecord(
            sample_id=self._sources.sample_id(index),
            corpus=self.name,
            sources=(check_text(self._sources.text(index), self._sources.where(index)),),
            references=(check_text(self._targets.text(index), self._targets.where(index)),),
        )


class TsvFile(TextDataset):
    """A tab-separated file with a header and without quoting.

    Args:
        is_tokenized: its cells hold GPT-2 ids.
        splits_turns: a source holds the turns of a dialog, separated by ` [SEP] `.

    Raises:
        DataError: the file cannot be read, or its header lacks a column.
    """

    def __init__(self, path: Path, name: str, is_tokenized: bool = False, splits_turns: bool = False) -> None:
        self.name, self._is_tokenized, self._splits_turns = name, is_tokenized, splits_turns
        self._lines = LineFile(path)
        self._columns = columns = self._lines.text(0).split("\t") if len(self._lines) else []
        self._sources = [column for column in columns if column not in (*TARGETS, KNOWLEDGE)]
        self._target = next((column for column in TARGETS if column in columns), "")
        if not self._target or not self._sources or len(set(columns)) < len(columns):
            found = ", ".join(column[:30] for column in columns[:12]) or "nothing"
            raise DataError(
                f"{path}, line 1: expected a header with `tgt` (or `target`) and one or more other columns, "
                f"each once, with tabs between, e.g. src and tgt; found: {found}"
            )

    def __len__(self) -> int:
        return len(self._lines) - 1

    def __getitem__(self, index: int) -> GenerationRecord:
        check_index(index, len(self))
        line, where = index + 1, self._lines.where(index + 1)
        cells = self._lines.text(line).split("\t")
        if len(cells) != len(self._columns):
            raise RecordError(
                f"{where}: {len(cells)} columns, expected {len(self._columns)} ({', '.join(self._columns)}) "
                "with tabs between"
            )
        texts = dict(zip(self._columns, cells, strict=True))
        sources = [check_text(texts[column], f"{where}, column {column}") for column in self._sources]
        if self._splits_turns:
            sources = [turn for source in sources for turn in source.split(" [SEP] ")]
        return GenerationRecord(
            sample_id=self._lines.sample_id(line),
            corpus=self.name,
            sources=tuple(sources),
            knowledge=texts.get(KNOWLEDGE),
            references=(check_text(texts[self._target], f"{where}, column {self._target}"),),
            is_tokenized=self._is_tokenized,
        )


class JsonlFile(TextDataset):
    """One JSON object a line, with `source`, `target` and optionally `knowledge`.

    Raises:
        DataError: the file cannot be read.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self._lines = LineFile(path)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> GenerationRecord:
        check_index(index, len(self))
        where = self._lines.where(index)
        item = parse_json(self._lines.content(index), where, RecordError)
        if not isinstance(item, dict):
            raise RecordError(f"{where}: expected a JSON object, found {item!r:.80}")
        knowledge = item.get(KNOWLEDGE)
        return GenerationRecord(
            sample_id=self._lines.sample_id(index),
            corpus=self.name,
            sources=texts_of(item, "source", where),
            knowledge=None if knowledge is None else check_text(knowledge, f"{where}, {KNOWLEDGE!r}"),
            references=texts_of(item, "target", where),
        )


def texts_of(item: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    """Return the text or texts under a key of a JSON object.

    Raises:
        RecordError: the key is missing, there is no text, or one of them is empty.
    """
    if key not in item:
        raise RecordError(f"{where}: no {key!r}; found {', '.join(map(str, item)) or 'nothing'}")
    value = item[key] if isinstance(item[key], list) else [item[key]]
    if not value:
        raise RecordError(f"{where}: {key!r} is an empty list; expected a text or several")
    return tuple(check_text(text, f"{where}, {key!r}") for text in value)
