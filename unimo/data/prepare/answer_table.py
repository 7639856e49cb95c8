"""The list of answers that pre-training on questions knows, from prepared corpora of questions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unimo.data.prepare.writer import Progress, no_progress, write_json
from unimo.data.readers.answer_table import SIZE, frequent_answers


def prepare_answers(
    corpora: Sequence[str], out: str | Path, count: int = SIZE, progress: Progress = no_progress
) -> dict[str, Any]:
    """Write `answers.json`, the most frequent answers of the training splits, and `summary.json`.

    Args:
        corpora: folders of questions that were prepared, such as `data/vqa`.
        count: largest number of answers; LXMERT has 9,500.

    Returns:
        The content of `summary.json`: the number of answers, and the share of the questions that have one.

    Raises:
        DataError: a corpus is missing, none has an answer, or a full disk.
    """
    answers, covered = frequent_answers(corpora, "train", count, progress)
    summary = {"corpora": list(corpora), "answers": len(answers), "share_of_questions": round(covered, 4)}
    write_json(Path(out) / "answers.json", answers)
    write_json(Path(out) / "summary.json", summary)
    return summary
