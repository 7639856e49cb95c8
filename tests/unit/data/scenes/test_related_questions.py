"""Questions about `scenes` that entail others: their answers are true, and entailed answers follow."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import numpy as np

from unimo.data.scenes.related import VALUES, related_questions
from unimo.data.scenes.scene import PLACES, Scene, make_scene

IDS = [f"q{number}" for number in range(6)]


def drawn(seed: int) -> tuple[Scene, list]:
    rng = np.random.default_rng(seed)
    scene = make_scene(rng)
    return scene, related_questions(scene, IDS, rng)


def answer(text: str, scene: Scene) -> str | None:
    """Answer a question by reading its words; None where the object that it names is not there."""
    there = {item.place: item for item in scene.objects}
    places = re.findall("|".join(PLACES), text)
    if text.startswith("is there"):
        return "yes" if places[0] in there else "no"
    if not set(places) <= set(there):
        return None
    items = [there[place] for place in places]
    asked = next((name for name in VALUES if f" {name} " in text), "")
    if text.startswith(("what", "which")):
        return getattr(items[0], asked)
    if text.startswith("are"):
        return "yes" if getattr(items[0], asked) == getattr(items[1], asked) else "no"
    said = text.split(places[0])[1].replace(" a ", " ").split()[:-1]
    own = {items[0].color, items[0].shape, items[0].size}
    return "yes" if set(said) - {"and"} <= own else "no"


def test_answers_are_true_and_entailed_ones_follow() -> None:
    others = [drawn(seed)[0] for seed in range(1000, 1400)]
    followed: Counter[bool] = Counter()
    for seed in range(150):
        scene, questions = drawn(seed)
        assert len({one.text for one in questions}) == 6
        for one in questions:
            assert one.answer == answer(one.text, scene)
            assert one.answer in one.facts.valid == one.facts.plausible
            alike = [other for other in others if answer(one.text, other) == one.answer]
            entailed = [questions[IDS.index(key)] for key in one.facts.entailed]
            assert one not in entailed
            followed[bool(entailed)] += 1
            for other in entailed:
                assert {answer(other.text, known) for known in alike} <= {other.answer}
    assert followed[True] > 0.5 * followed.total()


def test_guessing_by_the_form_of_a_question_stays_below_two_thirds() -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for seed in range(500):
        for one in drawn(seed)[1]:
            counts[one.facts.structural][one.answer] += 1
    assert set(counts) == {"query", "choose", "verify", "logical", "compare"}
    for counter in counts.values():
        assert counter.most_common(1)[0][1] < 0.67 * counter.total()
