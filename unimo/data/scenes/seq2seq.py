"""`scenes` for text generation, without images: write a question for an answer, or answer a question.

The source describes all objects of a scene. As columns, an answer follows, and the target is a question with
that answer, as in question generation on SQuAD; all such questions are references. As a dialog, questions and
answers follow, and the target is the answer to the last question, as in CoQA.
"""

from __future__ import annotations

from unimo.data.readers.base import TextDataset
from unimo.data.readers.generation import GenerationRecord
from unimo.data.scenes.dataset import OneASceneDataset
from unimo.data.scenes.language import ABOUT_ONE, describe, questions
from unimo.data.scenes.scene import Scene
from unimo.settings import ScenesConfig

TURNS = 3
"""Largest number of questions in a dialog."""


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
            answer = list(asked)[int(rng.integers(len(asked)))]
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
