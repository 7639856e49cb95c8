"""`scenes` without images, for classification in the forms of four GLUE tasks and for generation.

sst2   a sentence that an object is there is positive, one that it is missing is negative
mnli   premise: all objects of a scene; hypothesis: as in visual entailment
cola   a caption is acceptable, the same words in another order are not
stsb   two descriptions of an object; the score is 5 times the share of attributes in which they agree

To generate, the source describes all objects of a scene. As columns, an answer follows, and the target is a
question with that answer, as in question generation on SQuAD; all such questions are references. As a dialog,
questions and answers follow, and the target is the answer to the last question, as in CoQA.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from unimo.data.readers.base import TextDataset
from unimo.data.readers.generation import GenerationRecord
from unimo.data.readers.glue import TASKS, GlueName
from unimo.data.record import Record
from unimo.data.scenes.dataset import OneASceneDataset
from unimo.data.scenes.language import ABOUT_ONE, captions, describe, hypotheses, pick, questions
from unimo.data.scenes.scene import COLORS, PLACES, RADII, SHAPES, Scene
from unimo.settings import ScenesConfig

Sample = tuple[str, str | None, float]
"""First sentence, second sentence, class or score."""
TURNS = 3
"""Largest number of questions in a dialog."""


class SceneTexts(OneASceneDataset, TextDataset):
    """Samples of a GLUE-like task."""

    def __init__(self, task: GlueName, split: str, config: ScenesConfig | None = None) -> None:
        super().__init__(split, config)
        self.task = task

    def __getitem__(self, index: int) -> Record:
        sample_id, scene, rng = self.draw(index, self.task)
        text, pair, value = _MAKERS[self.task](scene, rng)
        record = Record(sample_id, self.name, text=text, text_pair=pair)
        if names := TASKS[self.task].class_names:
            return dataclasses.replace(record, label=int(value), label_name=names[int(value)])
        return dataclasses.replace(record, score=value)


def _mood(scene: Scene, rng: np.random.Generator) -> Sample:
    item, positive = pick(scene.objects, rng), int(rng.integers(2))
    return f"there is {'a' if positive else 'no'} {item.name} at the {item.place} .", None, positive


def _inference(scene: Scene, rng: np.random.Generator) -> Sample:
    hypothesis, label = pick(hypotheses(scene, 3, rng), rng)
    return describe(scene.objects), hypothesis, label


def _order(scene: Scene, rng: np.random.Generator) -> Sample:
    words, acceptable = captions(scene, 1, rng)[0].split(), int(rng.integers(2))
    shuffled = words
    while not acceptable and shuffled == words:
        shuffled = [words[place] for place in rng.permutation(len(words))]
    return " ".join(shuffled), None, acceptable


def _similarity(scene: Scene, rng: np.random.Generator) -> Sample:
    item = pick(scene.objects, rng)
    choices = {"size": tuple(RADII), "color": tuple(COLORS), "shape": SHAPES, "place": PLACES}
    changed = rng.permutation(list(choices))[: rng.integers(len(choices) + 1)]
    others = {name: [value for value in choices[name] if value != getattr(item, name)] for name in changed}
    other = dataclasses.replace(item, **{name: pick(values, rng) for name, values in others.items()})
    return describe([item]), describe([other]), 5.0 * (1 - len(changed) / len(choices))


_MAKERS = {"sst2": _mood, "mnli": _inference, "cola": _order, "stsb": _similarity}


class SceneWriting(OneASceneDataset, TextDataset):
    """Questions to write, or with `dialog` answers."""

    def __init__(self, split: str, config: ScenesConfig | None = None, dialog: bool = False) -> None:
        super().__init__(split, config)
        self._dialog = dialog

    def __getitem__(self, index: int) -> GenerationRecord:
        sample_id, scene, rng = self.draw(index, "seq2seq")
        description = describe(scene.objects)
        if not self._dialog:
            asked = questions_by_answer(scene)
            answer = pick(list(asked), rng)
            return GenerationRecord(
                sample_id, self.name, sources=(description, answer), references=asked[answer]
            )
        turns = questions(scene, int(rng.integers(1, TURNS + 1)), rng)
        *dialog, target = [text for turn in turns for text in (turn.text, turn.answer)]
        return GenerationRecord(
            sample_id,
            self.name,
            sources=tuple(dialog),
            knowledge=description,
            references=(target,),
            question_id=sample_id,
            question_type=turns[-1].kind,
            turn_id=len(turns),
        )


def questions_by_answer(scene: Scene) -> dict[str, tuple[str, ...]]:
    """Group questions about a scene by their answer; none asks about the relation of two objects."""
    found: dict[str, list[str]] = {str(len(scene.objects)): ["how many objects are there ?"]}
    for key, ask in ABOUT_ONE.values():
        keys = [key(item) for item in scene.objects]
        for item in scene.objects:
            if keys.count(key(item)) == 1:
                question, answer = ask(item)
                found.setdefault(answer, []).append(question)
    return {answer: tuple(texts) for answer, texts in found.items()}
