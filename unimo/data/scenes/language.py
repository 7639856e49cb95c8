"""What can be said about a scene: captions, questions with answers, hypotheses with labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from unimo.data.scenes.scene import COLORS, PLACES, SHAPES, Scene, SceneObject

CONTRADICTION, NEUTRAL, ENTAILMENT = 0, 1, 2

TEMPLATE_WORDS = (
    "a an the is are of and in at to . , ? what where how many which color shape size object objects there "
    "left right above below one two three four 0 1 2 3 4 yes no nothing "
    "was drawn first last new old heavy light"
).split()
NUMBER_WORDS = ("zero", "one", "two", "three", "four")
HIDDEN_FACTS = ("was drawn first", "was drawn last", "is new", "is old", "is heavy", "is light")
"""Said of an object that is there, and not to be seen in a picture: neutral hypotheses."""


class Question(NamedTuple):
    """A question, its one answer, and the kind under which accuracy is reported."""

    kind: str
    text: str
    answer: str


def captions(scene: Scene, count: int, rng: np.random.Generator) -> list[str]:
    """`count` captions of a scene: one or two of its objects and where they are, or how they lie.

    Some only tell how many objects there are.
    """
    made = []
    for _ in range(count):
        chosen = [scene.objects[i] for i in rng.permutation(len(scene.objects))[:2]]
        relation = _relation(chosen[0], chosen[1]) if len(chosen) > 1 else None
        form = rng.random()
        if form < 0.1:
            number = NUMBER_WORDS[len(scene.objects)]
            made.append(
                f"there {'is' if number == 'one' else 'are'} {number} object{'s' * (number != 'one')} ."
            )
        elif relation and form < 0.3:
            made.append(f"{_full(chosen[0])} {relation} {_full(chosen[1])} .")
        elif form < 0.6:
            made.append(
                " , ".join(f"the {_name(item)} at the {item.place} is {item.size}" for item in chosen) + " ."
            )
        else:
            made.append(" , ".join(f"{_full(item)} at the {item.place}" for item in chosen) + " .")
    return made


def questions(scene: Scene, count: int, rng: np.random.Generator) -> list[Question]:
    """`count` questions; their kinds differ as far as the scene allows."""
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
    """`count` statements with labels: contradiction 0, neutral 1, entailment 2, in equal shares."""
    made = []
    for turn in range(count):
        item = scene.objects[rng.integers(len(scene.objects))]
        label = (ENTAILMENT, CONTRADICTION, NEUTRAL)[turn % 3]
        if label == NEUTRAL:
            made.append((f"the {item.color} {item.shape} {_pick(HIDDEN_FACTS, rng)} .", label))
            continue
        told = f"{item.color} {item.shape} at the {item.place}"
        if label == CONTRADICTION:
            told = _absent(scene, item, rng)
        made.append((f"there is a {told} .", label))
    return made


def _absent(scene: Scene, item: SceneObject, rng: np.random.Generator) -> str:
    """A description that differs from `item` in one word or place and fits no object of the scene."""
    there = {(other.color, other.shape, other.place) for other in scene.objects}
    while True:
        told = [item.color, item.shape, item.place]
        which = int(rng.integers(3))
        told[which] = _pick((tuple(COLORS), SHAPES, PLACES)[which], rng)
        if tuple(told) not in there:
            return f"{told[0]} {told[1]} at the {told[2]}"


def _ask_color(scene: Scene, rng: np.random.Generator) -> tuple[str, str] | None:
    item = _unique(scene, rng, lambda other: other.shape)
    return item and (f"what color is the {item.shape} ?", item.color)


def _ask_shape(scene: Scene, rng: np.random.Generator) -> tuple[str, str] | None:
    item = _unique(scene, rng, lambda other: other.color)
    return item and (f"what shape is the {item.color} object ?", item.shape)


def _ask_size(scene: Scene, rng: np.random.Generator) -> tuple[str, str] | None:
    item = _unique(scene, rng, _name)
    return item and (f"what size is the {_name(item)} ?", item.size)


def _ask_place(scene: Scene, rng: np.random.Generator) -> tuple[str, str] | None:
    item = _unique(scene, rng, _name)
    return item and (f"where is the {_name(item)} ?", item.place)


def _ask_what_is_at(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    place = _pick(PLACES, rng)
    asked = ("shape", "color")[rng.integers(2)]
    found = [item for item in scene.objects if item.place == place]
    return f"what {asked} is at the {place} ?", getattr(found[0], asked) if found else "nothing"


def _ask_count(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    return "how many objects are there ?", str(len(scene.objects))


def _ask_existence(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """Half of the answers are yes; a wrong name keeps the colour or the shape of an object that is there."""
    item = scene.objects[rng.integers(len(scene.objects))]
    if rng.random() < 0.5:
        return f"is there a {_name(item)} ?", "yes"
    there = {_name(other) for other in scene.objects}
    while True:
        keep_color = rng.random() < 0.5
        color = item.color if keep_color else _pick(tuple(COLORS), rng)
        shape = _pick(SHAPES, rng) if keep_color else item.shape
        if f"{color} {shape}" not in there:
            return f"is there a {color} {shape} ?", "no"


def _ask_neighbour(scene: Scene, rng: np.random.Generator) -> tuple[str, str] | None:
    """About the object beside, above or below a named one."""
    item = _unique(scene, rng, _name)
    others = [other for other in scene.objects if item and other is not item and _relation(other, item)]
    if not others:
        return None
    other = others[rng.integers(len(others))]
    asked = ("shape", "color")[rng.integers(2)]
    return f"what {asked} is the object {_relation(other, item)} the {_name(item)} ?", getattr(other, asked)


QUESTION_KINDS: dict[str, Callable[[Scene, np.random.Generator], tuple[str, str] | None]] = {
    "color": _ask_color,
    "shape": _ask_shape,
    "size": _ask_size,
    "place": _ask_place,
    "what_is_at": _ask_what_is_at,
    "count": _ask_count,
    "existence": _ask_existence,
    "neighbour": _ask_neighbour,
}


def _name(item: SceneObject) -> str:
    return f"{item.color} {item.shape}"


def _full(item: SceneObject) -> str:
    return f"a {item.size} {item.color} {item.shape}"


def _relation(first: SceneObject, second: SceneObject) -> str | None:
    """How `first` lies to `second` when they share a row or a column, else None."""
    if first.row == second.row:
        return "left of" if first.column < second.column else "right of"
    if first.column == second.column:
        return "above" if first.row < second.row else "below"
    return None


def _unique(scene: Scene, rng: np.random.Generator, key: Callable[[SceneObject], str]) -> SceneObject | None:
    """A random object whose `key` no other object shares."""
    keys = [key(item) for item in scene.objects]
    alone = [item for item, value in zip(scene.objects, keys, strict=True) if keys.count(value) == 1]
    return alone[rng.integers(len(alone))] if alone else None


def _pick(items: tuple[str, ...], rng: np.random.Generator) -> str:
    return items[int(rng.integers(len(items)))]
