"""GQA's scores against an independent reading of their definitions, on a small made-up set of questions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from unimo.metrics.gqa import Judged, QuestionFacts, gqa_scores, unasked

ANSWERS = ("red", "blue", "yes", "no", "color", "dog")


def make_questions(seed: int, count: int = 60) -> list[dict[str, Any]]:
    """Questions in the form of GQA's own files, with their choices and a model's answers."""
    rng = np.random.default_rng(seed)
    questions = []
    for number in range(count):
        structural = ["query", "verify", "choose", "logical", "compare"][rng.integers(5)]
        questions.append(
            {
                "id": f"{number:08d}",
                "answer": ANSWERS[rng.integers(6)],
                "types": {
                    "structural": structural,
                    "semantic": ["obj", "attr", "rel"][rng.integers(3)],
                    "detailed": ["twoCommon", "existAttr", "color"][rng.integers(3)],
                },
                "groups": {"global": [None, "color", "animal"][rng.integers(3)]},
                "isBalanced": bool(rng.random() < 0.8),
                # Some are the question itself, and some are not in the file.
                "entailed": [f"{key:08d}" for key in rng.integers(0, count + 5, rng.integers(0, 5))]
                + [f"{number:08d}"],
                "valid": sorted(set(rng.choice(ANSWERS, 3))),
                "plausible": sorted(set(rng.choice(ANSWERS, 2))),
            }
        )
        questions[-1]["given"] = questions[-1]["answer"] if rng.random() < 0.5 else ANSWERS[rng.integers(6)]
    return questions


def by_definition(questions: list[dict[str, Any]]) -> dict[str, float]:
    """Read the definitions of GQA's page once more, with arrays instead of loops over questions."""
    ids = [q["id"] for q in questions]
    gold, given = (np.array([q[key] for q in questions]) for key in ("answer", "given"))
    right, balanced = gold == given, np.array([q["isBalanced"] for q in questions])
    structural, semantic = (
        np.array([q["types"][key] for q in questions]) for key in ("structural", "semantic")
    )
    groups = np.array([q["groups"]["global"] or "" for q in questions])

    def mean(values: Any, chosen: np.ndarray) -> float:
        return 100 * float(np.mean(np.asarray(values, float)[chosen & balanced]))

    scores = {
        "accuracy": mean(right, right | True),
        "open": mean(right, structural == "query"),
        "binary": mean(right, structural != "query"),
    }
    for key, choice in (("validity", "valid"), ("plausibility", "plausible")):
        allowed = [
            ["color", "material", "shape"] if "Common" in q["types"]["detailed"] else q[choice]
            for q in questions
        ]
        scores[key] = mean([a in b for a, b in zip(given, allowed, strict=True)], right | True)
    for kind, names in (("structural", structural), ("semantic", semantic)):
        scores |= {f"{kind}/{name}": mean(right, names == name) for name in set(names.tolist())}
    entails = np.zeros((len(ids), len(ids)))
    for row, question in enumerate(questions):
        for key in question["entailed"]:
            if key in ids and key != question["id"]:
                entails[row, ids.index(key)] += 1
    sources = right & balanced & (entails.sum(axis=1) > 0)
    scores["consistency"] = 100 * float(np.mean((entails @ right)[sources] / entails.sum(axis=1)[sources]))
    # For each group the chi-square statistic over its right answers; groups weigh as much as their questions.
    statistics, sizes = [], []
    for group in set(groups[balanced].tolist()) - {""}:
        of_group = balanced & (groups == group)
        expected = {answer: np.sum(gold[of_group] == answer) for answer in set(gold[of_group].tolist())}
        terms = [(np.sum(given[of_group] == answer) - n) ** 2 / n for answer, n in expected.items()]
        statistics.append(sum(terms))
        sizes.append(of_group.sum())
    scores["distribution"] = float(np.average(statistics, weights=sizes)) / 100
    return scores


def judged(question: dict[str, Any]) -> Judged:
    facts = QuestionFacts(
        **question["types"],
        group=question["groups"]["global"] or "",
        entailed=tuple(question["entailed"]),
        balanced=question["isBalanced"],
        valid=tuple(question["valid"]),
        plausible=tuple(question["plausible"]),
    )
    return Judged(question["id"], question["answer"], question["given"], facts)


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_their_definitions(seed: int) -> None:
    questions = make_questions(seed)
    found = gqa_scores(map(judged, questions))
    assert found == pytest.approx(by_definition(questions), rel=1e-12)
    again = [judged(one)._replace(prediction="dog") for one in questions]
    assert gqa_scores([*map(judged, questions), *again]) == found  # of two answers the first counts


def test_small_numbers_by_hand() -> None:
    facts = QuestionFacts("query", "attr", "color", "color", ("b", "c", "z"), valid=("red", "blue"))
    binary = QuestionFacts("verify", "obj", entailed=("a",))
    asked = [
        Judged("a", "red", "red", facts),
        Judged("b", "yes", "no", binary),
        Judged("c", "yes", "yes", replace(binary, balanced=False)),
        Judged("d", "blue", "red", replace(facts, entailed=())),
    ]
    assert gqa_scores(asked) == pytest.approx(
        {
            "accuracy": 100 / 3,
            "binary": 0.0,
            "open": 50.0,
            "consistency": 50.0,  # of a alone, which b and c follow from; z was not asked
            "validity": 100.0,
            "semantic/attr": 50.0,
            "semantic/obj": 0.0,
            "structural/query": 50.0,
            "structural/verify": 0.0,
            "distribution": (1 / 1 + 1 / 1) / 100,  # red twice instead of once, blue never
        }
    )
    assert unasked(asked) == (4, 1)


def test_questions_that_say_nothing_have_an_accuracy() -> None:
    plain = QuestionFacts()
    assert gqa_scores([Judged("1", "a", "a", plain), Judged("2", "a", "b", plain)]) == {"accuracy": 50.0}
    assert gqa_scores([]) == {}
