"""Sentences about two scenes, of which neither alone tells anything about the truth (NLVR2).

A sentence comes with two left and two right scenes, thus four pairs, of which it is true of two: those of the
first left with the first right and of the second left with the second right scene. So every scene occurs with
its sentence once in a true and once in a false sample, and whatever judges by the sentence and one of the
scenes, or by the sentence alone, is right in exactly half of the samples.

Only statements that depend on what the two scenes have in common allow that: sums, "exactly one", "the same".
"Both have" and "more than" do not: a scene without a red square, or with no object at all, already decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from unimo.data.scenes.language import NUMBER_WORDS, pick
from unimo.data.scenes.scene import COLORS, PLACES, SHAPES, Scene, SceneObject, make_scene

LEFT, RIGHT = "the left", "the right"
MOST_IN_ONE = 2
"""Largest number of objects of one colour that a sentence about sums counts in a scene."""
Rng = np.random.Generator


class ScenePair(NamedTuple):
    """A sentence about two scenes."""

    text: str
    left: Scene
    right: Scene
    is_true: bool


class Statement(NamedTuple):
    """A sentence that is true of a left and a right scene that both have their first, or second value."""

    text: str
    lefts: Sequence[Any]
    """Two values of a property of the left scene."""
    rights: Sequence[Any]
    """Two values of a property of the right scene."""
    draw_left: Callable[[Any, Rng], Scene]
    """Value -> a scene that has it."""
    draw_right: Callable[[Any, Rng], Scene]


def draw_pairs(rng: Rng) -> list[ScenePair]:
    """Draw a sentence and its four pairs of scenes."""
    made = pick(STATEMENTS, rng)(rng)
    lefts = [made.draw_left(value, rng) for value in made.lefts]
    rights = [made.draw_right(value, rng) for value in made.rights]
    return [
        ScenePair(made.text, left, right, i == j)
        for i, left in enumerate(lefts)
        for j, right in enumerate(rights)
    ]


def _sum(rng: Rng) -> Statement:
    """`there are three red objects in the left and the right .`, of both together."""
    color, total = pick(tuple(COLORS), rng), int(rng.integers(1, 2 * MOST_IN_ONE))
    possible = range(max(0, total - MOST_IN_ONE), min(total, MOST_IN_ONE) + 1)
    lefts = [int(number) for number in rng.permutation(possible)[:2]]

    def draw(count: int, rng: Rng) -> Scene:
        scene = _scene(rng, lambda scene: len(scene.objects) >= count)
        chosen = set(rng.permutation(len(scene.objects))[:count].tolist())
        return _changed(scene, lambda i, item: {"color": _color(color, i in chosen, item, rng)})

    verb, plural = ("are", "s") if total > 1 else ("is", "")
    text = f"there {verb} {NUMBER_WORDS[total]} {color} object{plural} in {LEFT} and {RIGHT} ."
    return Statement(text, lefts, [total - number for number in lefts], draw, draw)


def _exactly_one(rng: Rng) -> Statement:
    """`there is a red square in one of the two .`, in exactly one."""
    color, shape = pick(tuple(COLORS), rng), pick(SHAPES, rng)

    def draw(is_there: bool, rng: Rng) -> Scene:
        scene = make_scene(rng)
        chosen = int(rng.integers(len(scene.objects))) if is_there else -1

        def change(i: int, item: SceneObject) -> dict[str, str]:
            if i == chosen:
                return {"color": color, "shape": shape}
            return {"color": _color(color, False, item, rng)} if item.shape == shape else {}

        return _changed(scene, change)

    first = bool(rng.integers(2))
    text = f"there is a {color} {shape} in one of the two ."
    return Statement(text, (first, not first), (not first, first), draw, draw)


def _same(rng: Rng) -> Statement:
    """`the object at the top left is of one color in the left and the right .`"""
    place, asked = pick(PLACES, rng), ("color", "shape")[rng.integers(2)]
    values = _two((tuple(COLORS), SHAPES)[asked == "shape"], rng)

    def draw(value: str, rng: Rng) -> Scene:
        scene = _scene(rng, lambda scene: any(item.place == place for item in scene.objects))
        return _changed(scene, lambda _, item: {asked: value} if item.place == place else {})

    text = f"the object at the {place} is of one {asked} in {LEFT} and {RIGHT} ."
    return Statement(text, values, values, draw, draw)


def _crossed(rng: Rng) -> Statement:
    """`the circle in the left is of the color of the square in the right .`, and not the reverse."""
    shapes, colors = _two(SHAPES, rng), _two(tuple(COLORS), rng)

    def drawer(shape: str) -> Callable[[str, Rng], Scene]:
        def draw(color: str, rng: Rng) -> Scene:
            scene = make_scene(rng)
            chosen = int(rng.integers(len(scene.objects)))
            others = [other for other in SHAPES if other != shape]

            def change(i: int, item: SceneObject) -> dict[str, str]:
                if i == chosen:
                    return {"color": color, "shape": shape}
                return {"shape": pick(others, rng)} if item.shape == shape else {}

            return _changed(scene, change)

        return draw

    text = f"the {shapes[0]} in {LEFT} is of the color of the {shapes[1]} in {RIGHT} ."
    return Statement(text, colors, colors, drawer(shapes[0]), drawer(shapes[1]))


STATEMENTS: Sequence[Callable[[Rng], Statement]] = (_sum, _exactly_one, _same, _crossed)


def _two(items: Sequence[str], rng: Rng) -> tuple[str, str]:
    first, second = rng.permutation(len(items))[:2]
    return items[first], items[second]


def _scene(rng: Rng, is_fit: Callable[[Scene], bool]) -> Scene:
    while not is_fit(scene := make_scene(rng)):
        pass
    return scene


def _changed(scene: Scene, change: Callable[[int, SceneObject], dict[str, str]]) -> Scene:
    """Return a scene with changes to each of its objects, given by number and object."""
    objects = (replace(item, **change(i, item)) for i, item in enumerate(scene.objects))
    return replace(scene, objects=tuple(objects))


def _color(color: str, has_it: bool, item: SceneObject, rng: Rng) -> str:
    """Return a colour for an object that is to have `color`, or is not; that of the object if it fits."""
    if has_it or item.color != color:
        return color if has_it else item.color
    return pick([other for other in COLORS if other != color], rng)
