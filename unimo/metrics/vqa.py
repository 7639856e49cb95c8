"""VQA v2: answer normalisation, soft scores, accuracy by type.

Normalisation keeps the quirks of the rules that the 3,129-answer vocabulary was built with; correcting
one of them would change the vocabulary (tests/unit/metrics/test_vqa_metric.py holds a table of cases).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
# The rule was meant to keep periods after a digit too, but its look-behind was mistyped: "3." becomes "3".
_PERIOD = re.compile(r"\.(?!\d)")
# The official code passes a regular-expression flag (32) as the count, so periods after the 32nd stay.
_MAX_PERIODS = 32
_NUMBERS = {
    word: str(number)
    for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
} | {"none": "0"}
_ARTICLES = ("a", "an", "the")
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've
we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's
who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've
you'll you're you've
""".split()
# Forms that lack exactly one of their apostrophes are repaired; one entry of the official table is reversed.
_CONTRACTIONS = {
    word[:i] + word[i + 1 :]: word for word in _CONTRACTED for i, letter in enumerate(word) if letter == "'"
} | {"somebody'd": "somebodyd"}


@lru_cache(maxsize=1 << 16)
def normalise_answer(answer: str) -> str:
    """Return the form in which answers are counted and compared: 'Two  dogs.' -> '2 dogs'."""
    text = answer
    has_number_with_comma = _DIGIT_COMMA_DIGIT.search(answer) is not None
    for mark in PUNCTUATION:
        touches_space = f"{mark} " in answer or f" {mark}" in answer
        text = text.replace(mark, "" if touches_space or has_number_with_comma else " ")
    words = _PERIOD.sub("", text, count=_MAX_PERIODS).lower().split()
    words = [_NUMBERS.get(word, word) for word in words]
    words = [_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES]
    return " ".join(words).replace(",", "")


def soft_score(count: int) -> float:
    """Return the credit of an answer that `count` of ten annotators gave: 0, 0.3, 0.6, 0.9, then 1."""
    return (0.0, 0.3, 0.6, 0.9, 1.0)[min(max(count, 0), 4)]


def soft_scores(answers: Sequence[str]) -> dict[str, float]:
    """Compute the credit of each answer, in first-seen order; counts are scaled to ten annotators."""
    return {
        answer: soft_score(max(1, int(count * 10 / len(answers) + 0.5)))
        for answer, count in Counter(answers).items()
    }


def answer_type(scores: Mapping[str, float]) -> str:
    """Return `yes/no`, `number` or `other` by the best answer; empty without answers."""
    if not scores:
        return ""
    best = max(scores, key=scores.__getitem__)
    if best in ("yes", "no"):
        return "yes/no"
    return "number" if best.replace(".", "", 1).isdigit() else "other"


def accuracy_by_type(scores: Iterable[float], types: Iterable[str]) -> dict[str, float]:
    """Compute the mean score of each question type in percent, sorted by name, and `overall`; {} if empty."""
    groups: dict[str, list[float]] = defaultdict(list)
    for score, kind in zip(scores, types, strict=True):
        groups[kind].append(float(score))
    if not groups:
        return {}
    every = [score for group in groups.values() for score in group]
    means = {kind or "unknown": 100 * sum(group) / len(group) for kind, group in sorted(groups.items())}
    return {"overall": 100 * sum(every) / len(every), **means}
