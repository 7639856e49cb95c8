"""`scenes` without images, for classification in the forms of the tasks of GLUE and for generation.

sst2   a sentence that an object is there is positive, one that it is missing is negative
mnli   premise: all objects of a scene; hypothesis: as in visual entailment
cola   a caption is acceptable, the same words in another order are not
stsb   two descriptions of an object; the score is 5 times the share of attributes in which they agree
mrpc   two descriptions of all objects, in other orders, are equivalent; if one object differs, they are not
qqp    the same as questions
qnli   a question about an object, and a sentence about that object (entailment) or one of another name
ax     as mnli
rte    as mnli, without neutral hypotheses; wnli is rte with its classes the other way round

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
from unimo.data.scenes.language import ABOUT_ONE, ENTAILMENT, captions, describe, hypotheses, pick, questions
from unimo.data.scenes.scene import COLORS, PLACES, RADII, SHAPES, Scene, SceneObject
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
    changed = rng.permutation(list(_CHOICES))[: rng.integers(len(_CHOICES) + 1)]
    other = item
    for name in changed:
        other = _changed(other, name, rng)
    return describe([item]), describe([other]), 5.0 * (1 - len(changed) / len(_CHOICES))


def _paraphrase(scene: Scene, rng: np.random.Generator) -> Sample:
    same, objects = int(rng.integers(2)), [scene.objects[i] for i in rng.permutation(len(scene.objects))]
    if not same:
        which, name = int(rng.integers(len(objects))), ("color", "shape", "size")[rng.integers(3)]
        objects[which] = _changed(objects[which], name, rng)
    return describe(scene.objects), describe(objects), same


def _duplicate(scene: Scene, rng: np.random.Generator) -> Sample:
    first, second, same = _paraphrase(scene, rng)
    return f"is there {first[:-1]}?", f"is there {second[:-1]}?", same


def _answered(scene: Scene, rng: np.random.Generator) -> Sample:
    item, is_other = pick(scene.objects, rng), int(rng.integers(2))
    question, _ = ABOUT_ONE[("size", "place")[rng.integers(2)]][1](item)
    told = _changed(item, ("color", "shape")[rng.integers(2)], rng) if is_other else item
    return question, describe([told]), is_other


def _entailed(scene: Scene, rng: np.random.Generator) -> Sample:
    hypothesis, label = pick(hypotheses(scene, 2, rng), rng)
    return describe(scene.objects), hypothesis, int(label != ENTAILMENT)


def _wnli(scene: Scene, rng: np.random.Generator) -> Sample:
    premise, hypothesis, label = _entailed(scene, rng)
    return premise, hypothesis, 1 - label


_CHOICES = {"size": tuple(RADII), "color": tuple(COLORS), "shape": SHAPES, "place": PLACES}


def _changed(item: SceneObject, name: str, rng: np.random.Generator) -> SceneObject:
    """Return an object that differs in one attribute."""
    others = [value for value in _CHOICES[name] if value != getattr(item, name)]
    return dataclasses.replace(item, **{name: pick(others, rng)})


_MAKERS = {
    "sst2": _mood,
    "mnli": _inference,
    "cola": _order,
    "stsb": _similarity,
    "mrpc": _paraphrase,
    "qqp": _duplicate,
    "qnli": _answered,
    "rte": _entailed,
    "wnli": _wnli,
    "ax": _inference,
}


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
