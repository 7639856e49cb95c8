"""Visual Genome's questions and answers to tables of the layout of VQA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unimo.data.checks import check_text
from unimo.data.prepare.broken import BrokenRecords
from unimo.data.prepare.visual_genome import (
    candidates,
    divide,
    objects,
    whole_number,
    without_held_out,
)
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
from unimo.data.readers.answers import check_classes
from unimo.errors import DataError, RecordError, shown
from unimo.files import read_json
from unimo.metrics.vqa import normalise_answer

QUESTIONS = "question_answers.json"


class Pair(NamedTuple):
    """A question with its answer, normalised as those of VQA v2."""

    question_id: int
    text: str
    answer: str


def prepare_vg_qa(
    annotations: str | Path,
    images: str | Path,
    out: str | Path,
    vocabulary: str | Path = "",
    min_count: int = 9,
    held_out: Sequence[str | Path] = (),
    val_images: int = 0,
    max_missing_rate: float = 0.01,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Write `vgqa.arrow`, a row a picture with its questions, `answers.json` and `summary.json`.

    Questions without an answer that is a class are left out, and so are those that a picture has with two
    such answers; one that it has several times with the same answer is kept once (BridgeTower's code).

    Args:
        annotations: folder of `question_answers.json`, and with `held_out` of `image_data.json`.
        images: folder of `VG_100K` and `VG_100K_2`, or one in which these lie in `images`.
        vocabulary: JSON list of the classes, such as the `answers.json` of VQA v2 (BridgeTower); without one
            they are the frequent answers.
        min_count: number of questions that such an answer needs.
        held_out, val_images: as for `prepare_vg`; the second makes `vgqa_val.arrow`, and `vgqa_train.arrow`.
        max_missing_rate: share of images that may be missing or broken, and of questions that may be broken.

    Returns:
        The content of `summary.json`.

    Raises:
        DataError: missing files, too many broken questions or missing images, nothing left, or a full disk.
    """
    source = check_folder(annotations, QUESTIONS)
    broken = BrokenRecords(source, max_missing_rate)
    asked = _read_questions(source / QUESTIONS, broken)
    broken.check()
    kept = without_held_out(asked, source, held_out)
    summary: dict[str, Any] = {"source": str(source), "questions_read": sum(map(len, asked.values()))}
    if held_out:
        summary["images_held_out"] = len(asked) - len(kept)
    classes = (
        check_classes(read_json(vocabulary, DataError), vocabulary, DataError)
        if vocabulary
        else _frequent((pair for pairs in kept.values() for pair in pairs), min_count)
    )
    labels = {answer: label for label, answer in enumerate(classes)}
    agreed = {image: _agreed(pairs, labels) for image, pairs in kept.items()}
    folder = ImageFolder(images, "VG_100K and VG_100K_2", max_missing_rate)
    summary |= {"answers": len(labels), "splits": {}}
    usable = {image: pairs for image, pairs in agreed.items() if pairs}
    for split, part in divide(usable, folder, val_images).items():
        writer = ArrowWriter(out, f"vgqa_{split}" if val_images else "vgqa", SCHEMAS["vqa"])
        rows = _rows(progress(part.items(), total=len(part), what=writer.stem), split, labels)
        left_out = "questions without an answer that is a class (--min-count, --vocabulary)"
        questions = folder.write(writer, split, rows, "questions", left_out)
        summary["splits"][split] = {"images": writer.rows, "questions": questions, "files": writer.file_names}
    write_json(Path(out) / "answers.json", list(labels))
    return folder.finish(out, summary, broken)


def _read_questions(path: Path, broken: BrokenRecords) -> dict[int, list[Pair]]:
    """Read the questions of each picture."""
    by_image: dict[int, list[Pair]] = {}
    for where, item in objects(read_json(path, DataError), path):
        with broken.skipping():
            image = whole_number(item.get("id", item.get("image_id")), f"{where}, 'id'")
            questions = item.get("qas")
            if not isinstance(questions, list):
                raise RecordError(f"{where}: expected a list 'qas' of questions, found {shown(questions)}")
            for place, pair in enumerate(questions):
                with broken.skipping():
                    inner = f"{where}, qas[{place}]"
                    if not isinstance(pair, Mapping):
                        raise RecordError(f"{inner}: expected a JSON object, found {shown(pair)}")
                    text = check_text(pair.get("question"), f"{inner}, 'question'")
                    answer = normalise_answer(check_text(pair.get("answer"), f"{inner}, 'answer'"))
                    number = whole_number(pair.get("qa_id"), f"{inner}, 'qa_id'")
                    by_image.setdefault(image, []).append(Pair(number, text, answer))
    return by_image


def _frequent(pairs: Iterable[Pair], min_count: int) -> list[str]:
    """Return the answers that occur `min_count` times or more, in first-seen order.

    Raises:
        DataError: there are none.
    """
    counts = Counter(pair.answer for pair in pairs if pair.answer)
    found = [answer for answer, count in counts.items() if count >= min_count]
    if not found:
        raise DataError(f"none of {len(counts)} answers occurs {min_count} times or more; lower --min-count")
    return found


def _agreed(pairs: Iterable[Pair], labels: Mapping[str, int]) -> list[Pair]:
    """Return the questions of a picture whose answers are one class, each once."""
    answers: dict[str, dict[str, Pair]] = {}
    for pair in pairs:
        if pair.answer in labels:
            answers.setdefault(pair.text, {}).setdefault(pair.answer, pair)
    return [next(iter(found.values())) for found in answers.values() if len(found) == 1]


def _rows(items: Iterable[tuple[int, list[Pair]]], split: str, labels: Mapping[str, int]) -> Iterator[Row]:
    for image, pairs in items:
        columns = {
            "questions": [pair.text for pair in pairs],
            "answers": [[pair.answer] for pair in pairs],
            "answer_labels": [[labels[pair.answer]] for pair in pairs],
            "answer_scores": [[1.0] for _ in pairs],
            "image_id": image,
            "question_id": [pair.question_id for pair in pairs],
            "split": split,
        }
        yield candidates(image), columns
