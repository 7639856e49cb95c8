"""VQA v2: the official question and annotation files to tables, with the vocabulary of 3,129 answers."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from unimo.data.checks import check_id, check_text
from unimo.data.prepare.broken import BrokenRecords
from unimo.data.prepare.pictures import coco_2017
from unimo.data.prepare.writer import (
    SCHEMAS,
    ArrowWriter,
    ImageFolder,
    Progress,
    Row,
    check_folder,
    no_progress,
    write_json,
)
from unimo.data.readers.answers import unnamed_class
from unimo.data.splits import check_said_split, read_split
from unimo.errors import DataError, RecordError, shown
from unimo.files import listed, read_json
from unimo.metrics.vqa import normalise_answer, soft_score

log = logging.getLogger(__name__)
Variant = Literal["raw", "normalised"]
LABELLED = ("train", "val")
_IMAGES_OF = {"train": "train2014", "val": "val2014", "test": "test2015", "test-dev": "test2015"}


class Question(NamedTuple):
    """A question with the answers of its annotators."""

    question_id: int
    image_id: int
    text: str
    majority: str
    """Most frequent answer; empty in test splits."""
    answers: tuple[str, ...]
    """All answers; none in test splits."""


VqaSplit = dict[int, list[Question]]
"""The questions of a split by image, in the order of the question file."""
Labelled = list[tuple[int, list[tuple[Question, list[tuple[str, int, float]]]]]]
"""Images with their questions, each with its answers that are classes: text, label and score."""


def prepare_vqa(
    annotations: str | Path,
    images: str | Path,
    out: str | Path,
    variant: Variant = "raw",
    min_count: int = 9,
    rest_images: int = 1000,
    max_missing_rate: float = 0.01,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Write `vqav2_<split>.arrow`, `answers.json` and `summary.json`; return the content of the last.

    Splits: train; val, also divided into `trainable_val` and its last `rest_images` images, `rest_val`; test
    and test-dev if their questions are present. Questions of train and val without any answer in the
    vocabulary are skipped.

    Args:
        annotations: folder of `v2_OpenEnded_mscoco_train2014_questions.json`,
            `v2_mscoco_train2014_annotations.json` etc.
        images: folder of `train2014`, `val2014`, `test2015`; or of `train2017`, `val2017`, the same pictures.
        variant: `raw` counts the annotators' answers as they are (ViLT, METER, VLMo); `normalised`
            normalises them first (BridgeTower) and adds `_fix` to the file names.
        min_count: number of questions for which an answer must be the majority answer to become a class.
        rest_images: number of images of `rest_val`.
        max_missing_rate: share of images that may be missing or broken, and of questions that may be broken.

    Raises:
        DataError: missing files, too many broken questions or missing images, a split of which nothing is
            left, or a full disk.
    """
    broken = BrokenRecords(annotations, max_missing_rate)
    splits = _read_splits(check_folder(annotations, "the VQA v2 JSON files"), broken)
    broken.check()
    folder = ImageFolder(images, "train2014, val2014, test2015", max_missing_rate)
    folder.check_present(
        (split, f"{_IMAGES_OF[split]}/{image}", _candidates(split, image))
        for split, by_image in splits.items()
        for image in by_image
    )
    labelled = (splits[split] for split in LABELLED if split in splits)
    questions = (question for by_image in labelled for asked in by_image.values() for question in asked)
    vocabulary = build_vocabulary((question.majority for question in questions), min_count)
    # Answers such as "the" are empty once normalised: a class, so that the others keep their numbers, that no
    # question has.
    labels = {answer: label for label, answer in enumerate(vocabulary) if answer}
    ending = "_fix" if variant == "normalised" else ""
    summary: dict[str, Any] = {"variant": variant, "answers": len(vocabulary), "splits": {}}
    for split, by_image in splits.items():
        for name, chosen in _parts(split, _label(by_image, split, labels, variant), rest_images).items():
            writer = ArrowWriter(out, f"vqav2_{name}{ending}", SCHEMAS["vqa"])
            items = progress(chosen, total=len(chosen), what=writer.stem)
            left_out = "questions without an answer that is a class (--min-count), broken questions"
            questions = folder.write(writer, split, _rows(split, name, items), "questions", left_out)
            summary["splits"][name] = {
                "images": writer.rows,
                "questions": questions,
                "files": writer.file_names,
                "questions_read": sum(map(len, by_image.values())),
            }
    names = [answer or unnamed_class(label) for label, answer in enumerate(vocabulary)]
    write_json(Path(out) / "answers.json", names)
    return folder.finish(out, summary, broken)


def build_vocabulary(majority_answers: Iterable[str], min_count: int = 9) -> list[str]:
    """Return the answers given at least `min_count` times after normalisation, in first-seen order.

    Raises:
        DataError: no answer is that frequent.
    """
    counts = Counter(map(normalise_answer, majority_answers))
    answers = [answer for answer, count in counts.items() if count >= min_count]
    if not answers:
        raise DataError(f"none of {len(counts)} answers occurs {min_count} times or more; lower --min-count")
    return answers


def score_answers(
    answers: Sequence[str], labels: Mapping[str, int], variant: Variant
) -> list[tuple[str, int, float]]:
    """Return (answer, label, soft score) of the annotators' answers that are in the vocabulary."""
    if variant == "normalised":
        answers = [normalise_answer(answer) for answer in answers]
    counts = Counter(answers)
    return [(answer, labels[answer], soft_score(n)) for answer, n in counts.items() if answer in labels]


