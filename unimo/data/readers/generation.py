"""Samples of text generation: the record, and its formats.

    lines   two files with one text a line: sources and targets
    tsv     a header with `tgt` (or `target`), optionally `knowledge`, and one or more columns of sources
    jsonl   {"source": "...", "target": "..."}; either may be a list: columns, and several references
    CoQA    coqa-train-v1.0.json: stories with questions and answers; a sample is a question with all earlier
            questions and answers, its target the answer
    SQuAD   train-v1.1.json: passages with questions and answers; a sample is a passage with an answer, its
            target the question

The first three have one sample a line; lines are located when a file is opened and decoded when read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimo.data.checks import check_id, check_text
from unimo.data.readers.base import LineFile, TextDataset, check_index
from unimo.data.record import Record
from unimo.data.splits import check_said_split, read_split
from unimo.errors import DataError, RecordError, shown, visible
from unimo.files import parse_json, read_json

TARGETS = ("tgt", "target")
KNOWLEDGE, SPLIT = "knowledge", "split"


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

    @property
    def texts(self) -> tuple[str, ...]:
        """Sources, knowledge and references, unless they are ids already."""
        known = (self.knowledge,) if self.knowledge else ()
        return () if self.is_tokenized else (*self.sources, *known, *self.references)


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
        self._sources = [column for column in columns if column not in (*TARGETS, KNOWLEDGE, SPLIT)]
        self._split = read_split(path.stem)
        self._target = next((column for column in TARGETS if column in columns), "")
        if not self._target or not self._sources or len(set(columns)) < len(columns):
            found = ", ".join(visible(column[:30]) for column in columns[:12]) or "nothing"
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
        check_said_split(texts.get(SPLIT), self._split, where)
        sources = [check_text(texts[column], f"{where}, column {column}") for column in self._sources]
        if self._splits_turns:
            turns = (turn for source in sources for turn in source.split(" [SEP] "))
            sources = [check_text(turn, f"{where}, a turn") for turn in turns]
        knowledge = texts.get(KNOWLEDGE, "")
        return GenerationRecord(
            sample_id=self._lines.sample_id(line),
            corpus=self.name,
            sources=tuple(sources),
            knowledge=check_text(knowledge, f"{where}, column {KNOWLEDGE}") if knowledge.strip() else None,
            references=(check_text(texts[self._target], f"{where}, column {self._target}"),),
            is_tokenized=self._is_tokenized,
        )


class JsonlFile(TextDataset):
    """One JSON object a line, with `source`, `target` and optionally `knowledge`.

    Raises:
        DataError: the file cannot be read.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.name, self._split = name, read_split(path.stem)
        self._lines = LineFile(path)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> GenerationRecord:
        check_index(index, len(self))
        where = self._lines.where(index)
        item = parse_json(self._lines.content(index), where, RecordError)
        if not isinstance(item, dict):
            raise RecordError(f"{where}: expected a JSON object, found {shown(item)}")
        check_said_split(item.get(SPLIT), self._split, where)
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


class CoqaFile(TextDataset):
    """Questions about stories; `references` are the answers of all annotators, `question_type` the domain.

    A story that is none is one broken sample, and a broken turn breaks those that follow it.

    Raises:
        DataError: the file cannot be read.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.name, self._path = name, path
        self._stories = _articles(path)
        self._turns: list[tuple[int, int]] = []
        for number, story in enumerate(self._stories):
            try:
                turns = len(_turns(story, "")[0])
            except RecordError:
                turns = 1  # reading it says what is wrong
            self._turns += [(number, turn) for turn in range(turns)]
        _check_some(self)

    def __len__(self) -> int:
        return len(self._turns)

    def __getitem__(self, index: int) -> GenerationRecord:
        check_index(index, len(self))
        number, turn = self._turns[index]
        story, where = self._stories[number], f"{self._path}, story {number}"
        questions, answers = _turns(story, where)
        where = f"{where}, turn {turn + 1}"
        earlier = [text for pair in zip(questions[:turn], answers[:turn], strict=True) for text in pair]
        turn_id = _turn_id(questions[turn], turn, where)
        accepted = [answers[turn], *_further_answers(story, turn_id, where)]
        story_id = check_id(story.get("id", number), f"{where}, 'id'")
        source = story.get("source")
        return GenerationRecord(
            sample_id=f"{self._path.stem}:{story_id}#{turn + 1}",
            corpus=self.name,
            sources=tuple(_input_text(item, where) for item in [*earlier, questions[turn]]),
            knowledge=check_text(story["story"], where),
            references=tuple(_input_text(item, where) for item in accepted),
            question_id=story_id,
            question_type=check_text(source, f"{where}, 'source'") if source else "",
            turn_id=turn_id,
        )


class SquadQuestions(TextDataset):
    """Question generation: a passage and an answer are the source, the question is the target.

    An article, a paragraph or a question that is none is one broken sample.

    Raises:
        DataError: the file cannot be read.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.name, self._path = name, path
        self._questions = [
            (number, place, paragraph, question)
            for number, article in enumerate(_articles(path))
            for place, paragraph in enumerate(_parts(article, "paragraphs", f"{path}, article {number}"))
            for question in _parts(paragraph, "qas", f"{path}, article {number}, paragraph {place}")
        ]
        _check_some(self)

    def __len__(self) -> int:
        return len(self._questions)

    def __getitem__(self, index: int) -> GenerationRecord:
        check_index(index, len(self))
        number, place, paragraph, item = self._questions[index]
        if isinstance(item, RecordError):
            raise RecordError(str(item))
        item = _object(item, f"{self._path}, article {number}, paragraph {place}")
        where = f"{self._path}, article {number}, paragraph {place}, question {shown(item.get('id'))}"
        answers = _list(item, "answers", where)
        first = _object(answers[0], where) if answers else {}
        question_id = check_id(item.get("id", index), f"{where}, 'id'")
        return GenerationRecord(
            sample_id=f"{self._path.stem}:{question_id}",
            corpus=self.name,
            sources=(
                check_text(paragraph.get("context"), f"{where}, 'context'"),
                check_text(first.get("text"), f"{where}, first of 'answers'"),
            ),
            references=(check_text(item.get("question"), f"{where}, 'question'"),),
        )


