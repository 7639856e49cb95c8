"""GQA: its question files and folder of pictures to tables, with what its scores read of each question."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unimo.data.checks import check_id, check_text
from unimo.data.prepare.broken import BrokenRecords
from unimo.data.prepare.writer import (
    SCHEMAS,
    ArrowWriter,
    ImageFolder,
    Progress,
    Row,
    check_folder,
    facts_columns,
    no_progress,
    write_json,
)
from unimo.data.readers.answers import NO_CLASS, read_facts
from unimo.errors import DataError, RecordError, shown
from unimo.files import read_json_object
from unimo.metrics.gqa import QuestionFacts

FILES = {
    "train": ("train_balanced",),
    "val": ("val_balanced",),
    "val_all": ("val_all",),
    "testdev": ("testdev_balanced",),
    "testdev_all": ("testdev_all",),
    "test": ("submission_all", "test_all", "test_balanced"),
}
"""Split -> the file of its questions, `<name>_questions.json`, the first that is there."""
LABELLED = ("train", "val")
"""Splits whose answers are classes."""


class Question(NamedTuple):
    """A question with its answer, which is empty where there is none."""

    question_id: str
    text: str
    answer: str
    facts: QuestionFacts


GqaSplit = dict[str, list[Question]]
"""The questions of a split by image, in the order of the question file."""


def prepare_gqa(
    annotations: str | Path,
    images: str | Path,
    out: str | Path,
    max_missing_rate: float = 0.01,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Write `gqa_<split>.arrow`, `answers.json` and `summary.json`; return the content of the last.

    The classes are all answers of the balanced questions of train and val, in the order of the files. Other
    answers stay in the tables of further splits, where they are no class.

    Args:
        annotations: folder of `{train,val,testdev}_balanced_questions.json`; with `val_all_questions.json`,
            `testdev_all_questions.json`, without which entailed questions that are not balanced are missing
            from the consistency; with `submission_all_questions.json` or `test_*_questions.json` for the
            server; and with `val_choices.json`, `testdev_choices.json` for validity and plausibility.
        images: folder of the pictures, `<imageId>.jpg`.
        max_missing_rate: share of images that may be missing or broken, and of questions that may be broken.

    Raises:
        DataError: missing files, too many broken questions or missing images, a split of which nothing is
            left, or a full disk.
    """
    source = check_folder(annotations, "the question files of GQA")
    broken = BrokenRecords(source, max_missing_rate)
    splits = {
        split: _read_split(path, source / f"{split.partition('_')[0]}_choices.json", split, broken)
        for split, names in FILES.items()
        if (path := _first(source, names))
    }
    if "train" not in splits:
        raise DataError(f"no train_balanced_questions.json in {source}; unpack the questions of GQA there")
    broken.check()
    if empty := [FILES[split][0] for split, by_image in splits.items() if not by_image]:
        raise DataError(
            f"{source}/{empty[0]}_questions.json: no question; expected an object of questions by id"
        )
    folder = ImageFolder(images, "the images of GQA", max_missing_rate)
    wanted = ((split, image, _candidates(image)) for split, by_image in splits.items() for image in by_image)
    folder.check_present(wanted)
    learned = (splits[split] for split in LABELLED if split in splits)
    asked = (question for by_image in learned for questions in by_image.values() for question in questions)
    answers = dict.fromkeys(question.answer for question in asked if question.answer)
    labels = {answer: label for label, answer in enumerate(answers)}
    summary: dict[str, Any] = {"answers": len(labels), "splits": {}}
    for split, by_image in splits.items():
        writer = ArrowWriter(out, f"gqa_{split}", SCHEMAS["gqa"])
        items = progress(by_image.items(), total=len(by_image), what=writer.stem)
        count = folder.write(writer, split, _rows(items, split, labels), "questions", "broken questions")
        summary["splits"][split] = {
            "images": writer.rows,
            "questions": count,
            "files": writer.file_names,
            "answers_without_class": sum(
                bool(one.answer) and one.answer not in labels for many in by_image.values() for one in many
            ),
        }
    write_json(Path(out) / "answers.json", list(labels))
    return folder.finish(out, summary, broken)


def _first(folder: Path, names: Iterable[str]) -> Path | None:
    paths = (folder / f"{name}_questions.json" for name in names)
    return next(filter(Path.is_file, paths), None)


def _candidates(image: str) -> tuple[str, ...]:
    return f"{image}.jpg", f"images/{image}.jpg"


def _read_split(path: Path, choices: Path, split: str, broken: BrokenRecords) -> GqaSplit:
    """Read the questions of a file, with their valid and plausible answers where there are choices."""
    # Nothing that is trained on is scored by them, and the file of train is larger than all others.
    allowed = read_json_object(choices, DataError) if split != "train" and choices.is_file() else {}
    images: GqaSplit = {}
    for key, item in read_json_object(path, DataError).items():
        with broken.skipping():
            where = f"{path}: {shown(key)}"
            question = _read_question(key, item, allowed.get(key), where, split.startswith("test"))
            image = str(check_id(item.get("imageId"), f"{where}, 'imageId'"))
            images.setdefault(image, []).append(question)
    return images


def _read_question(key: str, item: Any, choices: Any, where: str, may_lack_answer: bool) -> Question:
    """Check a question of GQA.

    Raises:
        RecordError: not one, or, but for test questions, without an answer.
    """
    if not isinstance(item, Mapping) or not isinstance(choices, Mapping | None):
        found = item if not isinstance(item, Mapping) else choices
        raise RecordError(f"{where}: expected a JSON object, found {shown(found)}")
    answer = item.get("answer")
    if answer is not None or not may_lack_answer:
        answer = check_text(answer, f"{where}, 'answer'")
    facts = read_facts({**item, **(choices or {})}, where)
    text = check_text(item.get("question"), f"{where}, 'question'")
    return Question(check_text(key, where), text, answer or "", facts)


def _rows(
    items: Iterable[tuple[str, list[Question]]], split: str, labels: Mapping[str, int]
) -> Iterator[Row]:
    for image, questions in items:
        given = [[one.answer] if one.answer else [] for one in questions]
        columns = {
            "questions": [one.text for one in questions],
            "answers": given,
            "answer_labels": [[labels.get(answer, NO_CLASS) for answer in answers] for answers in given],
            "answer_scores": [[1.0] * len(answers) for answers in given],
            "image_id": image,
            "question_id": [one.question_id for one in questions],
            "split": split,
        }
        yield _candidates(image), columns | facts_columns([one.facts for one in questions])
