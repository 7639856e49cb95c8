"""GQA: accuracies, consistency, validity, plausibility and distribution, as in its official evaluation.

Grounding, the share of attention on the regions that a question is about, is not among them: it needs the
scene graphs of the pictures, and an attention over boxes that not every model has.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

OPEN = "query"
"""Structural type of open questions; those of all others are binary, in GQA's words."""
SCORES = ("accuracy", "binary", "open", "consistency", "validity", "plausibility")
PROPERTIES = ("color", "material", "shape")
"""Valid and plausible answers to questions what two objects have in common, whatever the choices say."""


@dataclass(frozen=True)
class QuestionFacts:
    """Fields of a question, besides its answer, that the scores read; empty where a file says nothing."""

    structural: str = ""
    """Form of the question: verify, logical, choose, compare, query."""
    semantic: str = ""
    """Subject of the question: obj, attr, cat, rel, global."""
    detailed: str = ""
    """Finer type, such as `existAttr`."""
    group: str = ""
    """Global group, such as `color`; the answers of a group are compared as a distribution."""
    entailed: tuple[str, ...] = ()
    """Ids of questions whose answers follow from this one and its answer."""
    balanced: bool = True
    """Whether it is of the balanced questions, which all scores are means over."""
    valid: tuple[str, ...] = ()
    """Answers of the right kind: colours to a question for a colour."""
    plausible: tuple[str, ...] = ()
    """Answers that the world allows: colours that apples have."""


class Judged(NamedTuple):
    """A question with its right answer and the answer of a model."""

    question_id: str
    answer: str
    prediction: str
    facts: QuestionFacts


def gqa_scores(judged: Iterable[Judged]) -> dict[str, float]:
    """Compute the scores for which the questions have what these need; {} without questions.

    All are percentages but `distribution`, of which less is better. `accuracy` is also given for binary and
    for open questions, and for each type, such as `structural/compare` and `semantic/attr`. Entailed
    questions that were not asked do not count for `consistency`. The first answer to a question counts.
    """
    questions: dict[str, Judged] = {}
    for one in judged:
        questions.setdefault(one.question_id, one)
    found: dict[str, list[float]] = defaultdict(list)
    for one in questions.values():
        facts, hit = one.facts, float(one.prediction == one.answer)
        if not facts.balanced:
            continue
        found["accuracy"].append(hit)
        if facts.structural:
            found["open" if facts.structural == OPEN else "binary"].append(hit)
            found[f"structural/{facts.structural}"].append(hit)
        if facts.semantic:
            found[f"semantic/{facts.semantic}"].append(hit)
        for name, choices in (("validity", facts.valid), ("plausibility", facts.plausible)):
            if choices:
                allowed = PROPERTIES if "Common" in facts.detailed else choices
                found[name].append(float(one.prediction in allowed))
        if hit and (asked := [questions[key] for key in _others(one) if key in questions]):
            rights = [other.prediction == other.answer for other in asked]
            found["consistency"].append(sum(rights) / len(rights))
    names = [name for name in SCORES if name in found] + sorted(found.keys() - set(SCORES))
    scores = {name: 100.0 * sum(found[name]) / len(found[name]) for name in names}
    distance = distribution(questions.values())
    return scores if distance is None else scores | {"distribution": distance}


def unasked(judged: Iterable[Judged]) -> tuple[int, int]:
    """Count the entailed questions of balanced ones: all, and those that were not asked."""
    every = list(judged)
    known = {one.question_id for one in every}
    wanted = [key for one in every if one.facts.balanced for key in _others(one)]
    return len(wanted), sum(key not in known for key in wanted)


def distribution(judged: Iterable[Judged]) -> float | None:
    """Compute the chi-square statistic of given and right answers, over 100, a mean over groups by size.

    Answers that are never right in a group do not count there. None without groups.
    """
    gold: Mapping[str, Counter[str]] = defaultdict(Counter)
    given: Mapping[str, Counter[str]] = defaultdict(Counter)
    for one in judged:
        if one.facts.balanced and one.facts.group:
            gold[one.facts.group][one.answer] += 1
            given[one.facts.group][one.prediction] += 1
    total = sum(counts.total() for counts in gold.values())
    if not total:
        return None
    weighted = (
        counts.total() * sum((given[group][answer] - count) ** 2 / count for answer, count in counts.items())
        for group, counts in gold.items()
    )
    return sum(weighted) / total / 100


def _others(one: Judged) -> list[str]:
    return [key for key in one.facts.entailed if key != one.question_id]
