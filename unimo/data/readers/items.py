"""The JSON form of samples, shared by jsonl lines and tar members.

pairs       {"text": "..."} or {"texts": ["...", "..."]} (also `caption`, `captions`)
vqa         {"question": "...", "answer": "yes"} or {"answers": [strings of the annotators]} or
            {"answers": {"yes": 1.0, "no": 0.3}}; optional question_id, question_type
texts       as pairs, without an image
images      an image; texts with it are ignored
entailment  {"text": "hypothesis", "label": "entailment" | "neutral" | "contradiction" | 2 | 1 | 0}

A list holds several samples of one image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unimo.data.readers.base import Kind, check_text
from unimo.errors import RecordError
from unimo.files import parse_json
from unimo.metrics.vqa import answer_type, soft_scores

LABELS = {"contradiction": 0, "neutral": 1, "entailment": 2}


def split_item(item: Any, kind: Kind, where: str) -> list[dict[str, Any]]:
    """Split an item into one mapping for each sample, without checking texts and labels.

    They are checked by `record_fields`, so that a bad text affects only its own sample.

    Raises:
        RecordError: not a mapping, or without the key that `kind` needs.
    """
    if isinstance(item, list) and kind != "images":
        return [sample for part in item for sample in split_item(part, kind, where)]
    if not isinstance(item, Mapping):
        raise RecordError(f"{where}: expected a JSON object, found {item!r:.80}")
    if kind == "images":
        return [{}]
    if kind not in ("pairs", "texts"):
        key = "question" if kind == "vqa" else "text"
        if key not in item:
            raise RecordError(f"{where}: no {key!r}; found {', '.join(map(str, item)) or 'nothing'}")
        return [dict(item)]
    for key in ("texts", "captions"):
        if isinstance(item.get(key), list):
            return [{"text": text} for text in item[key]]
    for key in ("text", "caption"):
        if key in item:
            return [{"text": item[key]}]
    raise RecordError(f"{where}: no 'text' or 'texts'; found {', '.join(map(str, item)) or 'nothing'}")


def count_samples(content: bytes, kind: Kind) -> int:
    """Count the samples of a JSON text; 1 if it is broken, so that reading it reports the error."""
    try:
        return len(split_item(parse_json(content, "", RecordError), kind, ""))
    except RecordError:
        return 1


def record_fields(sample: Mapping[str, Any], kind: Kind, where: str, sample_id: str) -> dict[str, Any]:
    """Convert one sample of `split_item` to fields of `Record`.

    A question without id gets that of the sample, so that predictions can be distinguished.

    Raises:
        RecordError: empty text, bad answers or unknown label.
    """
    if kind == "images":
        return {}
    if kind in ("pairs", "texts"):
        return {"text": check_text(sample["text"], where)}
    if kind == "entailment":
        text, label = check_text(sample["text"], where), sample.get("label")
        if isinstance(label, str) and label in LABELS:
            return {"text": text, "label": LABELS[label]}
        if label is None or (type(label) is int and label in LABELS.values()):
            return {"text": text, "label": label}
        raise RecordError(f"{where}: label {label!r} is not one of {', '.join(LABELS)} or 0, 1, 2")
    scores = _answer_scores(sample, where)
    return {
        "text": check_text(sample["question"], where),
        "question_id": sample.get("question_id", sample_id),
        "answer_scores": scores,
        "question_type": str(sample.get("question_type") or answer_type(scores)),
    }


def _answer_scores(sample: Mapping[str, Any], where: str) -> dict[str, float]:
    answers = sample.get("answers", sample.get("answer"))
    if answers is None:
        return {}
    if isinstance(answers, str):
        return {check_text(answers, where): 1.0}
    if isinstance(answers, list):
        return soft_scores([check_text(answer, where) for answer in answers])
    if isinstance(answers, Mapping):
        try:
            scores = {check_text(answer, where): float(score) for answer, score in answers.items()}
        except (TypeError, ValueError) as error:
            raise RecordError(f"{where}: answer scores must be numbers: {error}") from error
        if all(0 < score <= 1 for score in scores.values()):
            return scores
        raise RecordError(f"{where}: answer scores must lie in (0, 1], found {scores}")
    raise RecordError(f"{where}: expected answers as text, list or mapping, found {answers!r}")
