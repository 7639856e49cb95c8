"""Names of splits: lists joined by `+`, which of them share samples, and which one chooses the checkpoint."""

from __future__ import annotations

from collections.abc import Iterable

from unimo.errors import ConfigError
from unimo.settings import DataConfig

_SAME = {"dev": "val", "valid": "val", "validation": "val", "training": "train"}
_PARTS = {"trainable_val": "val", "rest_val": "val", "test-dev": "test"}
"""Part of a split -> the whole; the parts of one split have no samples in common."""


def split_words(splits: str) -> tuple[str, ...]:
    """Return the names in a list such as `train+trainable_val`.

    Raises:
        ConfigError: an empty name, or two names that share samples.
    """
    words = tuple(splits.split("+"))
    if not all(words):
        raise ConfigError(f"split {splits!r}: expected names joined by +, such as train+trainable_val")
    for number, word in enumerate(words):
        if other := common(word, words[:number]):
            raise ConfigError(
                f"split {splits!r} reads samples twice: {word} and {other} share them; leave one of them out"
            )
    return words


def common(word: str, others: Iterable[str]) -> str:
    """Return the first of other splits that shares samples with a split, or an empty string."""
    whole, part = _place(word)
    for other in others:
        its_whole, its_part = _place(other)
        if whole == its_whole and (part == its_part or not (part and its_part)):
            return other
    return ""


def _place(word: str) -> tuple[str, str]:
    """Return the whole split that a split belongs to, and its part of it, empty for all of it."""
    name = word.removesuffix("_fix")  # VQA v2 with normalised answers: the same questions
    name = _SAME.get(name, name)
    whole, _, part = name.partition("_")
    if name in _PARTS:
        return _PARTS[name], name
    return (whole, name) if whole == "val" and part else (name, "")  # MNLI: val_matched, val_mismatched


def validation_split(data: DataConfig, paper: str = "") -> str:
    """Return the split that is evaluated during training and chooses the checkpoint.

    It is `rest_val` after training on `trainable_val`, else `val`; with `data.selection=paper` it is `paper`.

    Args:
        data: `train_split` and `selection` of a run.
        paper: split of `data.selection=paper`; empty for tasks that have none.

    Raises:
        ConfigError: it is trained on (with `data.selection=paper` it may be), the test split is, or
            `selection` does not belong to the task.
    """
    words = split_words(data.train_split)
    if data.selection == "paper" and not paper:
        raise ConfigError("data.selection=paper is for --task retrieval and vqa; leave it out")
    plain = [word.removesuffix("_fix") for word in words]
    found = paper if data.selection == "paper" else "rest_val" if "trainable_val" in plain else "val"
    if any(word.endswith("_fix") for word in words):
        found += "_fix"
    if tested := next((word for word in words if word.startswith("test")), ""):
        raise ConfigError(f"data.train_split={data.train_split}: {tested} is to test; leave it out")
    if data.selection == "clean" and (trained := common(found, words)):
        raise ConfigError(
            f"data.train_split={data.train_split}: {trained} shares samples with {found}, which chooses the "
            "checkpoint; train on train+trainable_val, which leaves rest_val for that"
            + (f", or give data.selection=paper, which chooses it by {paper}" if paper else "")
        )
    return found
