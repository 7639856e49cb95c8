"""Captions from the pipeline and from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from micro import Tool, saved
from micro_unimo2 import MODEL
from PIL import Image

from unimo.errors import CapabilityError
from unimo.inference.pipeline import Pipeline
from unimo.tasks.base import Question

TASK = {"java": False, "beam": {"size": 2, "min_length": 2, "max_length": 9}}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("caption", tmp_path_factory.mktemp("caption"), model=MODEL, task=TASK)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)) for _ in range(3)]


def test_n_best_captions_are_different_and_in_order(directory: Path, pictures: list[Image.Image]):
    found = Pipeline(directory).ask(pictures[0], count=4)
    scores = [one.score for one in found]
    assert len({one.text for one in found}) == 4 and scores == sorted(scores, reverse=True)
    assert all(score < 0 for score in scores) and all(0 < one.probability < 1 for one in found)


def test_batches_do_not_change_captions(directory: Path, pictures: list[Image.Image]):
    pipeline = Pipeline(directory, batch_size=2)
    together = pipeline.ask_many(list(map(Question, pictures)), count=2)
    for picture, ranked in zip(pictures, together, strict=True):
        alone = pipeline.ask(picture, count=2)
        assert [one.text for one in alone] == [one.text for one in ranked]
        np.testing.assert_allclose([one.score for one in alone], [one.score for one in ranked], rtol=1e-4)


def test_command_line(tool: Tool, directory: Path, pictures: list[Image.Image], tmp_path: Path):
    file = tmp_path / "picture.png"
    pictures[0].save(file)
    about = ("predict", "--model", directory, "--image", file, "--caption")
    code, out, err = tool(*about, "--n-best", 2, "--json", "--save", tmp_path / "out.png")
    assert code == 0, err
    expected = Pipeline(directory).ask(file, count=2)
    rows = json.loads(out)["answers"]["caption"]
    assert [row["answer"] for row in rows] == [one.text for one in expected]
    assert [row["probability"] for row in rows] == pytest.approx(
        [one.probability for one in expected], abs=1e-5
    )
    assert (tmp_path / "out.png").read_bytes()[1:4] == b"PNG"
    code, out, _ = tool(*about)
    assert code == 0 and expected[0].text in out and len(out.splitlines()) == 2
    code, _, err = tool(*about, "--text", "x")
    assert code == 2 and "give one of" in err
    code, _, err = tool(*about, "--n-best", 0)
    assert code == 2 and "--n-best 0" in err


def test_other_tasks_do_not_caption(tmp_path: Path, pictures: list[Image.Image]):
    with pytest.raises(CapabilityError, match="finetune.py --task caption"):
        Pipeline(saved("entailment", tmp_path)).check_asked_with("caption")


def test_missing_references_end_an_evaluation(tool: Tool, directory: Path, tmp_path: Path):
    file = tmp_path / "captions.json"
    file.write_text(json.dumps({"annotations": [{"image_id": "val-0", "caption": "a red circle"}]}))
    code, _, err = tool("evaluate", "--model", directory, f"task.references={file}")
    assert code == 2 and "task.references has no captions for 2 of 3 images, e.g. val-1, val-2" in err
    assert "Traceback" not in err
