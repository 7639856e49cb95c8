"""CoQA and SQuAD as their authors distribute them, for text generation.

CoQA     coqa-train-v1.0.json: stories with questions and answers; a sample is a question with all earlier
         questions and answers, its target the answer
SQuAD    train-v1.1.json: passages with questions and answers; a sample is a passage with an answer, its
         target the question
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unimo.data.readers.base import TextDataset, check_index, check_text
from unimo.data.readers.generation import GenerationRecord
from unimo.errors import DataError
from unimo.files import read_json


class CoqaFile(TextDataset):
    """Questions about stories; `references` are the answers of all annotators, `question_type` the domain.

    Raises:
        DataError: the file cannot be read, or a story lacks a key.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.name, self._path = name, path
        self._stories = _articles(path)
        self._turns: list[tuple[int, int]] = []
        for number, story in enumerate(self._stories):
            where = f"{path}, story {number}"
            questions, answers = (_list(story, key, where) for key in ("questions", "answers"))
            if not isinstance(story.get("story"), str) or len(questions) != len(answers):
                raise DataError(
                    f"{where}: expected `story` and as many `answers` as `questions`; found "
                    f"{len(questions)} questions, {len(answers)} answers and {', '.join(story)}"
                )
            self._turns += [(number, turn) for turn in range(len(questions))]

    def __len__(self) -> int:
        return len(self._turns)

    def __getitem__(self, index: int) -> GenerationRecord:
        check_index(index, len(self))
        number, turn = self._turns[index]
        story, where = self._stories[number], f"{self._path}, story {number}, turn {turn + 1}"
        questions, answers = story["questions"], story["answers"]
        earlier = [text for pair in zip(questions[:turn], answers[:turn], strict=True) for text in pair]
        others = (story.get("additional_answers") or {}).values()
        accepted = [answers[turn], *(given[turn] for given in others if turn < len(given))]
        return GenerationRecord(
            sample_id=f"{self._path.stem}:{story.get('id', number)}#{turn + 1}",
            corpus=self.name,
            sources=tuple(_input_text(item, where) for item in [*earlier, questions[turn]]),
            knowledge=check_text(story["story"], where),
            references=tuple(_input_text(item, where) for item in accepted),
            question_id=story.get("id", number),
            question_type=str(story.get("source", "")),
            turn_id=int(questions[turn].get("turn_id", turn + 1)),
        )


class SquadQuestions(TextDataset):
    """Question generation: a passage and an answer are the source, the question is the target.

    Raises:
        DataError: the file cannot be read, or an article lacks a key.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.name, self._path = name, path
        self._questions = [
            (number, place, paragraph, question)
            for number, article in enumerate(_articles(path))
            for place, paragraph in enumerate(_list(article, "paragraphs", f"{path}, article {number}"))
            for question in _list(paragraph, "qas", f"{path}, article {number}, paragraph {place}")
        ]

    def __len__(self) -> int:
        return len(self._questions)

    def __getitem__(self, index: int) -> GenerationRecord:
        check_index(index, len(self))
        number, place, paragraph, item = self._questions[index]
        where = f"{self._path}, article {number}, paragraph {place}, question {item.get('id')!r}"
        answers = _list(item, "answers", where)
        return GenerationRecord(
            sample_id=f"{self._path.stem}:{item.get('id', index)}",
            corpus=self.name,
            sources=(
                check_text(paragraph.get("context"), f"{where}, 'context'"),
                check_text(answers[0].get("text") if answers else None, f"{where}, first of 'answers'"),
            ),
            references=(check_text(item.get("question"), f"{where}, 'question'"),),
        )


def _articles(path: Path) -> list[dict[str, Any]]:
    """Read the articles of a JSON file: `{"data": [articles]}`, or the list of articles itself."""
    content = read_json(path, DataError)
    entries = content.get("data") if isinstance(content, Mapping) else content
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{path}: expected a JSON object with a list of objects `data`, as of CoQA and SQuAD")
    return entries


def _list(item: Any, key: str, where: str) -> list[dict[str, Any]]:
    value = item.get(key) if isinstance(item, Mapping) else None
    if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
        found = ", ".join(map(str, item)) if isinstance(item, Mapping) else repr(item)[:80]
        raise DataError(f"{where}: no list of objects {key!r}; found {found or 'nothing'}")
    return value


def _input_text(item: dict[str, Any], where: str) -> str:
    return check_text(item.get("input_text"), f"{where}, 'input_text'")