def _articles(path: Path) -> list[Any]:
    """Read the articles of a JSON file: `{"data": [articles]}`, or the list of articles itself."""
    content = read_json(path, DataError)
    entries = content.get("data") if isinstance(content, Mapping) else content
    if not isinstance(entries, list):
        raise DataError(f"{path}: expected a JSON object with a list of objects `data`, as of CoQA and SQuAD")
    return entries


def _list(item: Any, key: str, where: str) -> list[Any]:
    value = item.get(key) if isinstance(item, Mapping) else None
    if not isinstance(value, list):
        found = ", ".join(map(str, item)) if isinstance(item, Mapping) else shown(item)
        raise RecordError(f"{where}: no list of objects {key!r}; found {found or 'nothing'}")
    return value


def _parts(item: Any, key: str, where: str) -> list[Any]:
    """Return the list under a key; if there is none, a list with the error that says so."""
    if isinstance(item, RecordError):
        return [item]
    try:
        return _list(item, key, where)
    except RecordError as error:
        return [error]


def _object(item: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(item, Mapping):
        raise RecordError(f"{where}: expected a JSON object, found {shown(item)}")
    return item


def _turns(story: Any, where: str) -> tuple[list[Any], list[Any]]:
    """Return the questions and answers of a story of CoQA.

    Raises:
        RecordError: it has no text, or not as many of one as of the other.
    """
    questions, answers = (_list(story, key, where) for key in ("questions", "answers"))
    if not isinstance(story.get("story"), str) or len(questions) != len(answers):
        raise RecordError(
            f"{where}: expected `story` and as many `answers` as `questions`; found {len(questions)} "
            f"questions, {len(answers)} answers and {', '.join(story)}"
        )
    return questions, answers


def _check_some(dataset: TextDataset) -> None:
    """Check that a data set has a sample that is not broken.

    Raises:
        DataError: all are; the first is named.
    """
    first = None
    for index in range(len(dataset)):
        try:
            dataset[index]
            return
        except RecordError as error:
            first = first or error
    if first is not None:
        raise DataError(f"all {len(dataset)} samples are broken; the first: {first}")


def _turn_id(item: Any, turn: int, where: str) -> int:
    """Return the number of a question or an answer; that of its place, from 1, if it has none.

    Raises:
        RecordError: it is no number.
    """
    item = _object(item, where)
    number = check_id(item.get("turn_id", turn + 1), f"{where}, 'turn_id'")
    if isinstance(number, str):
        raise RecordError(f"{where}, 'turn_id': expected a number, found {shown(number)}")
    return number


def _further_answers(story: Mapping[str, Any], turn_id: int, where: str) -> list[dict[str, Any]]:
    """Return the answers of the other annotators to a turn, which they need not all have answered.

    Raises:
        RecordError: `additional_answers` is not a list of answers for each annotator.
    """
    others = story.get("additional_answers")
    if others is None:
        return []
    if not isinstance(others, Mapping):
        raise RecordError(
            f"{where}: expected `additional_answers` to be an object with the answers of each annotator, "
            f"found {shown(others)}"
        )
    given = [(answer, place) for name in others for place, answer in enumerate(_list(others, name, where))]
    return [answer for answer, place in given if _turn_id(answer, place, where) == turn_id]


def _input_text(item: Any, where: str) -> str:
    return check_text(_object(item, where).get("input_text"), f"{where}, 'input_text'")
