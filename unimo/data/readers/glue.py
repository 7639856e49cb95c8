"""The nine tasks of GLUE as it distributes them: a folder for each task, tab-separated, no quoting.

    SST-2   train.tsv dev.tsv (sentence, label), test.tsv (index, sentence); also without their header
    MNLI    train.tsv, dev_matched.tsv, dev_mismatched.tsv, test_matched.tsv, test_mismatched.tsv
    CoLA    train.tsv and dev.tsv without header (source, label, mark, sentence), test.tsv (index, sentence)
    STS-B   train.tsv dev.tsv test.tsv (..., sentence1, sentence2, score)
    QQP     the same (..., question1, question2, is_duplicate)
    QNLI    the same (index, question, sentence, label)
    MRPC    the same, or msr_paraphrase_{train,test}.txt (Quality, ..., #1 String, #2 String)
    RTE     the same (index, sentence1, sentence2, label); WNLI too
    AX      diagnostic.tsv (index, sentence1, sentence2), a test set for models of MNLI

Columns are found by name; others but the number of a sample are ignored. The test files of GLUE have no
labels. Lines are located and their labels checked when a file is opened; texts are read when needed.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unimo.data.checks import check_text
from unimo.data.readers.base import LineFile, TextDataset, check_index
from unimo.data.record import Record
from unimo.errors import DataError, RecordError, visible

GlueName = Literal["sst2", "mnli", "cola", "stsb", "qqp", "qnli", "mrpc", "rte", "wnli", "ax"]


@dataclass(frozen=True)
class GlueTask:
    """Format of the files of one GLUE task."""

    texts: tuple[str, ...]
    """Columns of the one or two sentences."""
    label: str
    """Column of the label."""
    classes: tuple[str, ...]
    """Labels as spelled in the files, in the order of the classes; empty for regression."""
    class_names: tuple[str, ...]
    """Names of the classes."""
    headless: tuple[str, ...] = ()
    """Columns of a file without header; empty if all files have one."""
    max_score: float = 0.0
    """Largest score of regression; the smallest is 0."""


NLI = ("contradiction", "neutral", "entailment")
ENTAILED = ("entailment", "not_entailment")
NUMBERS = ("index", "id")
"""Columns of the number of a line, which the server of GLUE wants back; QQP's is the latter."""
TASKS: dict[GlueName, GlueTask] = {
    "sst2": GlueTask(("sentence",), "label", ("0", "1"), ("negative", "positive"), ("sentence", "label")),
    "mnli": GlueTask(("sentence1", "sentence2"), "gold_label", NLI, NLI),
    "cola": GlueTask(
        ("sentence",),
        "label",
        ("0", "1"),
        ("unacceptable", "acceptable"),
        ("source", "label", "mark", "sentence"),
    ),
    "stsb": GlueTask(("sentence1", "sentence2"), "score", (), (), max_score=5.0),
    "qqp": GlueTask(("question1", "question2"), "is_duplicate", ("0", "1"), ("different", "duplicate")),
    "qnli": GlueTask(("question", "sentence"), "label", ENTAILED, ENTAILED),
    "mrpc": GlueTask(("#1 String", "#2 String"), "Quality", ("0", "1"), ("different", "equivalent")),
    "rte": GlueTask(("sentence1", "sentence2"), "label", ENTAILED, ENTAILED),
    "wnli": GlueTask(("sentence1", "sentence2"), "label", ("0", "1"), ("not_entailment", "entailment")),
    "ax": GlueTask(("sentence1", "sentence2"), "gold_label", NLI, NLI),
}
FOLDERS: dict[GlueName, tuple[str, ...]] = {
    "sst2": ("SST-2",), "mnli": ("MNLI",), "cola": ("CoLA",), "stsb": ("STS-B",), "qqp": ("QQP",),
    "qnli": ("QNLI",), "mrpc": ("MRPC",), "rte": ("RTE",), "wnli": ("WNLI",),
    "ax": ("diagnostic", "AX", "MNLI"),
}  # fmt: skip
"""Folders in the archives of GLUE; of several the first that is there."""
TITLES: dict[GlueName, str] = {name: folders[0] for name, folders in FOLDERS.items()}
"""Names of the data sets for people, which are those of the folders."""


