"""The pipeline: answers ranked with their probabilities, and the right model for each question."""

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from micro import saved
from PIL import Image

from unimo.errors import CapabilityError, ConfigError, RecordError, UnimoError
from unimo.inference.pipeline import Pipeline, draw_answers
from unimo.inference.zero_shot import ZeroShotClassification, open_matcher
from unimo.tasks.base import Answer, Question, asked_pairs

PICTURE = Image.new("RGB", (20, 10), "red")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)) for _ in range(3)]


def test_answers_are_the_sigmoids_of_the_best_logits(tmp_path: Path, pictures: list[Image.Image]) -> None:
    pipeline = Pipeline(saved("vqa", tmp_path))
    ranked = pipeline.ask(pictures[0], "what color is the circle ?", count=4)
    batch = asked_pairs(pipeline.processor, [Question(pictures[0], "what color is the circle ?")])
    with paddle.no_grad():
        logits = pipeline.task.logits(batch)[0].numpy()
    order = np.argsort(-logits)[:4]
    assert [one.text for one in ranked] == [pipeline.task.answers[i] for i in order]
    np.testing.assert_allclose(
        [one.probability for one in ranked], 1 / (1 + np.exp(-logits[order])), rtol=1e-4
    )


def test_batches_do_not_change_answers(tmp_path: Path, pictures: list[Image.Image]) -> None:
    questions = ["what is it ?", "how many objects are there ?", "what color is the small circle ?"]
    pipeline = Pipeline(saved("vqa", tmp_path), batch_size=2)
    together = pipeline.ask_many(list(map(Question, pictures, questions)), count=2)
    for picture, question, ranked in zip(pictures, questions, together, strict=True):
        alone = pipeline.ask(picture, question, count=2)
        assert [one.text for one in alone] == [one.text for one in ranked]
        chances = [[one.probability for one in found] for found in (alone, ranked)]
        np.testing.assert_allclose(*chances, atol=1e-5)


def test_more_answers_than_there_are(tmp_path: Path, pictures: list[Image.Image]) -> None:
    pipeline = Pipeline(saved("vqa", tmp_path))
    assert len(pipeline.ask(pictures[0], "what is it ?", count=10_000)) == len(pipeline.task.answers)


def test_entailment_and_match(tmp_path: Path, pictures: list[Image.Image]) -> None:
    verdict = Pipeline(saved("entailment", tmp_path / "e")).ask(pictures[0], "there is a red circle .")
    assert sum(one.probability for one in verdict) == pytest.approx(1.0, abs=1e-5)
    assert {one.text for one in verdict} == {"contradiction", "neutral", "entailment"}
    assert verdict == sorted(verdict, key=lambda one: -one.probability)
    (match,) = Pipeline(saved("retrieval", tmp_path / "r")).ask(pictures[0], "a red circle")
    assert match.text == "match" and 0 < match.probability < 1


def test_wrong_task_and_wrong_input(tmp_path: Path, pictures: list[Image.Image]) -> None:
    pipeline = Pipeline(saved("entailment", tmp_path))
    with pytest.raises(CapabilityError, match="finetune.py --task vqa"):
        pipeline.check_asked_with("question")
    with pytest.raises(RecordError, match="empty"):
        pipeline.ask(pictures[0], " ")
    with pytest.raises(ConfigError, match="looks at a picture"):
        pipeline.ask(text="there is a red circle .")
    with pytest.raises(ConfigError, match="nothing was asked"):
        pipeline.ask(pictures[0])
    with pytest.raises(CapabilityError, match="answers no questions"):
        Pipeline(saved("pretrain", tmp_path / "p")).ask(pictures[0], "what is it ?")


def test_picture_shows_the_image_and_bars_as_long_as_the_probabilities(pictures: list[Image.Image]) -> None:
    drawn = np.asarray(
        draw_answers(pictures[0].resize((100, 100)), {"what ?": [Answer("a", 1.0), Answer("b", 0.25)]})
    )
    lengths = [(row == np.array([198, 219, 239])).all(axis=1).sum() for row in (drawn[57], drawn[79])]
    assert lengths[0] == pytest.approx(371, abs=25) and lengths[1] == pytest.approx(371 / 4, abs=25)
    assert drawn.shape[2] == 3 and drawn[0, 0].tolist() == [255, 255, 255]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(saved("vqa", tmp_path_factory.mktemp("vqa")))


@pytest.mark.parametrize(
    ("questions", "count", "message"),
    [
        ([Question(PICTURE, "what is it ?")], 0, "count 0: expected 1 or more; try 5"),
        ([Question(PICTURE, "what is it ?")], -1, "count -1: expected 1 or more"),
        ([PICTURE], 1, "expected questions, each with its own image and text"),
        ([[PICTURE, PICTURE], ["what is it ?"]], 1, "expected questions, each with its own image and text"),
        (Question(PICTURE, "what is it ?"), 1, "expected a list of questions"),
        ([Question(Image.new("RGB", (0, 5)), "what is it ?")], 1, "0 x 5 pixels; expected at least 1 x 1"),
        ([Question(Image.new("L", (5, 0)), "what is it ?")], 1, "5 x 0 pixels"),
        ([Question("a\0.png", "what is it ?")], 1, "cannot read image"),
        ([Question([PICTURE, PICTURE], "what is it ?")], 1, "looks at a picture, not 2"),
        ([Question(PICTURE, ["what", "is", "it"])], 1, "expected a text"),
        ([Question(PICTURE, 5)], 1, "expected a text"),
    ],
)
def test_questions_that_are_none(pipeline: Pipeline, questions: Any, count: int, message: str) -> None:
    with pytest.raises(UnimoError, match=message):
        pipeline.ask_many(questions, count=count)
    assert pipeline.ask_many([]) == []


def test_a_processor_takes_any_numbers_but_none(pipeline: Pipeline) -> None:
    batch = pipeline.processor([PICTURE] * 2, ["a", "b", "c"])
    assert len(batch["pixels"]) == 2 and len(batch["input_ids"]) == 3
    for images, texts in (([], []), (None, [])):
        with pytest.raises(UnimoError, match="expected one"):
            pipeline.processor(images, texts)


def test_a_picture_without_pixels_is_not_drawn() -> None:
    with pytest.raises(UnimoError, match="0 x 5 pixels"):
        draw_answers(Image.new("RGB", (0, 5)), {"what?": [("red", 0.5)]})


def test_zero_shot_takes_names_and_one_image(tmp_path: Path) -> None:
    matcher = open_matcher(saved("pretrain", tmp_path))
    for labels in ([], "cat", [1, 2], [None]):
        with pytest.raises(UnimoError, match="expected a list of names"):
            ZeroShotClassification(*matcher, labels)
    with pytest.raises(UnimoError, match="expected one image, found 2"):
        ZeroShotClassification(*matcher, ["red", "blue"]).rank([PICTURE, PICTURE])
