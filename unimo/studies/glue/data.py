"""The data of a study on GLUE: which tasks are there, how large they are, and what guessing scores."""

from __future__ import annotations

import logging
from collections import Counter

from unimo.data.readers.base import Dataset
from unimo.data.readers.glue import TITLES, GlueName
from unimo.data.readers.open import resolve_path
from unimo.data.readers.open_glue import open_glue
from unimo.errors import DataError, RecordError
from unimo.settings import CorpusConfig, DataConfig

logger = logging.getLogger(__name__)
SCENES = "scenes"
SCORES: dict[GlueName, str] = {
    "mnli": "accuracy/mean", "qqp": "f1", "qnli": "accuracy", "sst2": "accuracy", "cola": "matthews",
    "stsb": "spearman", "mrpc": "f1", "rte": "accuracy",
}  # fmt: skip
"""Tasks in the order of UNIMO-3's Table 3, each with its score there. WNLI is in no table."""


class GlueData:
    """The files of GLUE in one folder, or `scenes`.

    Args:
        path: the folder.
        config: data section of the trainings.
    """

    def __init__(self, path: str, config: DataConfig) -> None:
        self.path, self._config = path, config

    def find(self, wanted: list[GlueName]) -> dict[GlueName, str]:
        """Return the score of each task that is wanted, or, if none is, of each that is there.

        Raises:
            DataError: there is none.
        """
        if not wanted:
            folder = resolve_path(CorpusConfig(self.path), self._config)
            wanted = [t for t in SCORES if self.path == SCENES or (folder / TITLES[t]).is_dir()]
        if not wanted:
            named = ", ".join(TITLES[task] for task in SCORES)
            raise DataError(f"--glue {self.path}: no folder of a task; expected some of {named}")
        # The sentences of `scenes` are of one genre.
        scores = SCORES | ({"mnli": "accuracy"} if self.path == SCENES else {})
        return {task: score for task, score in scores.items() if task in wanted}

    def open(self, task: GlueName, split: str) -> Dataset:
        """Open a split of a task. Raises as `open_glue`."""
        return open_glue(CorpusConfig(self.path), split, self._config, task)

    def guess(self, task: GlueName) -> float:
        """Return the score of guessing on dev, in percent.

        It is that of the most frequent class, of class 1 for F1, and 0 for correlations.

        Raises:
            DataError: dev is missing, or all of it is broken.
        """
        labels, parts = Counter(), set()
        dev = self.open(task, "val")
        for index in range(len(dev)):
            try:
                record = dev[index]
            except RecordError:  # counted and reported by evaluation
                continue
            labels[record.label] += 1
            parts.add(record.question_type)
        if len(parts) == 1 and parts != {""}:
            logger.warning("%s: its score is of the %s dev file alone", TITLES[task], *parts)
        if SCORES[task] in ("matthews", "spearman"):
            return 0.0
        if SCORES[task] == "f1":
            share = labels[1] / labels.total()
            return 100 * 2 * share / (1 + share)
        return 100 * max(labels.values()) / labels.total()
