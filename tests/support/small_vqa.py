"""A hand-made miniature of the official files of VQA v2."""

from __future__ import annotations

from pathlib import Path

from picture_files import write_json, write_pictures


def write_official(folder: Path, images: Path) -> None:
    """Write six train and four val images with two questions each, and one test image."""
    for split, numbers in (
        ("train2014", range(1, 7)),
        ("val2014", range(11, 15)),
        ("test2015", [21]),
        ("test-dev2015", [21]),
    ):
        questions, answers = [], []
        for image in numbers:
            for turn, (majority, given) in enumerate(
                [("Yes", ["Yes"] * 6 + ["yes"] * 4), ("two", ["two"] * 3 + ["2"] * 5 + ["rare"] * 2)]
            ):
                number = image * 1000 + turn
                questions.append(
                    {"question_id": number, "image_id": image, "question": f"is circle {number} red?"}
                )
                answers.append(
                    {
                        "question_id": number,
                        "image_id": image,
                        "multiple_choice_answer": majority,
                        "answers": [{"answer": answer} for answer in given],
                    }
                )
        write_json(folder / f"v2_OpenEnded_mscoco_{split}_questions.json", {"questions": questions})
        if "test" not in split:
            write_json(folder / f"v2_mscoco_{split}_annotations.json", {"annotations": answers})
        place = split.replace("-dev", "")
        write_pictures(images / place, [f"COCO_{place}_{image:012d}.jpg" for image in numbers])
