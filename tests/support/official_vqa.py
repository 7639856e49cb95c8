"""The accuracy of the VQA v2 evaluation server, which soft scores of answers come from."""

from __future__ import annotations

from collections.abc import Sequence

from unimo.metrics.vqa import normalise_answer


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Compute the official accuracy of one question: mean over annotators of min(1, agreeing others / 3).

    Both sides are normalised unless all annotators gave the same string, as in the official evaluation.

    Args:
        answers: raw strings of the annotators (ten in VQA v2).
    """
    prediction = " ".join(prediction.split())
    if len(set(answers)) > 1:
        prediction, answers = normalise_answer(prediction), [normalise_answer(answer) for answer in answers]
    matches = sum(answer == prediction for answer in answers)
    credits = (min(1.0, (matches - (answer == prediction)) / 3) for answer in answers)
    return sum(credits) / len(answers) if answers else 0.0
