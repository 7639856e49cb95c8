"""Answers of VQA, facts of GQA, and labels of entailment and NLVR2 as files give them, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from unimo.data.checks import check_id, check_text
from unimo.errors import ConfigError, RecordError, UnimoError, shown
from unimo.files import read_json
from unimo.metrics.gqa import QuestionFacts

LABELS = {"contradiction": 0, "neutral": 1, "entailment": 2}


def check_label(label: object, where: str) -> int | None:
    """Return the number of an entailment label, given by name or number; None where there is none.

    Raises:
        RecordError: another label.
    """
    if isinstance(label, str) and label in LABELS:
        return LABELS[label]
    if label is None or (type(label) is int and label in LABELS.values()):
        return label
    raise RecordError(f"{where}: label {shown(label)} is not one of {', '.join(LABELS)} or 0, 1, 2")


TRUTHS = ("False", "True")
"""Labels 0 and 1 of NLVR2, as in its files."""


def check_truth(label: object, where: str) -> int | None:
    """Return the number of an NLVR2 label, 0 false and 1 true; None where there is none.

    Raises:
        RecordError: another label.
    """
    said = label.lower() if isinstance(label, str) else label
    if said is None or said in ("true", "false"):
        return None if said is None else int(said == "true")
    if type(said) in (bool, int) and said in (0, 1):
        return int(said)
    raise RecordError(f"{where}: label {shown(label)} is neither true nor false (also True, False, 1, 0)")


def check_scores(pairs: Iterable[tuple[object, object]], where: str) -> dict[str, float]:
    """Return the soft score of each answer to a question.

    Raises:
        RecordError: an answer that is no text or stands twice, or a score that is no number in (0, 1].
    """
    scores: dict[str, float] = {}
    for name, score in pairs:
        answer = check_text(name, f"{where}, answer")
        if answer in scores:
            raise RecordError(f"{where}: the answer {shown(answer)} stands twice; give it one score")
        is_number = isinstance(score, (int, float)) and not isinstance(score, bool)
        if not is_number or not 0 < score <= 1:
            raise RecordError(
                f"{where}: answer scores must lie in (0, 1], found {shown(score)} for {shown(answer)}; "
                "answers of several annotators can be given as a list, each as often as it was given"
            )
        scores[answer] = float(score)
    return scores


NO_CLASS = -1
"""Label of an answer that is no class, in splits that are not learned from."""


def check_facts(given: Mapping[str, object], where: str) -> QuestionFacts:
    """Return what GQA's scores read of a question, from values by the names of the fields.

    Raises:
        RecordError: a value of another type.
    """
    found: dict[str, object] = {}
    for name, default in vars(QuestionFacts()).items():
        value, place = given.get(name), f"{where}, {name!r}"
        if value is None or value == "":
            continue
        if not isinstance(default, tuple):
            found[name] = value if isinstance(default, bool) else check_text(value, place)
        if isinstance(default, bool) and not isinstance(value, bool):
            raise RecordError(f"{place}: expected true or false, found {shown(value)}")
        if isinstance(default, tuple):
            if not isinstance(value, list):
                raise RecordError(f"{place}: expected a list, found {shown(value)}")
            found[name] = tuple(str(check_id(part, place)) for part in value)
    return QuestionFacts(**found)


def read_facts(item: Mapping[str, object], where: str) -> QuestionFacts:
    """Return what GQA's scores read of a question, from the keys of GQA's own files and of its choices.

    Raises:
        RecordError: a value of another type.
    """
    inner = {key: {} if item.get(key) is None else item[key] for key in ("types", "groups")}
    for key, value in inner.items():
        if not isinstance(value, Mapping):
            raise RecordError(f"{where}, {key!r}: expected a JSON object, found {shown(value)}")
    outer = {key: item.get(key) for key in ("entailed", "valid", "plausible")}
    own = {"group": inner["groups"].get("global"), "balanced": item.get("isBalanced")}
    return check_facts({**inner["types"], **outer, **own}, where)


def check_classes(answers: object, where: object, kind: type[UnimoError]) -> list[str]:
    """Return a list of answer classes, in the order of their ids.

    Raises:
        UnimoError: of type `kind`; no list, an empty one, or an answer that is no text or stands twice.
    """
    if not isinstance(answers, Sequence) or isinstance(answers, str) or not answers:
        raise kind(
            f"{where}: expected a JSON list of answers in the order of their ids, found {shown(answers)}"
        )
    places: dict[str, int] = {}
    for place, name in enumerate(answers):
        try:
            answer = check_text(name, f"{where}, answer {place}")
        except RecordError as error:
            raise kind(f"{error}; a class without a name can be called {unnamed_class(place)!r}") from error
        if places.setdefault(answer, place) != place:
            raise kind(
                f"{where}, answer {place}: {shown(answer)} stands there already as answer {places[answer]}; "
                "expected each once"
            )
    return list(places)


def read_classes(path: str | Path, count: int) -> list[str]:
    """Return the names of the `count` outputs of a trained classifier, in the order of their ids.

    Args:
        path: a JSON list, or a JSON object of answer and id.

    Raises:
        ConfigError: the file is missing or something else, or has another number of answers.
    """
    found = read_json(path, ConfigError, "answers")
    if isinstance(found, Mapping) and all(type(place) is int for place in found.values()):
        order = sorted(found, key=found.get)
        found = order if [found[answer] for answer in order] == [*range(len(order))] else found
    answers = check_classes(found, path, ConfigError)
    if len(answers) != count:
        raise ConfigError(
            f"{path} has {len(answers):,} answers, the classifier has {count:,} outputs; give the list that "
            "it was trained with"
        )
    return answers


def unnamed_class(label: int) -> str:
    """Return the name of a class whose answer no table tells, or is empty; no answer equals it."""
    return f"<answer {label}>"
