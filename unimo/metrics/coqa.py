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
"""`source` of a story -> the name under which its domain is reported."""
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")

Score = Callable[[Sequence[str], Sequence[str]], float]


def answer_tokens(text: str) -> list[str]:
    """Lower-case words without punctuation marks and articles."""
    return _ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def token_f1(answer: Sequence[str], right: Sequence[str]) -> float:
    """F1 of the words of two answers as multisets; of empty ones whether both are."""
    if not answer or not right:
        return float(answer == right)
    common = (Counter(answer) & Counter(right)).total()
    return 2 * common / (len(answer) + len(right))


def turn_score(score: Score, answer: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """The best score over the references; of several it is the mean with each of them left out in turn.

    So a human answer, which is scored against the others, has as many references as a machine's.
    """
    values = [score(answer, right) for right in references]
    if len(values) == 1:
        return values[0]
    return sum(max(values[:left] + values[left + 1 :]) for left in range(len(values))) / len(values)


def coqa_scores(rows: Iterable[tuple[str, Sequence[str], str]]) -> dict[str, float]:
    """Scores of answers, means over all turns, times 100.

    Args:
        rows: answer, its references, and the `source` of its story.

    Returns:
        `f1`, `exact_match`, and `f1/<domain>` for each domain that a story is from.
    """
    found: defaultdict[str, list[float]] = defaultdict(list)
    for text, references, source in rows:
        answer, right = answer_tokens(text), [answer_tokens(reference) for reference in references]
        f1 = turn_score(token_f1, answer, right)
        found["f1"].append(f1)
        found["exact_match"].append(turn_score(lambda one, other: float(one == other), answer, right))
        if source:
            found[f"f1/{DOMAINS.get(source, source)}"].append(f1)
    return {name: 100 * sum(values) / len(values) for name, values in found.items()}
