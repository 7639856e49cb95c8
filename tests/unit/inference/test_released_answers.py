"""Released classifiers of answers: the model directory answers with the words of a given list."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bridgetower_names import classifier
from bridgetower_names import released_shapes as towers_of
from PIL import Image
from vlmo_names import random_file, released_shapes, task_shapes

from unimo.data.tokenizers import load_tokenizer
from unimo.errors import ConfigError
from unimo.inference.pipeline import Pipeline
from unimo.inference.release import convert_release
from unimo.weights.files import write_safetensors

ANSWERS = ["yes", "no", "2", "red circle", "left"]


def released(kind: str, task: str = "vqa") -> dict[str, np.ndarray]:
    words = load_tokenizer("scenes").vocab_size
    if kind == "vlmo":
        shapes = released_shapes(32, 3, 2, 2, relative=True, words=words)
        return random_file(task_shapes(task, shapes, 2, len(ANSWERS)))
    shapes = towers_of(kind, 64, 2, 1, 2, patch=4, words=words, has_heads=False)
    name = {"vqa": "vqa_classifier", "entailment": "snli_classifier"}[task]
    shapes |= classifier(name, 128, 96, len(ANSWERS) if task == "vqa" else 3)
    return {name: array for name, array in random_file(shapes).items() if name in shapes}


@pytest.mark.parametrize("kind", ["meter", "bridgetower", "vlmo"])
@pytest.mark.parametrize("form", [list, dict])
def test_a_model_answers_with_the_words_of_its_list(kind: str, form: type, tmp_path: Path) -> None:
    tensors = released(kind)
    tensors["vqa_classifier.3.bias"] = np.array([0, 0, 0, 100, 0], np.float32)
    write_safetensors(tmp_path / "in.safetensors", tensors)
    given = ANSWERS if form is list else {word: place for place, word in reversed([*enumerate(ANSWERS)])}
    (tmp_path / "answers.json").write_text(json.dumps(given))
    words = (kind, tmp_path / "in.safetensors", "scenes", tmp_path / "out", "vqa")
    convert_release(*words, answers=tmp_path / "answers.json")
    found = Pipeline(tmp_path / "out").ask(Image.new("RGB", (40, 30), "red"), "what is this ?")
    assert found[0].text == "red circle" and {answer.text for answer in found} == set(ANSWERS)


@pytest.mark.parametrize(
    ("task", "answers", "message"),
    [
        ("vqa", None, "has 5 outputs, whose answers .* with --answers"),
        ("vqa", ANSWERS[:4], "has 4 answers, the classifier has 5 outputs"),
        ("vqa", {"yes": 0, "no": 2}, "expected a JSON list"),
        ("entailment", ANSWERS, "--answers is for a classifier of answers, not for 'entailment'"),
    ],
)
def test_lists_that_do_not_belong_to_a_classifier(task: str, answers: object, message: str, tmp_path: Path):
    write_safetensors(tmp_path / "in.safetensors", released("meter", task))
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    path = None if answers is None else tmp_path / "answers.json"
    with pytest.raises(ConfigError, match=message):
        convert_release("meter", tmp_path / "in.safetensors", "scenes", tmp_path / "out", task, answers=path)
    assert not (tmp_path / "out").exists()
