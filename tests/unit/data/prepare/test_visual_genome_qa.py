"""Questions of Visual Genome: BridgeTower's rules, classes of its own or of VQA, and what is broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from picture_files import write_json, write_pictures

from unimo.data.prepare.visual_genome_qa import prepare_vg_qa
from unimo.data.readers.open import open_answers, open_corpus
from unimo.errors import DataError
from unimo.settings import CorpusConfig, DataConfig


def sources(folder: Path, *more: Any) -> tuple[Path, Path]:
    """Folders of annotations and of pictures; `more` are further questions about the first picture."""
    asked = {
        1: [
            ("How many?", "Two."),
            ("How many?", "2"),
            ("What is it?", "A dog."),
            ("What is it?", "The cat."),
            ("Where?", "On a hill."),
            ("Who?", "The."),
        ],
        10: [("What is it?", "a dog"), ("What else?", "dogs")],
        5: [("Why?", "because")],
    }
    numbers = iter(range(100, 200))
    items = [
        {
            "id": image,
            "qas": [
                {"qa_id": next(numbers), "image_id": image, "question": text, "answer": answer}
                for text, answer in pairs
            ],
        }
        for image, pairs in asked.items()
    ]
    items[0]["qas"].extend(more)
    write_json(folder / "vg/question_answers.json", items)
    pictures = [
        {"image_id": 1, "coco_id": 9, "flickr_id": None},
        {"image_id": 10, "coco_id": None, "flickr_id": None},
    ]
    write_json(folder / "vg/image_data.json", pictures)
    write_pictures(folder / "images", ["VG_100K_2/1.jpg", "VG_100K/10.jpg", "VG_100K/5.jpg"])
    return folder / "vg", folder / "images"


def read(folder: Path, split: str = "train") -> list[tuple[str, str | None, dict[str, float]]]:
    data = open_corpus(CorpusConfig(str(folder)), split, "vqa", DataConfig())
    return [(record.image_id, record.text, dict(record.answer_scores)) for record in data]


def test_questions_with_one_answer_of_a_vocabulary(tmp_path: Path) -> None:
    vocabulary = write_json(tmp_path / "answers.json", ["dog", "2", "cat"])
    summary = prepare_vg_qa(*sources(tmp_path), tmp_path / "out", vocabulary)
    kept = [("1", "How many?", {"2": 1.0}), ("10", "What is it?", {"dog": 1.0})]
    assert read(tmp_path / "out") == kept  # of "what is it?" one picture has two answers
    assert open_answers(CorpusConfig(str(tmp_path / "out")), DataConfig()) == ["dog", "2", "cat"]
    assert summary["splits"] == {"train": {"images": 2, "questions": 2, "files": ["vgqa.arrow"]}}
    assert (summary["questions_read"], summary["answers"], summary["broken"]) == (9, 3, 0)


def test_frequent_answers_held_out_pictures_and_val(tmp_path: Path) -> None:
    given = sources(tmp_path)
    prepare_vg_qa(*given, tmp_path / "two", min_count=2)
    assert open_answers(CorpusConfig(str(tmp_path / "two")), DataConfig()) == ["2", "dog"]
    prepare_vg_qa(*given, tmp_path / "all", min_count=1, val_images=1)
    assert read(tmp_path / "all", "val") == [("5", "Why?", {"because": 1.0})]
    karpathy = write_json(tmp_path / "coco.json", {"images": [{"split": "test", "cocoid": 9}]})
    summary = prepare_vg_qa(*given, tmp_path / "out", min_count=1, held_out=[karpathy])
    assert summary["images_held_out"] == 1 and {image for image, _, _ in read(tmp_path / "out")} == {
        "10",
        "5",
    }
    with pytest.raises(DataError, match="occurs 99 times or more; lower --min-count"):
        prepare_vg_qa(*given, tmp_path / "out", min_count=99)


@pytest.mark.parametrize(
    "broken",
    [
        [],
        {"qa_id": 7, "question": "Who?"},
        {"qa_id": 7, "question": "Who?", "answer": " "},
        {"qa_id": 7, "question": 5, "answer": "dog"},
        {"qa_id": "seven", "question": "Who?", "answer": "dog"},
    ],
)
def test_broken_questions_are_counted(tmp_path: Path, broken: Any) -> None:
    given = sources(tmp_path, broken)
    assert prepare_vg_qa(*given, tmp_path / "out", min_count=1, max_missing_rate=0.1)["broken"] == 1
    with pytest.raises(DataError, match=r"question_answers.json: \[0\], qas\[6\]"):
        prepare_vg_qa(*given, tmp_path / "out", min_count=1)
