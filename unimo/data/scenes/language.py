"""Texts about a scene: captions, questions with answers, hypotheses with labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from unimo.data.scenes.scene import COLORS, PLACES, SHAPES, Scene, SceneObject

Item = TypeVar("Item")
CONTRADICTION, NEUTRAL, ENTAILMENT = 0, 1, 2

TEMPLATE_WORDS = (
    "a an the is are of and in at to . , ? what where how many which color shape size object objects there "
    "left right above below one two three four 0 1 2 3 4 yes no nothing "
    "was drawn first last new old heavy light"
).split()
NUMBER_WORDS = ("zero", "one", "two", "three", "four")
HIDDEN_FACTS = ("was drawn first", "was drawn last", "is new", "is old", "is heavy", "is light")
"""Statements about an object that no image can show: neutral hypotheses."""


class Question(NamedTuple):
    """A question with its only answer."""

    kind: str
    """Type for which accuracy is reported."""
    text: str
    answer: str


def describe(objects: Sequence[SceneObject]) -> str:
    """Describe objects in one sentence: `a small red circle at the top left , a large ... .`"""
    return " , ".join(f"{item.phrase} at the {item.place}" for item in objects) + " ."


def captions(scene: Scene, count: int, rng: np.random.Generator) -> list[str]:
    """Write `count` captions: of one or two objects with place or relation, or of the number of objects."""
    made = []
    for _ in range(count):
        chosen = [scene.objects[i] for i in rng.permutation(len(scene.objects))[:2]]
        relation = _relation(chosen[0], chosen[1]) if len(chosen) > 1 else None
        form = rng.random()
        if form < 0.1:
            number, several = NUMBER_WORDS[len(scene.objects)], len(scene.objects) > 1
            made.append(f"there {'are' if several else 'is'} {number} object{'s' * several} .")
        elif relation and form < 0.3:
            made.append(f"{chosen[0].phrase} {relation} {chosen[1].phrase} .")
        elif form < 0.6:
            sizes = [f"the {item.name} at the {item.place} is {item.size}" for item in chosen]
            made.append(" , ".join(sizes) + " .")
        else:
            made.append(describe(chosen))
    return made


def questions(scene: Scene, count: int, rng: np.random.Generator) -> list[Question]:
    """Write `count` questions, of different kinds as far as the scene allows."""
    makers = list(QUESTION_KINDS.items())
    made: list[Question] = []
    while len(made) < count:
        for number in rng.permutation(len(makers)):
            kind, make = makers[number]
            question = make(scene, rng)
            if question is not None and len(made) < count:
                made.append(Question(kind, *question))
    return made


def hypotheses(scene: Scene, count: int, rng: np.random.Generator) -> list[tuple[str, int]]:
    """Write `count` statements with labels: contradiction 0, neutral 1, entailment 2, in equal shares."""
    made = []
    for turn in range(count):
        item = pick(scene.objects, rng)
        label = (ENTAILMENT, CONTRADICTION, NEUTRAL)[turn % 3]
        if label == NEUTRAL:
            made.append((f"the {item.name} {pick(HIDDEN_FACTS, rng)} .", label))
        elif label == CONTRADICTION:
            made.append((f"there is a {_absent(scene, item, rng)} .", label))
        else:
            made.append((f"there is a {item.name} at the {item.place} .", label))
    return made


def _absent(scene: Scene, item: SceneObject, rng: np.random.Generator) -> str:
    """Describe an object that differs from `item` in colour, shape or place and is not in the scene."""
    present = {(other.color, other.shape, other.place) for other in scene.objects}
    while True:
        parts = [item.color, item.shape, item.place]
        which = int(rng.integers(3))
        parts[which] = pick((tuple(COLORS), SHAPES, PLACES)[which], rng)
        if tuple(parts) not in present:
            return f"{parts[0]} {parts[1]} at the {parts[2]}"


Key = Callable[[SceneObject], str]
Ask = Callable[[SceneObject], tuple[str, str]]
ABOUT_ONE: dict[str, tuple[Key, Ask]] = {
    "color": (lambda item: item.shape, lambda item: (f"what color is the {item.shape} ?", item.color)),
    "shape": (lambda item: item.color, lambda item: (f"what shape is the {item.color} object ?", item.shape)),
    "size": (lambda item: item.name, lambda item: (f"what size is the {item.name} ?", item.size)),
    "place": (lambda item: item.name, lambda item: (f"where is the {item.name} ?", item.place)),
}
"""Questions about one object by kind: what must be unique in the scene, and the question with its answer."""


def _ask_about_one(key: Key, ask: Ask, scene: Scene, rng: np.random.Generator) -> tuple[str, str] | None:
    item = _unique(scene, rng, key)
    return item and ask(item)


def _ask_what_is_at(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    place = pick(PLACES, rng)
    asked = ("shape", "color")[rng.integers(2)]
    found = [item for item in scene.objects if item.place == place]
    return f"what {asked} is at the {place} ?", getattr(found[0], asked) if found else "nothing"


def _ask_existence(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """Ask whether an object is there; half of the answers are yes.

    A wrong name keeps the colour or the shape of an object that is there.
    """
    item = pick(scene.objects, rng)
    if rng.random() < 0.5:
        return f"is there a {item.name} ?", "yes"
    present = {other.name for other in scene.objects}
    while True:
        keep_color = rng.random() < 0.5
        color = item.color if keep_color else pick(tuple(COLORS), rng)
        shape = pick(SHAPES, rng) if keep_color else item.shape
        if f"{color} {shape}" not in present:
            return f"is there a {color} {shape} ?", "no"


def _ask_neighbour(scene: Scene, rng: np.random.Generator) -> tuple[str, str] | None:
    """Ask about the object beside, above or below a named one."""
    item = _unique(scene, rng, lambda item: item.name)
    others = [other for other in scene.objects if item and other is not item and _relation(other, item)]
    if not others:
        return None
    other = pick(others, rng)
    asked = ("shape", "color")[rng.integers(2)]
    return f"what {asked} is the object {_relation(other, item)} the {item.name} ?", getattr(other, asked)


QUESTION_KINDS: dict[str, Callable[[Scene, np.random.Generator], tuple[str, str] | None]] = {
    **{kind: partial(_ask_about_one, *entry) for kind, entry in ABOUT_ONE.items()},
    "what_is_at": _ask_what_is_at,
    "count": lambda scene, rng: ("how many objects are there ?", str(len(scene.objects))),
    "existence": _ask_existence,
    "neighbour": _ask_neighbour,
}


def _relation(first: SceneObject, second: SceneObject) -> str | None:
    """Return where `first` is relative to `second` if they share a row or a column, else None."""
    if first.row == second.row:
        return "left of" if first.column < second.column else "right of"
    if first.column == second.column:
        return "above" if first.row < second.row else "below"
    return None


def _unique(scene: Scene, rng: np.random.Generator, key: Key) -> SceneObject | None:
    """Draw an object whose `key` no other object shares; None if there is none."""
    keys = [key(item) for item in scene.objects]
    alone = [item for item, value in zip(scene.objects, keys, strict=True) if keys.count(value) == 1]
    return pick(alone, rng) if alone else None


def pick(items: Sequence[Item], rng: np.random.Generator) -> Item:
    """Draw one of the items."""
    return items[int(rng.integers(len(items)))]