def _read_splits(folder: Path, broken: BrokenRecords) -> dict[str, VqaSplit]:
    splits = {}
    for split, images in _IMAGES_OF.items():
        year = images[-4:]
        questions = _one_file(folder, f"*{split}{year}_questions.json")
        if questions is None:
            continue
        answers = _one_file(folder, f"*{split}{year}_annotations.json") if split in LABELLED else None
        if split in LABELLED and answers is None:
            raise DataError(f"{questions} has no file *{split}{year}_annotations.json beside it")
        splits[split] = _read_split(questions, answers, broken)
    if "train" not in splits:
        raise DataError(
            f"no *train2014_questions.json in {folder}; unpack the VQA v2 questions and annotations there"
        )
    return splits


def _one_file(folder: Path, pattern: str) -> Path | None:
    found = listed(folder, pattern)
    if len(found) > 1:
        raise DataError(f"{folder} has several files {pattern}: {', '.join(path.name for path in found)}")
    return found[0] if found else None


def _read_split(questions: Path, annotations: Path | None, broken: BrokenRecords) -> VqaSplit:
    by_id: dict[int, tuple[str, tuple[str, ...]]] = {}
    if annotations is not None:
        for where, entry in _entries(annotations, "annotations"):
            with broken.skipping():
                check_said_split(entry.get("split"), read_split(annotations.stem), where)
                number = _number(entry, "question_id", where)
                if number in by_id:
                    raise RecordError(f"{where}: question {number} is answered there already")
                by_id[number] = _read_answers(entry, where)
    images: VqaSplit = {}
    seen: set[int] = set()
    for where, entry in _entries(questions, "questions"):
        with broken.skipping():
            check_said_split(entry.get("split"), read_split(questions.stem), where)
            number, image_id = (_number(entry, key, where) for key in ("question_id", "image_id"))
            text = check_text(entry.get("question"), f"{where}, 'question'")
            if number in seen:
                raise RecordError(f"{where}: question {number} stands there already")
            if annotations is not None and number not in by_id:
                raise RecordError(f"{where} and its annotations do not fit: {number} is missing")
            seen.add(number)
            question = Question(number, image_id, text, *by_id.get(number, ("", ())))
            images.setdefault(image_id, []).append(question)
    return images


def _entries(path: Path, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the objects of a list in a file of VQA v2, each with its place; others as empty ones."""
    content = read_json(path, DataError)
    if isinstance(content, Mapping):
        said = content.get("data_subtype")
        check_said_split(said, read_split(path.stem), f"{path}, 'data_subtype'")
    entries = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(entries, list):
        raise DataError(f"{path} is not of VQA v2: expected a JSON object with a list {key!r}")
    for number, entry in enumerate(entries):
        yield f"{path}: {key}[{number}]", entry if isinstance(entry, Mapping) else {}


def _number(entry: Mapping[str, Any], key: str, where: str) -> int:
    value = check_id(entry.get(key), f"{where}, {key!r}")
    if isinstance(value, str) or value < 0:
        raise RecordError(f"{where}, {key!r}: expected a number, as in VQA v2; found {shown(value)}")
    return value


def _read_answers(entry: Mapping[str, Any], where: str) -> tuple[str, tuple[str, ...]]:
    """Return the majority answer and all answers, as they are: some annotators gave an empty one."""
    given = entry.get("answers")
    if not isinstance(given, list) or not given or not all(isinstance(part, Mapping) for part in given):
        raise RecordError(f"{where}: expected a list of `answers`, found {shown(given)}")
    answers = [entry.get("multiple_choice_answer"), *(part.get("answer") for part in given)]
    for answer in answers:
        if not isinstance(answer, str) or not _is_answer(answer):
            check_text(answer, f"{where}, answer")
    # Interned, because few of the ten answers to each of 650,000 questions differ.
    majority, *texts = map(sys.intern, answers)
    return majority, tuple(texts)


@lru_cache(maxsize=1 << 16)
def _is_answer(text: str) -> bool:
    with contextlib.suppress(RecordError):
        return not text.strip() or bool(check_text(text))
    return False


def _parts(split: str, kept: Labelled, rest_images: int) -> dict[str, Labelled]:
    """Return the tables of a split: itself, and what val is divided into."""
    first = len(kept) - rest_images
    if split == "val" and first < 1:
        log.warning("val has %d images: no trainable_val and rest_val (--rest-images)", len(kept))
    if split != "val" or first < 1:
        return {split: kept}
    rest = {"rest_val": kept[first:]} if rest_images else {}
    return {split: kept, "trainable_val": kept[:first], **rest}


def _label(by_image: VqaSplit, split: str, labels: Mapping[str, int], variant: Variant) -> Labelled:
    """Return images with their scored questions; in train and val only questions with a known answer."""
    kept = []
    for image_id, questions in by_image.items():
        scored = [(question, score_answers(question.answers, labels, variant)) for question in questions]
        if split in LABELLED:
            scored = [(question, answers) for question, answers in scored if answers]
        if scored:
            kept.append((image_id, scored))
    return kept


def _candidates(split: str, image_id: int) -> tuple[str, ...]:
    folder = _IMAGES_OF[split]
    name = f"COCO_{folder}_{image_id:012d}.jpg"
    return f"{folder}/{name}", name, f"{folder}/{image_id:012d}.jpg", *coco_2017(name)


def _rows(split: str, name: str, chosen: Iterable) -> Iterator[Row]:
    for image_id, scored in chosen:
        columns = {
            "questions": [question.text for question, _ in scored],
            "answers": [[answer for answer, _, _ in answers] for _, answers in scored],
            "answer_labels": [[label for _, label, _ in answers] for _, answers in scored],
            "answer_scores": [[score for _, _, score in answers] for _, answers in scored],
            "image_id": image_id,
            "question_id": [question.question_id for question, _ in scored],
            "split": name,
        }
        yield _candidates(split, image_id), columns
