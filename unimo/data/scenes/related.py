"""Questions about a scene, of which some answers follow from others, with what GQA's scores read of them.

Objects are named by their place, which no two share. A question with its answer tells attributes of objects,
and it needs attributes of objects to be answered: it entails the others that need no more than it tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from unimo.data.scenes.language import pick
from unimo.data.scenes.scene import COLORS, PLACES, RADII, SHAPES, Scene, SceneObject
from unimo.metrics.gqa import OPEN, QuestionFacts

VALUES: dict[str, Sequence[str]] = {"color": tuple(COLORS), "shape": SHAPES, "size": tuple(RADII)}
"""Attributes, and what they can be."""
YES_NO = ("yes", "no")
Told = frozenset[tuple[str, str]]
"""Attributes with the places of their objects; `object` stands for there being one."""


@dataclass(frozen=True)
class RelatedQuestion:
    """A question with its only answer."""

    text: str
    answer: str
    needs: Told
    """Attributes from which its answer follows."""
    tells: Told
    """Attributes that follow from the question and its answer."""
    facts: QuestionFacts


Maker = Callable[[Scene, SceneObject, str, np.random.Generator], RelatedQuestion]


def related_questions(scene: Scene, ids: Sequence[str], rng: np.random.Generator) -> list[RelatedQuestion]:
    """Write a question for each id, none twice; pairs of them are about one attribute of one object.

    A third of the questions are open and the others binary, if the scene has two objects or more.

    Args:
        ids: names of the questions, which `facts.entailed` has.
    """
    made: dict[str, RelatedQuestion] = {}
    while len(made) < len(ids):
        item, asked = pick(scene.objects, rng), pick(list(VALUES), rng)
        for make in (_query, pick((_verify, _choose), rng), pick((_exists, _both, _compare), rng)):
            question = make(scene, item, asked, rng)
            if len(made) < len(ids):
                made.setdefault(question.text, question)
    questions = [list(made.values())[place] for place in rng.permutation(len(ids))]
    return [
        replace(one, facts=replace(one.facts, entailed=_entailed(one, questions, ids))) for one in questions
    ]


def _entailed(one: RelatedQuestion, others: Sequence[RelatedQuestion], ids: Sequence[str]) -> tuple[str, ...]:
    named = zip(ids, others, strict=True)
    return tuple(key for key, other in named if other is not one and other.needs <= one.tells)


def _facts(structural: str, semantic: str, asked: str, valid: Sequence[str]) -> QuestionFacts:
    """Return the facts of a question; all valid answers are plausible, as any object can have them."""
    group = asked if structural in (OPEN, "choose") else ""
    detailed = f"{structural}_{asked}"
    return QuestionFacts(structural, semantic, detailed, group, valid=tuple(valid), plausible=tuple(valid))


def _known(item: SceneObject, *attributes: str) -> Told:
    return frozenset((name, item.place) for name in ("object", *attributes))


def _query(scene: Scene, item: SceneObject, asked: str, rng: np.random.Generator) -> RelatedQuestion:
    known, facts = _known(item, asked), _facts(OPEN, "attr", asked, VALUES[asked])
    text = f"what {asked} is the object at the {item.place} ?"
    return RelatedQuestion(text, getattr(item, asked), known, known, facts)


def _choose(scene: Scene, item: SceneObject, asked: str, rng: np.random.Generator) -> RelatedQuestion:
    answer = getattr(item, asked)
    options = [answer, _other(asked, answer, rng)]
    first, second = (options[place] for place in rng.permutation(2))
    known, facts = _known(item, asked), _facts("choose", "attr", asked, options)
    text = f"which {asked} is the object at the {item.place} , {first} , {second} ?"
    return RelatedQuestion(text, answer, known, known, facts)


def _verify(scene: Scene, item: SceneObject, asked: str, rng: np.random.Generator) -> RelatedQuestion:
    value, is_right = getattr(item, asked), rng.random() < 0.5
    said, answer = (value, "yes") if is_right else (_other(asked, value, rng), "no")
    article = "a " * (asked == "shape")
    text = f"is the object at the {item.place} {article}{said} ?"
    # Of two sizes one follows from its not being the other.
    tells = _known(item, asked) if is_right or len(VALUES[asked]) == 2 else _known(item)
    return RelatedQuestion(text, answer, _known(item, asked), tells, _facts("verify", "attr", asked, YES_NO))


def _both(scene: Scene, item: SceneObject, asked: str, rng: np.random.Generator) -> RelatedQuestion:
    """Ask for a color and a size at once; half of the answers are yes, and in the others one is wrong."""
    said = {name: getattr(item, name) for name in ("color", "size")}
    known = told = _known(item, *said)
    is_right = rng.random() < 0.5
    if not is_right:
        wrong, told = pick(list(said), rng), _known(item)
        said[wrong] = _other(wrong, said[wrong], rng)
    text = f"is the object at the {item.place} {said['color']} and {said['size']} ?"
    return RelatedQuestion(text, YES_NO[not is_right], known, told, _facts("logical", "attr", "and", YES_NO))


def _exists(scene: Scene, item: SceneObject, asked: str, rng: np.random.Generator) -> RelatedQuestion:
    """Ask whether there is an object at a place; half of the answers are yes."""
    empty = [place for place in PLACES if place not in {other.place for other in scene.objects}]
    place, answer = (item.place, "yes") if rng.random() < 0.5 else (pick(empty, rng), "no")
    known = frozenset({("object", place)})
    text = f"is there an object at the {place} ?"
    return RelatedQuestion(text, answer, known, known, _facts("verify", "obj", "exist", YES_NO))


def _compare(scene: Scene, item: SceneObject, asked: str, rng: np.random.Generator) -> RelatedQuestion:
    """Ask whether two objects have an attribute in common; of an object alone, whether it is as said.

    As many answers are yes as the scene allows.
    """
    others = [other for other in scene.objects if other is not item]
    if not others:
        return _verify(scene, item, asked, rng)
    other, wanted = pick(others, rng), rng.random() < 0.5
    fit = [name for name in VALUES if (getattr(item, name) == getattr(other, name)) == wanted]
    asked = pick(fit, rng) if fit else asked
    answer = YES_NO[getattr(item, asked) != getattr(other, asked)]
    text = f"are the objects at the {item.place} and the {other.place} of one {asked} ?"
    needs, told = (_known(item, *names) | _known(other, *names) for names in ((asked,), ()))
    return RelatedQuestion(text, answer, needs, told, _facts("compare", "rel", asked, YES_NO))


def _other(asked: str, value: str, rng: np.random.Generator) -> str:
    return pick([other for other in VALUES[asked] if other != value], rng)
