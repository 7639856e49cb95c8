"""`scenes` for text generation, without pictures: which question has this answer, and what is the answer.

The source describes all objects of a scene. As columns an answer follows, and the text to write is a question
that has it, as in question generation on SQuAD; all such questions are references. As a dialog questions and
answers follow, and the text to write is the answer to the last question, as in CoQA.
"""

from __future__ import annotations

from collections.abc import Callable

from unimo.data.loading.sampler import generator
from unimo.data.readers.base import check_index
from unimo.data.readers.generation import GenerationDataset, GenerationRecord
from unimo.data.scenes.dataset import SPLITS, ScenesDataset
from unimo.data.scenes.language import questions
from unimo.data.scenes.scene import Scene, SceneObject
from unimo.errors import ConfigError
from unimo.settings import ScenesConfig

TURNS = 3
"""Questions of a dialog at most."""


class SceneWriting(GenerationDataset):
    """One sample for each scene of a split.

    Args:
        split: `train`, `val` or `test`.
        config: numbers of scenes and the seed.
        dialog: answers to write instead of questions.

    Raises:
        ConfigError: unknown split.
    """

    name = "scenes"

    def __init__(self, split: str, config: ScenesConfig | None = None, dialog: bool = False) -> None:
        if split not in SPLITS:
            raise ConfigError(f"scenes has no split {split!r}; known: {', '.join(SPLITS)}")
        self._dialog = dialog
        self._whole = ScenesDataset("pairs", split, config)

    def __len__(self) -> int:
        return self._whole.num_images

    def __getitem__(self, index: int) -> GenerationRecord:
        check_index(index, len(self))
        split, scene = self._whole.split, self._whole.scene(index)
        rng = generator(self._whole.config.seed, "seq2seq", split, index)
        sample_id, told = f"{split}-{index}", describe(scene)
        if not self._dialog:
            asked = questions_by_answer(scene)
            answer = list(asked)[int(rng.integers(len(asked)))]
            return GenerationRecord(sample_id, self.name, sources=(told, answer), references=asked[answer])
        turns = questions(scene, int(rng.integers(1, TURNS + 1)), rng)
        said = [text for turn in turns for text in (turn.text, turn.answer)]
        return GenerationRecord(
            sample_id,
            self.name,
            sources=tuple(said[:-1]),
            knowledge=told,
            references=(said[-1],),
            question_id=sample_id,
            question_type=turns[-1].kind,
            turn_id=len(turns),
        )


def describe(scene: Scene) -> str:
    """All that is to be seen in a scene."""
    objects = (f"a {item.size} {item.color} {item.shape} at the {item.place}" for item in scene.objects)
    return f"{' , '.join(objects)} ."


def questions_by_answer(scene: Scene) -> dict[str, tuple[str, ...]]:
    """Answer -> the questions about a scene that have it; no question asks about more than one object."""
    found: dict[str, list[str]] = {str(len(scene.objects)): ["how many objects are there ?"]}
    for key, ask in _ASK:
        keys = [key(item) for item in scene.objects]
        for item in scene.objects:
            if keys.count(key(item)) == 1:
                question, answer = ask(item)
                found.setdefault(answer, []).append(question)
    return {answer: tuple(texts) for answer, texts in found.items()}


def _name(item: SceneObject) -> str:
    return f"{item.color} {item.shape}"


# What must be unique in a scene for the question to be clear; the question and its answer.
_ASK: tuple[tuple[Callable[[SceneObject], str], Callable[[SceneObject], tuple[str, str]]], ...] = (
    (lambda item: item.shape, lambda item: (f"what color is the {item.shape} ?", item.color)),
    (lambda item: item.color, lambda item: (f"what shape is the {item.color} object ?", item.shape)),
    (_name, lambda item: (f"what size is the {_name(item)} ?", item.size)),
    (_name, lambda item: (f"where is the {_name(item)} ?", item.place)),
)
