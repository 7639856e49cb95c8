"""F1 and exact match of CoQA (Reddy et al., 2019), as its official evaluation computes them."""

from __future__ import annotations

import re
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

DOMAINS = {
    "mctest": "children_stories",
    "gutenberg": "literature",
    "race": "mid-high_school",
    "cnn": "news",
    "wikipedia": "wikipedia",
    "reddit": "reddit",
    "science": "science",
}
"""Reported name of a domain by the `source` of a story."""
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")

Score = Callable[[Sequence[str], Sequence[str]], float]


def answer_tokens(text: str) -> list[str]:
    """Split a text into lower-case words, without punctuation marks and articles."""
    return _ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def token_f1(answer: Sequence[str], reference: Sequence[str]) -> float:
    """Compute F1 of the words of two answers as multisets; with an empty one, 1 if both are empty, else 0."""
    if not answer or not reference:
        return float(answer == reference)
    common = (Counter(answer) & Counter(reference)).total()
    return 2 * common / (len(answer) + len(reference))


def turn_score(score: Score, answer: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return the best score over the references, averaged over leaving out each of several in turn.

    A human answer is scored against the others, so this gives predictions as many references as humans have.
    """
    values = [score(answer, reference) for reference in references]
    if len(values) == 1:
        return values[0]
    return sum(max(values[:left] + values[left + 1 :]) for left in range(len(values))) / len(values)


def coqa_scores(rows: Iterable[tuple[str, Sequence[str], str]]) -> dict[str, float]:
    """Compute the scores of answers, averaged over all turns, times 100.

    Args:
        rows: answer, its references, and the `source` of its story.

    Returns:
        `f1`, `exact_match`, and `f1/<domain>` for each domain of the stories.
    """
    found: defaultdict[str, list[float]] = defaultdict(list)
    for text, references, source in rows:
        answer, accepted = answer_tokens(text), [answer_tokens(reference) for reference in references]
        f1 = turn_score(token_f1, answer, accepted)
        found["f1"].append(f1)
        found["exact_match"].append(turn_score(lambda one, other: float(one == other), answer, accepted))
        if source:
            found[f"f1/{DOMAINS.get(source, source)}"].append(f1)
    return {name: 100 * sum(values) / len(values) for name, values in found.items()}