class GlueFile(TextDataset):
    """One tab-separated file.

    Args:
        part: `matched` or `mismatched` (MNLI); accuracy is also reported for each part.
        needs_labels: refuse a file without labels.

    A line with more or fewer fields, or an unknown label, is a broken sample.

    Raises:
        DataError: missing file or column, or all lines are broken; names file and line.
    """

    def __init__(
        self, path: Path, task: GlueTask, name: str, part: str = "", needs_labels: bool = True
    ) -> None:
        self.path, self.task, self.name, self.part = path, task, name, part
        self._needs_labels = needs_labels
        self._labels = array("d")
        self._first_broken: RecordError | None = None
        self._columns: dict[str, int] = {}
        self._lines = LineFile(path, self._scan)
        if not len(self._lines):
            raise DataError(f"{path} has no samples")
        if self._first_broken and all(map(math.isinf, self._labels)):
            raise DataError(f"all {len(self)} lines are broken; the first: {self._first_broken}")

    def _scan(self, number: int, line: bytes) -> bool:
        """Read the header or the label of a line; return whether it is a sample."""
        fields = _split(line)
        if not line.strip() or (not self._columns and self._read_header(fields, number)):
            return False
        try:
            label = self._read_label(fields, f"{self.path}, line {number}")
        except RecordError as error:
            label = math.inf  # reading the sample says what is wrong
            self._first_broken = self._first_broken or error
        self._labels.append(label)
        return True

    def _read_header(self, fields: list[str], number: int) -> bool:
        """Set the columns from the first line with text; return False if it is already a sample."""
        wanted = (*self.task.texts, self.task.label)
        is_header = not self.task.headless or any(field in (*wanted, "index") for field in fields)
        columns = fields if is_header else self.task.headless
        self._columns = {column: place for place, column in enumerate(columns)}
        if len(self._columns) < len(columns):
            raise DataError(f"{self.path}, line {number}: two columns of one name; expected each once")
        missing = [column for column in wanted if column not in self._columns]
        if missing and (self._needs_labels or missing != [self.task.label]):
            found = ", ".join(visible(field[:30]) for field in fields[:12]) or "nothing"
            raise DataError(
                f"{self.path}, line {number}: no column {' and no column '.join(missing)}; found: {found}; "
                "expected these names with tabs between, and nothing around them"
            )
        return is_header

    def _read_label(self, fields: list[str], where: str) -> float:
        """Return the class or score of a line; NaN in a file without labels.

        Raises:
            RecordError: more or fewer fields than columns, or an unknown label.
        """
        used = {*self.task.texts, self.task.label}
        last, name = max((place, name) for name, place in self._columns.items() if name in used)
        if len(fields) > len(self._columns):
            raise RecordError(
                f"{where}: {len(fields)} columns, expected {len(self._columns)}; a tab in a text moves the "
                "columns behind it: replace it by a blank"
            )
        if len(fields) <= last:
            raise RecordError(
                f"{where}: {len(fields)} columns, and column {last + 1} ({name}) is missing; "
                "expected them with tabs between"
            )
        if self.task.label not in self._columns:
            return math.nan
        text = fields[self._columns[self.task.label]]
        if self.task.classes:
            if text not in self.task.classes:
                raise RecordError(
                    f"{where}: unknown label {text!r:.40}; expected {', '.join(self.task.classes)}"
                )
            return self.task.classes.index(text)
        try:
            score = float(text)
        except ValueError:
            score = math.nan
        if not 0 <= score <= self.task.max_score:
            raise RecordError(f"{where}: unknown score {text!r:.40}; expected 0 to {self.task.max_score:g}")
        return score

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Record:
        check_index(index, len(self))
        where, found = self._lines.where(index), _split(self._lines.content(index))
        self._read_label(found, where)
        texts = [check_text(found[self._columns[name]], where) for name in self.task.texts]
        fields: dict[str, Any] = dict(zip(("text", "text_pair"), texts, strict=False))
        label = self._labels[index]
        if self.task.classes and not math.isnan(label):
            fields |= {"label": int(label), "label_name": self.task.class_names[int(label)]}
        elif not math.isnan(label):
            fields["score"] = label
        number = next((found[self._columns[name]] for name in NUMBERS if name in self._columns), "")
        fields["question_id"] = int(number) if number.isdecimal() and len(number) < 19 else index
        return Record(self._lines.sample_id(index), self.name, question_type=self.part, **fields)


def _split(line: bytes) -> list[str]:
    return line.decode("utf8", "surrogateescape").rstrip("\r\n").split("\t")
